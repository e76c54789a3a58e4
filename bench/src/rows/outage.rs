//! Results that gather at the endpoint while the broker takes none, and leave when
//! it is back: how much memory and disk the daemon uses, and how quickly the last
//! one is recorded.
//!
//! A broker short of disk goes on delivering and takes nothing in. So the tasks
//! wait in the queue of a daemon that is frozen, the broker runs short, the daemon
//! goes on, works through all of them and can deliver nothing. Then the broker is
//! killed, and started again with enough of everything.

use super::Bench;
use super::round_trips::SLOTS;
use super::submissions::{AT_ONCE, PATIENCE, submit_alike};
use crate::disk::used;
use crate::pair::{NAME, Pair};
use crate::report::{Row, Side};
use anyhow::{Context as _, Result, ensure};
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::json::Json;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::{topology, wire};
use clutch_tests::api::progress;
use clutch_tests::broker::{Options, Private};
use clutch_tests::poll;
use clutch_tests::process::Daemon;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The most memory the daemon may use, in megabytes; how many results have to be
/// recorded in a second; how much disk may be used for what is to be delivered.
const BARS: (f64, f64, f64) = (64.0, 10_000.0, 2.0);
/// How much of the disk that was used may still be, when all is delivered.
const LEFT: f64 = 0.1;
/// How large a result's value is, in bytes.
const SIZE: usize = 1024;
/// Between two looks at the daemon.
const LOOK: Duration = Duration::from_millis(500);
/// A daemon that did nothing for so many looks has nothing left to do.
const QUIET: usize = 6;
/// The processor time that it may use in one look and still count as doing nothing.
const NOTHING: Duration = Duration::from_millis(20);

/// A pair, and looks at how busy its endpoint is.
struct Watch {
    pair: Pair,
    state: PathBuf,
    /// The most disk it used, in bytes.
    disk: u64,
}

/// The row `outage`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.gathered;
    let about = format!(
        "{count} results with {SIZE} bytes of value each gather while the broker takes none; it is \
         killed, and started again; live data is the results as they are published; all folders \
         are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("outage", about);
    let mut broker = Private::start(&Options::default())?;
    let mut watch = Watch::start(Pair::provision(broker.address(), "")?)?;
    let keys = watch.queue(count)?;
    broker.control(&["set_disk_free_limit", "100000GB"])?;
    let (gathering, early) = watch.gather(&keys)?;
    let (full, memory) = (used(&watch.state)?, watch.daemon()?.peak_memory()?);
    broker.kill()?;
    broker.run()?;
    let draining = watch.drain(&keys, count)?;
    let peak_memory = watch.daemon()?.peak_memory()?;
    let left = watch.stop()?;

    let gathered = (count - early) as f64;
    let live = gathered * published()? as f64;
    let rate = |took: Duration| gathered / took.as_secs_f64();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let (disk, drained) = (watch.disk as f64 / live, rate(draining));
    row.add("results that gathered", "results", &[gathered]);
    row.add("gathering", "results/s", &[rate(gathering)]);
    let what = "recorded, from when the broker is up";
    row.hold(what, "results/s", &[drained], (Side::AtLeast, BARS.1));
    row.add("daemon, at its peak while they gathered", "MB", &[mb(memory)]);
    row.hold("daemon, at its peak", "MB", &[mb(peak_memory)], (Side::AtMost, BARS.0));
    row.add("live data", "MB", &[live / 1e6]);
    row.add("state folder, when all were there", "MB", &[mb(full)]);
    row.hold("state folder at its peak to live data", "ratio", &[disk], (Side::AtMost, BARS.2));
    row.add("state folder, when all are recorded", "MB", &[mb(left)]);
    let share = left as f64 / watch.disk as f64;
    row.hold("what is left of it", "ratio", &[share], (Side::AtMost, LEFT));
    Ok(row)
}

