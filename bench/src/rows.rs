//! The rows, and what they share: where they work and how much they do.

mod answers;
mod backlog;
mod calls;
mod cancel;
mod crowd;
mod depth;
mod endpoints;
mod forget;
mod idle;
mod journal;
mod latency;
mod logs;
mod memory;
mod messages;
mod outage;
mod payloads;
mod placing;
mod processes;
mod round_trips;
mod schedules;
mod submissions;
mod throughput;
mod topics;
mod waiting;

use crate::disk;
use crate::peers::Peers;
use crate::report::Row;
use anyhow::{Context as _, Result};
use clutch_tests::broker::{Address, Broker};
use std::path::PathBuf;
use std::time::Duration;

/// A row's name on the command line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Name {
    /// How many durable files the disk makes per second: the limit of what follows
    JournalLimit,
    /// Round trips per second over a folder
    FolderThroughput,
    /// One round trip at a time over a folder
    FolderLatency,
    /// The cost per task of 100,000 that wait in a folder, beside that of 1,000
    FolderBacklog,
    /// Round trips per second within this process, for comparison
    MemoryThroughput,
    /// Round trips per second over the broker, for comparison
    AmqpThroughput,
    /// No-op round trips per second, one message a task, beside a bare loop
    RoundTrips,
    /// No-op tasks per second, from submit to recorded
    Submissions,
    /// One no-op task at a time, from submit to recorded, beside a bare loop
    Latency,
    /// Several clients that each wait for one no-op task at a time
    Crowd,
    /// Processes per second, beside the bare system call and xargs
    Processes,
    /// Calls of a Python function in warm workers
    Calls,
    /// The memory of the daemons
    Memory,
    /// Outputs of 1 MiB and of 15 MiB
    Payloads,
    /// How often idle daemons wake, beside bare connections
    Idle,
    /// The cost of 1,000 idle endpoints to the service, and their memory
    Endpoints,
    /// Results that gather while the broker takes none, and leave when it is back
    Outage,
    /// The cost per task of 1,000,000 that wait at the broker, beside that of 1,000
    QueueDepth,
    /// 1,000,000 ended tasks that are forgotten while others are recorded
    Forget,
    /// 100,000 tasks that are submitted without a link and wait for it
    Waiting,
    /// Output of a running task that is followed, and other tasks beside one that prints
    Logs,
    /// 100,000 queued tasks that are cancelled, online and offline
    Cancel,
    /// 10,000 schedules that are due at one moment, and a lone one
    Schedules,
    /// Messages between running tasks, at one endpoint and at two, beside a bare loop
    Messages,
    /// Tasks of a topic over 1, 2 and 4 members, beside as many that are addressed to them
    Topics,
    /// The cost of placing a task while 1,000,000 wait for 1,000 members, beside that of 1,000
    Placing,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// How often a measurement is repeated.
    pub(crate) repetitions: usize,
    /// Round trips of one measurement of throughput.
    pub(crate) round_trips: usize,
    /// Round trips of one measurement of latency.
    pub(crate) sequential: usize,
    /// Tasks of several clients that wait.
    pub(crate) crowd: usize,
    /// Tasks of one submission.
    pub(crate) submitted: usize,
    /// Processes of one measurement.
    pub(crate) processes: usize,
    /// Calls of one measurement.
    pub(crate) calls: usize,
    /// Tasks of one measurement of a peer that is given messages.
    pub(crate) peer: usize,
    /// Middling tasks in a queue.
    pub(crate) middling: usize,
    /// Results that gather at an endpoint.
    pub(crate) gathered: usize,
    /// Finished tasks in a database.
    pub(crate) finished: usize,
    /// Large outputs.
    pub(crate) payloads: usize,
    /// How long daemons are left alone before they count as idle.
    pub(crate) settling: Duration,
    /// How long a pair of them is watched then.
    pub(crate) idle: Duration,
    /// How long very many endpoints are.
    pub(crate) window: Duration,
    /// How many these are.
    pub(crate) endpoints: usize,
    /// Durable files of one measurement of the disk.
    pub(crate) probes: usize,
    /// Tasks of a large backlog.
    pub(crate) backlog: usize,
    /// Tasks of a very deep queue at the broker, and how often it is measured.
    pub(crate) deep: usize,
    pub(crate) deep_rounds: usize,
    /// Tasks of a small backlog.
    pub(crate) small: usize,
    /// Most small backlogs that are measured before and after each large one.
    pub(crate) small_rounds: usize,
    /// Schedules that are due at one moment.
    pub(crate) schedules: usize,
    /// Instants of a lone schedule.
    pub(crate) beats: usize,
}

