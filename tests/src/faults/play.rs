//! Plays many rows: those that harm no broker beside each other on one, the
//! others one after the other on a second one.

use super::judge::{Report, Verdict, judge};
use super::stage::{Long, Site};
use super::{Play, Queue, Row, Seen};
use crate::broker::{Address, Management, Options, Private, Release};
use anyhow::{Context as _, Result, bail};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tempfile::TempDir;

/// The rows to play, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On which brokers, one after the other.
    pub releases: Vec<Release>,
    /// How many rows at once.
    pub jobs: usize,
    /// The binaries under test.
    pub binaries: PathBuf,
    /// Whether the folders of rows that did not hold are kept.
    pub keep: bool,
    /// How the long form is played.
    pub long: Long,
}

/// One row on one kind of queue.
type Turn = (Row, Queue);

/// Plays `rows` and tells of each when it is over.
pub fn play(rows: &[Row], plan: &Plan, tell: &(dyn Fn(&Report) + Sync)) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for release in &plan.releases {
        reports.extend(on_release(*release, rows, plan, tell)?);
    }
    Ok(reports)
}

/// Plays one row briefly: on a broker that is there, or on one of its own if it needs that.
pub fn play_one(name: &str, address: &Address, binaries: &Path) -> Result<Verdict> {
    let all = super::rows();
    let row = all.iter().find(|row| row.name == name).context("there is no such fault")?;
    if let Some(why) = row.needs.iter().find_map(|need| need.missing()) {
        return Ok(Verdict::Skipped(why));
    }
    let folder = folder()?;
    let long = Long { tasks: 0, seed: 0, tell: |_| () };
    let queue = row.queues.first().copied().unwrap_or(Queue::Classic);
    let site = |address: &Address| {
        anyhow::Ok(Site {
            amqp: amqp(address)?,
            address: address.clone(),
            binaries: binaries.to_owned(),
            queue,
            folder: folder.path().to_owned(),
            brief: true,
            long,
        })
    };
    let seen = match row.play {
        Play::Beside(play) => play(&site(address)?)?,
        Play::Alone(_) if !Private::available() => {
            return Ok(Verdict::Skipped("there is no rabbitmq-server to start".to_owned()));
        }
        Play::Alone(play) => {
            let mut own = Private::start(&Options::default())?;
            let site = site(own.address())?;
            play(&site, &mut own)?
        }
    };
    Ok(judge(row, &seen))
}

/// A folder that goes with a row.
fn folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("clutch-fault-").tempdir()?)
}

/// Where a broker listens.
fn amqp(address: &Address) -> Result<SocketAddr> {
    let url = url::Url::parse(&address.amqp).context("the broker's address")?;
    let found = url.socket_addrs(|| Some(5672)).context("the broker's address")?;
    found.first().copied().context("the broker has no address")
}

/// The state that the lanes share.
struct Round<'a> {
    plan: &'a Plan,
    release: Release,
    reports: Mutex<Vec<(usize, Report)>>,
    tell: &'a (dyn Fn(&Report) + Sync),
    beside: Mutex<VecDeque<(usize, Turn)>>,
}

fn on_release(
    release: Release,
    rows: &[Row],
    plan: &Plan,
    tell: &(dyn Fn(&Report) + Sync),
) -> Result<Vec<Report>> {
    let turns = rows.iter().flat_map(|row| row.queues.iter().map(|queue| (*row, *queue)));
    let (alone, beside): (Vec<_>, Vec<_>) =
        turns.enumerate().partition(|(_, (row, _))| matches!(row.play, Play::Alone(_)));
    let round =
        Round { plan, release, reports: Mutex::default(), tell, beside: Mutex::new(beside.into()) };
    let options = Options { release, ..Options::default() };
    let shared = (!round.is_empty()).then(|| Server::start(&options)).transpose()?;
    let mut own = (!alone.is_empty()).then(|| Server::start(&options)).transpose()?;
    std::thread::scope(|scope| {
        let own_lane = usize::from(own.is_some());
        for _ in own_lane..plan.jobs.max(1) {
            scope.spawn(|| shared.as_ref().map(|shared| round.beside(shared)));
        }
        if let Some(own) = &mut own {
            for (number, turn) in alone {
                round.alone(number, turn, own, &options);
            }
        }
        if let Some(shared) = &shared {
            round.beside(shared);
        }
    });
    let mut reports = round.reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|(number, _)| *number);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

