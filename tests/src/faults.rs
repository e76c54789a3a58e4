//! The fault suite: every fault played against real processes and a real
//! broker, or a shared folder in its place, and judged by what was submitted, recorded, lost, and run again.
//!
//! A [`Row`] is one fault. It plays on a [`Stage`] with an oracle that knows every
//! task that was submitted, makes sure that the fault really hit, and hands
//! back what it [`Seen`]. [`judge()`] says whether that keeps the contract;
//! [`play()`] runs many, and [`record`] writes what came of them.

mod broker;
mod cancel;
mod dice;
mod failover;
mod faked_clock;
mod folder;
mod gathering;
mod host;
mod judge;
mod link;
mod log;
mod messages;
mod million;
mod needs;
mod pair;
mod past;
mod play;
mod posts;
pub mod record;
mod schedules;
mod service;
mod stage;
mod state;
mod stop;
mod task;
mod topics;
mod topology;
mod unreadable;
mod waiting;

pub use judge::{Report, Seen, Verdict, judge};
pub use needs::Need;
pub use play::{Plan, play, play_one};
pub use stage::{Long, Site, Stage};

use crate::broker::Private;
use anyhow::Result;
use std::fmt;
use std::time::Duration;

/// The queue type, or the folder, that keeps the tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// The broker, on one node's disk.
    Classic,
    /// The broker, replicated.
    Quorum,
    /// A folder that endpoint and service share; there is no broker.
    Folder,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Folder => "folder",
        })
    }
}

/// Plays a fault.
#[derive(Clone, Copy)]
pub enum Play {
    /// In a vhost of its own, beside others.
    Beside(fn(&Site) -> Result<Seen>),
    /// With a broker that no other row uses meanwhile.
    Alone(fn(&Site, &mut Private) -> Result<Seen>),
}

/// One fault of the suite.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// The fault, in one line.
    pub what: &'static str,
    /// Why tasks may run again; nothing where none may.
    pub again: Option<&'static str>,
    /// How long recovery may take at most.
    pub within: Duration,
    /// The moment that the time to recover counts from.
    pub since: &'static str,
    /// The queue types, or the folder, that it is played on.
    pub queues: &'static [Queue],
    /// Its needs besides a broker.
    pub needs: &'static [Need],
    /// The function that plays it.
    pub play: Play,
}

const CLASSIC: &[Queue] = &[Queue::Classic];
const BOTH: &[Queue] = &[Queue::Classic, Queue::Quorum];
const ALL: &[Queue] = &[Queue::Classic, Queue::Quorum, Queue::Folder];
const FOLDER: &[Queue] = &[Queue::Folder];

impl Row {
    /// A fault of the link, the broker or the service: nothing runs again, and
    /// everything goes on soon after its end.
    const fn new(name: &'static str, what: &'static str, play: Play) -> Self {
        Self {
            name,
            what,
            again: None,
            within: Duration::from_secs(30),
            since: "the end of the fault",
            queues: CLASSIC,
            needs: &[],
            play,
        }
    }

    const fn within(self, seconds: u64) -> Self {
        Self { within: Duration::from_secs(seconds), ..self }
    }

    const fn since(self, since: &'static str) -> Self {
        Self { since, ..self }
    }

    const fn may_run_again(self, why: &'static str) -> Self {
        Self { again: Some(why), ..self }
    }

    const fn on(self, queues: &'static [Queue]) -> Self {
        Self { queues, ..self }
    }

    const fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }
}

/// All faults, in the order of the table.
#[must_use]
pub fn rows() -> Vec<Row> {
    [
        link::ROWS,
        messages::ROWS,
        broker::ROWS,
        topology::ROWS,
        unreadable::ROWS,
        stop::ROWS,
        gathering::ROWS,
        state::ROWS,
        service::ROWS,
        waiting::ROWS,
        schedules::ROWS,
        cancel::ROWS,
        pair::ROWS,
        past::ROWS,
        failover::ROWS,
        folder::ROWS,
        host::ROWS,
        log::ROWS,
        task::ROWS,
        posts::ROWS,
        topics::ROWS,
        million::ROWS,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_plain_and_nobody_elses() {
        let rows = rows();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        for row in rows {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(row.name.chars().all(plain), "{}", row.name);
            assert!(!row.what.contains('|') && !row.what.contains('\n'), "{}", row.name);
        }
    }
}