/// How many bytes one of these results is on its way to the service.
fn published() -> Result<usize> {
    let (attempt, now) = (Attempt { task_id: TaskId::new(), attempt: 1 }, now_ms());
    let value = Json::of(&(value(), 1)).map_err(|error| anyhow::anyhow!("{error}"))?;
    let result = TaskResult {
        value: Some(value),
        reason: None,
        started_at_ms: Some(now),
        state_id: Some(StateId::new()),
        ..TaskResult::not_run(attempt, Outcome::Succeeded, String::new(), EndpointId::new(), now)
    };
    Ok(wire::encode_result(&result).len())
}

/// The argument and the value of every task.
fn value() -> String {
    "x".repeat(SIZE - 2)
}

impl Watch {
    /// Starts service and endpoint, and freezes the endpoint once the service knows
    /// of it.
    fn start(mut pair: Pair) -> Result<Self> {
        pair.serve()?;
        pair.run(SLOTS)?;
        // A daemon that has just come up waits until it is known before it takes
        // tasks; this one is to take them while it can send nothing.
        submit_alike(&pair, "first", 1, &["--call", "clutch.echo"])?;
        let state = pair.state_folder();
        let mut watch = Self { pair, state, disk: 0 };
        watch.daemon()?.signal("STOP")?;
        Ok(watch)
    }

    fn daemon(&mut self) -> Result<&mut Daemon> {
        self.pair.daemon.as_mut().context("no endpoint runs")
    }

    /// Queues the tasks at the broker, and says under which keys.
    fn queue(&self, count: usize) -> Result<Vec<String>> {
        let value = format!("\"{}\"", value());
        let mut keys = Vec::new();
        for first in (0..count).step_by(AT_ONCE) {
            let some = AT_ONCE.min(count - first);
            let (key, array) = (format!("o{first}"), format!("1-{some}"));
            let submit = ["submit", NAME, "--key", &key, "--array", &array];
            let call = ["--call", "clutch.echo", "--json-arg", &value];
            self.pair.command(&[&submit[..], &call].concat(), PATIENCE)?;
            keys.push(key);
        }
        Ok(keys)
    }

    /// Lets the daemon go on until it has worked through all tasks. Returns how long
    /// that took, and how many results got through.
    fn gather(&mut self, keys: &[String]) -> Result<(Duration, usize)> {
        let started = Instant::now();
        self.daemon()?.signal("CONT")?;
        let mut quiet = 0;
        let mut busy_until = started;
        while quiet < QUIET || self.waiting()? > 0 {
            ensure!(started.elapsed() < PATIENCE, "the daemon does not come to an end");
            let before = self.daemon()?.cpu_time()?;
            self.look()?;
            if self.daemon()?.cpu_time()? - before > NOTHING {
                (quiet, busy_until) = (0, Instant::now());
            } else {
                quiet += 1;
            }
        }
        Ok((busy_until - started, self.recorded(keys)?))
    }

    /// Waits until all results are recorded, and returns how long that took.
    fn drain(&mut self, keys: &[String], count: usize) -> Result<Duration> {
        let started = Instant::now();
        while self.recorded(keys)? < count {
            ensure!(started.elapsed() < PATIENCE, "the results do not come");
            self.look()?;
        }
        Ok(started.elapsed())
    }

    /// Waits a moment, and notes what the state folder takes.
    fn look(&mut self) -> Result<()> {
        poll::pause(LOOK);
        self.disk = self.disk.max(used(&self.state)?);
        Ok(())
    }

    /// How many messages with tasks the broker has.
    fn waiting(&self) -> Result<u64> {
        let queue = topology::tasks_queue(self.pair.id()?);
        Ok(self.pair.world.vhost().depth(&queue)?.unwrap_or_default())
    }

    /// How many results the service has.
    fn recorded(&self, keys: &[String]) -> Result<usize> {
        let socket = self.pair.socket();
        let done = keys.iter().map(|key| Ok(progress(&socket, key)?.succeeded));
        Ok(usize::try_from(done.sum::<Result<u64>>()?)?)
    }

    /// Stops the daemon, and says what is left of its folder.
    fn stop(&mut self) -> Result<u64> {
        self.pair.stop()?;
        used(&self.state)
    }
}
