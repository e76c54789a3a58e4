//! The plan of a run, made from its seed: its size, and which mishaps it knows and how
//! often they come. Pure. Each run knows about half of them, so that a rare one is not
//! always in the company of all others.

use super::rng::Rng;
use crate::pending::inbox::Bounds;
use std::collections::BTreeMap;
use std::time::Duration;

/// Something that may go wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Mishap {
    /// Dialling fails, before or after the broker has the connection.
    Dial,
    /// Taking the lease fails, before or after the broker has given it.
    Lease,
    /// A connection is lost when deliveries reach the endpoint, or before.
    CutAtDelivery,
    /// A connection is lost as something is settled; the broker may get it.
    CutAtSettling,
    /// A connection is lost as a result is published; the broker may get it.
    CutAtPublish,
    /// A connection is lost before its confirms reach the endpoint.
    CutAtConfirm,
    /// The broker notices a lost connection late.
    HalfOpen,
    /// A result has no queue to go to.
    Returned,
    /// The results queue is full.
    Refused,
    /// A confirm says nothing certain; the message may have arrived.
    Doubt,
    /// A confirm never comes.
    Unconfirmed,
    /// The broker blocks publishing for a while.
    Blocked,
    /// Messages and confirms take long on their way.
    SlowLink,
    /// The process dies before, or after, something is written to disk.
    CrashAtWrite,
    /// The process dies as a task starts or ends.
    CrashAtTask,
    /// The process dies right after an acknowledgement has reached the broker.
    CrashAtAcknowledge,
    /// The process dies right after a result has reached the broker.
    CrashAtPublish,
    /// A commit takes long.
    SlowDisk,
    /// A commit takes longer than the journal waits.
    StalledDisk,
    /// The disk fails, before or after something is written to it.
    BrokenDisk,
    /// The disk is full for a while.
    FullDisk,
    /// The broker restarts.
    Restart,
    /// An instance cannot be reached for a while.
    Partition,
    /// The process is killed at any moment.
    Kill,
    /// The process is told to stop.
    Stop,
    /// The process is frozen for a while, and the broker may give up on it.
    Freeze,
    /// An instance's node is gone, with its disk; another one may take its place.
    LostNode,
    /// A person declares all instances lost, rightly or not.
    DeclaredLost,
    /// The service publishes tasks again that it has published.
    Repeated,
    /// The service cancels tasks.
    Cancelled,
    /// The service drains the endpoint for a while.
    Drained,
}

/// Of which each run has one.
const FLEETS: [Fleet; 7] = [
    Fleet::Lone,
    Fleet::Lone,
    Fleet::Rivals,
    Fleet::Standbys(2),
    Fleet::Standbys(2),
    Fleet::Standbys(3),
    Fleet::Standbys(3),
];

const ALL: [Mishap; 31] = [
    Mishap::Dial,
    Mishap::Lease,
    Mishap::CutAtDelivery,
    Mishap::CutAtSettling,
    Mishap::CutAtPublish,
    Mishap::CutAtConfirm,
    Mishap::HalfOpen,
    Mishap::Returned,
    Mishap::Refused,
    Mishap::Doubt,
    Mishap::Unconfirmed,
    Mishap::Blocked,
    Mishap::SlowLink,
    Mishap::CrashAtWrite,
    Mishap::CrashAtTask,
    Mishap::CrashAtAcknowledge,
    Mishap::CrashAtPublish,
    Mishap::SlowDisk,
    Mishap::StalledDisk,
    Mishap::BrokenDisk,
    Mishap::FullDisk,
    Mishap::Restart,
    Mishap::Partition,
    Mishap::Kill,
    Mishap::Stop,
    Mishap::Freeze,
    Mishap::LostNode,
    Mishap::DeclaredLost,
    Mishap::Repeated,
    Mishap::Cancelled,
    Mishap::Drained,
];