impl Scale {
    /// The scale that recorded figures are taken at.
    pub(crate) const FULL: Self = Self {
        repetitions: 5,
        round_trips: 10_000,
        sequential: 500,
        crowd: 3200,
        submitted: 100_000,
        processes: 3000,
        calls: 30_000,
        peer: 3000,
        middling: 60_000,
        gathered: 1_000_000,
        finished: 1_000_000,
        payloads: 1000,
        settling: Duration::from_secs(15),
        idle: Duration::from_secs(30),
        window: Duration::from_secs(60),
        endpoints: 1000,
        probes: 300,
        backlog: 100_000,
        deep: 1_000_000,
        deep_rounds: 2,
        small: 1000,
        small_rounds: 25,
        schedules: 10_000,
        beats: 60,
    };
    /// Enough to see that everything works, and that a clock of 10 ms counts what it
    /// takes.
    pub(crate) const QUICK: Self = Self {
        repetitions: 1,
        round_trips: 500,
        sequential: 50,
        crowd: 128,
        submitted: 10_000,
        processes: 1000,
        calls: 500,
        peer: 200,
        middling: 500,
        gathered: 2000,
        finished: 2000,
        payloads: 10,
        settling: Duration::from_millis(100),
        idle: Duration::from_secs(6),
        window: Duration::from_secs(6),
        endpoints: 5,
        probes: 20,
        backlog: 1500,
        deep: 3000,
        deep_rounds: 1,
        small: 1000,
        small_rounds: 3,
        schedules: 500,
        beats: 5,
    };
}

/// Where and how much.
pub(crate) struct Bench {
    /// The folder that spool folders are made in.
    pub(crate) folder: PathBuf,
    /// How much.
    pub(crate) scale: Scale,
    /// Other programs to measure, if they are asked for.
    pub(crate) peers: Option<Peers>,
}

impl Bench {
    /// Measures a row.
    pub(crate) async fn measure(&self, name: Name) -> Result<Row> {
        match name {
            Name::JournalLimit => journal::limit(self),
            Name::FolderThroughput => throughput::folder(self).await,
            Name::FolderLatency => latency::folder(self).await,
            Name::FolderBacklog => backlog::folder(self).await,
            Name::MemoryThroughput => throughput::memory(self).await,
            Name::AmqpThroughput => throughput::amqp(self).await,
            Name::RoundTrips => round_trips::measure(self).await,
            Name::Submissions => submissions::measure(self),
            Name::Latency => answers::measure(self).await,
            Name::Crowd => crowd::measure(self).await,
            Name::Processes => processes::measure(self).await,
            Name::Calls => calls::measure(self),
            Name::Memory => memory::measure(self).await,
            Name::Payloads => payloads::measure(self).await,
            Name::Idle => idle::measure(self).await,
            Name::Endpoints => endpoints::measure(self).await,
            Name::Outage => outage::measure(self),
            Name::QueueDepth => depth::measure(self),
            Name::Forget => forget::measure(self),
            Name::Waiting => waiting::measure(self),
            Name::Logs => logs::measure(self).await,
            Name::Cancel => cancel::measure(self),
            Name::Schedules => schedules::measure(self).await,
            Name::Messages => messages::measure(self).await,
            Name::Topics => topics::measure(self),
            Name::Placing => placing::measure(self).await,
        }
    }

    /// The broker of this run, started when it is first asked for.
    fn broker(&self) -> Result<&'static Address> {
        Broker::shared().map(Broker::address)
    }

    /// The file system that programs of this run keep their folders on.
    fn file_system(&self) -> Result<String> {
        disk::file_system(&std::env::temp_dir())
    }

    /// The file system of the folder that is measured in. Not its path: a recorded page is
    /// read on other machines.
    fn folder_file_system(&self) -> Result<String> {
        disk::file_system(&self.folder)
    }

    /// A new folder, removed with what it is in.
    fn spool(&self) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix("clutch-bench-").tempdir_in(&self.folder);
        made.with_context(|| format!("making a folder in {}", self.folder.display()))
    }
}