/// A broker, and the release that it says it is.
struct Server {
    broker: Private,
    version: String,
}

impl Server {
    fn start(options: &Options) -> Result<Self> {
        let broker = Private::start(options).context("starting a broker for the faults")?;
        let version = version(broker.address())?;
        Ok(Self { broker, version })
    }
}

/// The release that a broker says it is.
fn version(address: &Address) -> Result<String> {
    let overview = Management::new(address)?.call("GET", &["overview"], None)?;
    let version = overview["rabbitmq_version"].as_str();
    Ok(version.context("the broker does not say its version")?.to_owned())
}

impl Round<'_> {
    fn is_empty(&self) -> bool {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Plays rows beside others until none is left.
    fn beside(&self, server: &Server) {
        loop {
            let next = self.beside.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((number, turn)) = next else { return };
            let (row, queue) = turn;
            self.turn(number, turn, server.version.clone(), |folder| {
                let site = self.site(&server.broker, queue, folder)?;
                match row.play {
                    Play::Beside(play) => play(&site),
                    Play::Alone(_) => bail!("it needs a broker of its own"),
                }
            });
        }
    }

    /// Plays a row on a broker that it may harm, and mends that one.
    fn alone(&self, number: usize, turn: Turn, own: &mut Server, options: &Options) {
        let (row, queue) = turn;
        self.turn(number, turn, own.version.clone(), |folder| {
            if !own.broker.runs() {
                *own = Server::start(options)?;
            }
            let site = self.site(&own.broker, queue, folder)?;
            let seen = match row.play {
                Play::Beside(play) => play(&site),
                Play::Alone(play) => play(&site, &mut own.broker),
            };
            if seen.is_err() {
                // It may have left the broker in any state.
                *own = Server::start(options)?;
            }
            seen
        });
    }

    fn site(&self, broker: &Private, queue: Queue, folder: &Path) -> Result<Site> {
        Ok(Site {
            amqp: amqp(broker.address())?,
            address: broker.address().clone(),
            binaries: self.plan.binaries.clone(),
            queue,
            folder: folder.to_owned(),
            brief: false,
            long: self.plan.long,
        })
    }

    fn turn(
        &self,
        number: usize,
        (row, queue): Turn,
        broker: String,
        play: impl FnOnce(&Path) -> Result<Seen>,
    ) {
        let begun = Instant::now();
        let missing = row.needs.iter().find_map(|need| need.missing());
        let (verdict, seen, kept) = match missing {
            Some(why) => (Verdict::Skipped(why), None, None),
            None => match self.judged(&row, play) {
                Ok(judged) => judged,
                Err(error) => (Verdict::Failed(format!("{error:#}")), None, None),
            },
        };
        let report = Report {
            name: row.name,
            release: self.release,
            broker,
            queue,
            verdict,
            seen,
            again: row.again,
            since: row.since,
            took: begun.elapsed(),
            kept,
        };
        (self.tell)(&report);
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push((number, report));
    }

    /// Plays a row in a folder that goes afterwards, unless it is to be kept.
    fn judged(&self, row: &Row, play: impl FnOnce(&Path) -> Result<Seen>) -> Result<Judged> {
        let mut folder = folder()?;
        let (verdict, seen) = match play(folder.path()) {
            Ok(seen) => (judge(row, &seen), Some(seen)),
            Err(error) => (Verdict::Failed(format!("{error:#}")), None),
        };
        let keep = self.plan.keep && verdict != Verdict::Held;
        folder.disable_cleanup(keep);
        Ok((verdict, seen, keep.then(|| folder.path().to_owned())))
    }
}

type Judged = (Verdict, Option<Seen>, Option<PathBuf>);