impl Mishap {
    /// How often it may come: once in so many occasions, at most and at least.
    fn occasions(self) -> std::ops::Range<u64> {
        match self {
            Self::CrashAtTask | Self::CrashAtAcknowledge => 30..300,
            // Several times in a commit.
            Self::CrashAtWrite => 100..1_000,
            Self::BrokenDisk => 400..2_400,
            Self::CrashAtPublish | Self::CutAtDelivery | Self::CutAtSettling => 10..100,
            Self::StalledDisk => 100..600,
            Self::CutAtPublish | Self::CutAtConfirm | Self::Unconfirmed | Self::Blocked => 10..100,
            Self::Dial | Self::Lease | Self::HalfOpen => 2..8,
            Self::Returned | Self::Refused | Self::Doubt | Self::Repeated => 5..50,
            Self::SlowLink | Self::SlowDisk | Self::FullDisk => 5..100,
            // Of the moments at which a fault may come.
            Self::Restart | Self::Partition | Self::Kill | Self::Stop | Self::Freeze => 2..10,
            Self::LostNode => 3..20,
            // Of the moments at which the service may steer the endpoint.
            Self::Cancelled => 1..6,
            Self::Drained => 3..12,
            // Of the moments at which the service looks.
            Self::DeclaredLost => 300..3_000,
        }
    }
}

/// How an endpoint is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fleet {
    /// One instance; where its node is lost, another one takes its place.
    Lone,
    /// Two that do not know of each other, each started without `--standby`. The
    /// service does not recover what one of them has: it would run twice.
    Rivals,
    /// So many that share the endpoint.
    Standbys(usize),
}

/// How many nodes there are to take the place of a lost one.
const SPARES: usize = 2;

/// A run's size, and its faults.
#[derive(Debug)]
pub(super) struct Plan {
    /// How the endpoint is run.
    pub(super) fleet: Fleet,
    /// How long the service waits for a silent state before it gives it up.
    pub(super) lost_after: Duration,
    /// How many messages with tasks are published.
    pub(super) messages: u64,
    /// The most tasks in a message.
    pub(super) message_tasks: u64,
    /// How many tasks run at once.
    pub(super) slots: usize,
    /// The inbox's.
    pub(super) bounds: Bounds,
    /// How many deliveries may be under way.
    pub(super) prefetch: u16,
    /// How long things go wrong.
    pub(super) faults_last: Duration,
    /// Whether some of the tasks are of a topic.
    pub(super) topics: bool,
    occasions: BTreeMap<Mishap, u64>,
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut occasions = BTreeMap::new();
        for mishap in ALL {
            if rng.once_in(2) {
                occasions.insert(mishap, rng.within(mishap.occasions()));
            }
        }
        let fleet = *rng.pick(&FLEETS);
        Self {
            fleet,
            lost_after: rng.millis(300_000..900_000),
            messages: rng.within(5..60),
            message_tasks: *rng.pick(&[1, 1, 3, 10]),
            slots: *rng.pick(&[1, 2, 2, 4, 8]),
            bounds: Bounds { max_tasks: *rng.pick(&[1, 5, 20, 1000]), max_bytes: 1 << 20 },
            prefetch: *rng.pick(&[1, 4, 32]),
            faults_last: rng.millis(20_000..400_000),
            topics: rng.once_in(3) && fleet != Fleet::Rivals,
            occasions,
        }
    }

    /// How many instances start.
    pub(super) fn instances(&self) -> usize {
        match self.fleet {
            Fleet::Lone => 1,
            Fleet::Rivals => 2,
            Fleet::Standbys(count) => count,
        }
    }

    /// How many nodes there are in all, each with a disk.
    pub(super) fn nodes(&self) -> usize {
        self.instances() + if self.recovers() { SPARES } else { 0 }
    }

    /// Whether the instances know that they share their endpoint.
    pub(super) fn is_careful(&self) -> bool {
        matches!(self.fleet, Fleet::Standbys(_))
    }

    /// Whether the service asks for what may be lost, and submits it again.
    pub(super) fn recovers(&self) -> bool {
        self.fleet != Fleet::Rivals
    }

    /// On how many occasions a mishap comes once; never without one.
    pub(super) fn once_in(&self, mishap: Mishap) -> Option<u64> {
        self.occasions.get(&mishap).copied()
    }
}
