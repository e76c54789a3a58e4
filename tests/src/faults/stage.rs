//! The stage that a fault is played on: an endpoint behind a proxy, a service, the tasks
//! that were submitted, and the oracle that knows them all.

use super::{Queue, Seen};
use crate::api::{self, Progress};
use crate::broker::Address;
use crate::oracle::{Runs, Verdict};
use crate::poll;
use crate::process::Daemon;
use crate::proxy::{Carry, Proxy};
use crate::tmpfs::Tmpfs;
use crate::world::{Endpoint, SOON, World};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// When nothing was recorded for so long, nothing more is coming: longer than
/// any pause that an endpoint makes by itself.
const QUIET: Duration = Duration::from_secs(100);
/// How many tasks run at once, unless a row says otherwise.
const SLOTS: usize = 4;
const KEY: &str = "k";

/// Where a row is played.
#[derive(Clone, Debug)]
pub struct Site {
    /// The broker.
    pub address: Address,
    /// Where it listens.
    pub amqp: SocketAddr,
    /// The binaries under test.
    pub binaries: PathBuf,
    /// The queue type, or the folder, that keeps the tasks.
    pub queue: Queue,
    /// A folder that goes with the row.
    pub folder: PathBuf,
    /// Whether a row that takes minutes does less, as one of many tests.
    pub brief: bool,
    /// How the long form is played.
    pub long: Long,
}

/// How the long form is played.
#[derive(Clone, Copy, Debug)]
pub struct Long {
    /// With how many tasks.
    pub tasks: usize,
    /// The seed of its random faults.
    pub seed: u64,
    /// Where the play says how far it is.
    pub tell: fn(&str),
}

/// How a stage differs from the ordinary one.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Further options of `provision`.
    pub provision: &'a [&'a str],
    /// Lines for `endpoint.toml`.
    pub settings: &'a str,
    /// How many tasks run at once.
    pub slots: usize,
    /// How the endpoint's daemon is started.
    pub wrapper: &'a [&'a str],
    /// Further options of `clutch-endpoint run`.
    pub run: &'a [&'a str],
    /// Further options of `clutch-service serve`.
    pub service: &'a [&'a str],
    /// How large the disk of the service's state folder is, in KiB, if it is
    /// one of its own.
    pub service_disk: Option<u32>,
    /// How large the disk of the spool folder is, in KiB, if it is one of its own.
    pub spool_disk: Option<u32>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            provision: &[],
            settings: "",
            slots: SLOTS,
            wrapper: &[],
            run: &[],
            service: &[],
            service_disk: None,
            spool_disk: None,
        }
    }
}

/// A row's world. What runs there ends with it.
#[derive(Debug)]
pub struct Stage {
    /// The endpoint's daemon.
    pub daemon: Daemon,
    /// The service.
    pub service: Daemon,
    /// The proxy between the endpoint and the broker; nothing comes by where a folder
    /// is in the broker's place.
    pub proxy: Proxy,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The notes that tasks make when they start.
    pub runs: Runs,
    /// How many tasks run at once.
    pub slots: usize,
    /// Folder, vhost or spool folder, and binaries.
    pub world: World,
    /// The disk of the service's state folder, if it has one of its own.
    pub service_disk: Option<Tmpfs>,
    /// The disk of the spool folder, if it has one of its own.
    pub spool_disk: Option<Tmpfs>,
    submitted: usize,
}

impl Site {
    /// A stage on which everything runs.
    pub fn stage(&self) -> Result<Stage> {
        self.stage_with(&Setup::default())
    }

    /// A stage with a service behind a proxy that refuses, so without a link. Returns the proxy,
    /// and the options that start the service behind it.
    pub fn stage_without_link(&self) -> Result<(Stage, Proxy, [String; 2])> {
        let mut stage = self.stage()?;
        let proxy = Proxy::before(self.amqp)?;
        let options = ["--broker".to_owned(), stage.world.vhost().url_by(proxy.port())?];
        stage.service.stop(SOON)?;
        proxy.carry(Carry::Refuse)?;
        stage.service = stage.world.launch_service(&options.each_ref().map(String::as_str))?;
        stage.service.wait_for("disengaged", SOON)?;
        Ok((stage, proxy, options))
    }

    /// A stage that differs from the ordinary one.
    pub fn stage_with(&self, setup: &Setup) -> Result<Stage> {
        let world = match self.queue {
            Queue::Folder => World::in_folder_beside(&self.binaries, &self.folder)?,
            Queue::Classic | Queue::Quorum => {
                World::beside(&self.address, &self.binaries, &self.folder)?
            }
        };
        let disk = |folder: PathBuf, kilobytes| {
            std::fs::create_dir_all(&folder)?;
            Tmpfs::over(&folder, kilobytes)
        };
        let service = setup.service_disk.map(|size| disk(world.folder().join("service"), size));
        let spool = setup.spool_disk.map(|size| disk(world.shared(), size));
        let (service_disk, spool_disk) = (service.transpose()?, spool.transpose()?);
        let proxy = Proxy::before(self.amqp)?;
        let behind = self.behind(&world, &proxy)?;
        let mut options: Vec<&str> = self.queue_options();
        options.extend(behind.iter().flat_map(|url| ["--endpoint-broker", url]));
        options.extend(setup.provision);
        let endpoint = world.provision_with("lab", &options)?;
        append(&endpoint.config, setup.settings)?;
        let mut service = world.launch_service(setup.service)?;
        service.wait_for("serving", SOON)?;
        let slots = setup.slots.to_string();
        let options = [&["--slots", &slots], setup.run].concat();
        let daemon = world.run_in(setup.wrapper, &endpoint, &options)?;
        let runs = Runs::at(&world.folder().join("runs"));
        Ok(Stage {
            daemon,
            service,
            proxy,
            endpoint,
            runs,
            slots: setup.slots,
            world,
            service_disk,
            spool_disk,
            submitted: 0,
        })
    }

    /// The options of `provision` that say what keeps the task queue.
    pub(super) fn queue_options(&self) -> Vec<&'static str> {
        match self.queue {
            Queue::Classic => vec!["--queue", "classic"],
            Queue::Quorum => vec!["--queue", "quorum"],
            Queue::Folder => Vec::new(),
        }
    }

    /// The broker's URL through a proxy, if there is a broker.
    pub(super) fn behind(&self, world: &World, proxy: &Proxy) -> Result<Option<String>> {
        if self.queue == Queue::Folder {
            return Ok(None);
        }
        let mut url = url::Url::parse(&world.broker())?;
        if url.set_port(Some(proxy.port())).is_err() || url.set_host(Some("127.0.0.1")).is_err() {
            bail!("no other address can be put into {url}");
        }
        Ok(Some(url.into()))
    }
}

/// Adds lines to an endpoint's file.
pub(super) fn append(file: &Path, lines: &str) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    std::fs::write(file, format!("{text}\n{lines}\n")).context("changing the endpoint's file")
}

impl Stage {
    /// Submits so many tasks that note their start and then run a script, with
    /// their number as `$1`.
    pub fn submit(&mut self, count: usize, script: &str) -> Result<()> {
        self.submit_with(count, script, &[])
    }

    /// Submits tasks with further options.
    pub fn submit_with(&mut self, count: usize, script: &str, options: &[&str]) -> Result<()> {
        self.submit_as(count, script, &[&["--confirmed"], options].concat())
    }

    /// Submits tasks that need not be at the broker when this returns.
    pub fn submit_recorded(&mut self, count: usize) -> Result<()> {
        self.submit_as(count, "", &[])
    }

    fn submit_as(&mut self, count: usize, script: &str, options: &[&str]) -> Result<()> {
        let name = self.endpoint.name.clone();
        self.submit_to(&[&name], count, script, options)
    }

    /// Submits tasks to an endpoint, or to a topic.
    pub fn submit_to(
        &mut self,
        to: &[&str],
        count: usize,
        script: &str,
        options: &[&str],
    ) -> Result<()> {
        let key = self.key(self.submitted);
        let array = format!("1-{count}");
        let argv = self.runs.command(script, &["{}"]);
        let mut line = [&["submit"], to, &["--key", &key, "--array", &array]].concat();
        line.extend(options);
        line.push("--");
        line.extend(argv.iter().map(String::as_str));
        self.world.service_within(&line, 4 * SOON)?.ok().context("submitting")?;
        self.submitted += 1;
        Ok(())
    }

    /// Submits so many calls that return a text of so many bytes; nothing notes when
    /// they run.
    pub fn submit_calls(&mut self, count: usize, bytes: usize) -> Result<()> {
        let (key, array) = (self.key(self.submitted), format!("1-{count}"));
        let value = format!("\"{}\"", "x".repeat(bytes));
        let submit =
            ["submit", &self.endpoint.name, "--confirmed", "--key", &key, "--array", &array];
        let call = ["--call", "clutch.echo", "--json-arg", &value];
        self.world.service_within(&[&submit[..], &call].concat(), 4 * SOON)?.ok()?;
        self.submitted += 1;
        Ok(())
    }

    /// The key of a submission, by its number.
    #[must_use]
    pub fn key(&self, number: usize) -> String {
        format!("{KEY}{number}")
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        (0..self.submitted).map(|number| self.key(number))
    }

    /// How far one submission is, by its number.
    pub fn progress_of(&self, number: usize) -> Result<Progress> {
        api::progress(&self.world.folder().join("service/clutch.sock"), &self.key(number))
    }

    /// How far all that was submitted is.
    pub fn progress(&self) -> Result<Progress> {
        let mut sum = Progress::default();
        for number in 0..self.submitted {
            let one = self.progress_of(number)?;
            sum.total += one.total;
            sum.done += one.done;
            sum.succeeded += one.succeeded;
        }
        Ok(sum)
    }

    /// Waits until so many tasks have an outcome, and some have none yet.
    pub fn until_recorded(&self, count: u64) -> Result<()> {
        let progress = poll::until(&format!("{count} outcomes"), SOON, || {
            Ok(self.progress().ok().filter(|progress| progress.done >= count))
        })?;
        ensure!(progress.done < progress.total, "the fault came too late: all tasks were done");
        Ok(())
    }

    /// Waits until so many tasks have started.
    pub fn until_started(&self, count: usize) -> Result<()> {
        poll::until(&format!("{count} started tasks"), SOON, || {
            Ok((self.runs.read()?.len() >= count).then_some(()))
        })
    }

    /// Waits for the first outcome that is recorded from now on, and says how
    /// long after `since` it was.
    pub fn recovery(&self, since: Instant) -> Result<Duration> {
        let mut before = None;
        poll::until("an outcome to be recorded after the fault", 2 * SOON, || {
            let Ok(progress) = self.progress() else { return Ok(None) };
            let first = *before.get_or_insert(progress);
            ensure!(first.done < first.total, "the fault did not hit: all tasks were done");
            Ok((progress.done > first.done).then(|| since.elapsed()))
        })
    }

    /// Waits until the endpoint, which has noticed a fault that is over, has its
    /// link again and an outcome is recorded, and says how long after `since`
    /// that was.
    pub fn back(&self, since: Instant) -> Result<Duration> {
        self.until_link()?;
        self.recovery(since)
    }

    /// Waits until the last that the endpoint said of its link is that it has
    /// it.
    pub fn until_link(&self) -> Result<()> {
        poll::until("the endpoint to have its link again", 2 * SOON, || {
            let log = self.daemon.log()?;
            let news = |line: &&str| line.contains("ngaged\"");
            let last = log.lines().rev().find(news).unwrap_or_default();
            Ok(last.contains("\"engaged\"").then_some(()))
        })
    }

    /// Waits until the endpoint says that it lost its link.
    pub fn until_disengaged(&mut self) -> Result<Value> {
        self.daemon.wait_for("disengaged", SOON).context("the fault did not hit the link")
    }

    /// Waits until the endpoint says that it has its link.
    pub fn until_engaged(&mut self) -> Result<()> {
        self.daemon.wait_for("engaged", SOON).map(drop)
    }

    /// How often the endpoint's daemon has said something.
    pub fn said(&self, message: &str) -> Result<usize> {
        said(&self.daemon, message)
    }

    /// Mends what is missing at the broker, as an operator does.
    pub fn provision_again(&self, site: &Site) -> Result<()> {
        let out = self.world.folder().join("again.toml").display().to_string();
        let again = ["provision", &self.endpoint.name, "--out", &out];
        self.world.service(&[&again[..], &site.queue_options()].concat())?.ok().map(drop)
    }

    /// Starts the endpoint's daemon on what the last one left.
    pub fn restart(&mut self) -> Result<()> {
        let slots = self.slots.to_string();
        self.daemon = self.world.run_with(&self.endpoint, &["--slots", &slots])?;
        Ok(())
    }

    /// The endpoint's state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.world.folder().join("state/clutch/endpoints").join(&self.endpoint.id)
    }

    /// The service's database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.world.folder().join("service/clutch.db")
    }

    /// Waits until the endpoint has accepted every task. The broker's API tells what was
    /// a while ago, so the queue has to be empty for some seconds.
    pub(super) fn until_taken_in(&self) -> Result<()> {
        let queue = self.tasks_queue();
        let mut empty = None;
        poll::until("the endpoint to have accepted everything", 2 * SOON, || {
            let none = self.world.vhost().depth(&queue)? == Some(0);
            empty = if none { empty.or(Some(Instant::now())) } else { None };
            Ok(empty.filter(|since| since.elapsed() > Duration::from_secs(4)).map(drop))
        })
    }

    /// The endpoint's task queue.
    #[must_use]
    pub fn tasks_queue(&self) -> String {
        format!("{}.tasks", self.endpoint.id)
    }

    /// Waits until all tasks have an outcome, or nothing more comes, and says
    /// what became of them. All must have succeeded.
    pub fn seen(&self) -> Result<Seen> {
        self.seen_with(&[])
    }

    /// Like [`Stage::seen`], where so many tasks at most may have ended in each
    /// of these other outcomes.
    pub fn seen_with(&self, others: &[(&str, usize)]) -> Result<Seen> {
        self.seen_beside(others, 0)
    }

    /// Like [`Stage::seen_with`], where so many messages at most may have been
    /// dead-lettered.
    pub fn seen_beside(&self, others: &[(&str, usize)], letters: usize) -> Result<Seen> {
        self.until_all()?;
        let mut results = Vec::new();
        for key in self.keys() {
            results.extend(self.world.results(&key)?);
        }
        let done = results.iter().filter(|task| !task["result"].is_null());
        let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
        for task in done.clone() {
            *outcomes.entry(task["state"].as_str().unwrap_or_default()).or_default() += 1;
        }
        let submitted: BTreeSet<String> = World::ids(&results);
        let tasks = Verdict::new(&submitted, &World::ids(done), &self.runs.read()?);
        let mut seen = Seen { tasks, ..Seen::default() };
        for (outcome, count) in outcomes {
            let most =
                others.iter().find(|(name, _)| *name == outcome).map_or(0, |(_, most)| *most);
            let most = if outcome == "succeeded" { usize::MAX } else { most };
            seen = seen.must(count <= most, || format!("{count} ended as {outcome}, {most} may"));
            if outcome != "succeeded" && count <= most {
                seen = seen.note(format!("{count} {outcome}"));
            }
        }
        let dead = self.world.dead_letters()?;
        Ok(seen.must(dead <= letters, || format!("{dead} messages were dead-lettered")))
    }

    /// Why tasks ended in an outcome, in words.
    pub fn reasons(&self, outcome: &str) -> Result<Vec<String>> {
        let mut reasons = Vec::new();
        for key in self.keys() {
            let results = self.world.results(&key)?;
            let such = results.iter().filter(|task| task["state"] == outcome);
            reasons.extend(such.map(|task| task["result"]["reason"].to_string()));
        }
        Ok(reasons)
    }

    fn until_all(&self) -> Result<()> {
        let (mut last, mut at) = (Progress::default(), Instant::now());
        poll::until("the last outcome", 10 * SOON, || {
            if let Ok(progress) = self.progress()
                && progress != last
            {
                (last, at) = (progress, Instant::now());
            }
            let all = last.total > 0 && last.done == last.total;
            Ok((all || at.elapsed() > QUIET).then_some(()))
        })
    }
}

/// How often a daemon has said something.
pub(super) fn said(daemon: &Daemon, message: &str) -> Result<usize> {
    let message = Value::from(message);
    let lines = daemon.log()?;
    let said = |line: &&str| {
        serde_json::from_str::<Value>(line).is_ok_and(|line| line["message"] == message)
    };
    Ok(lines.lines().filter(said).count())
}
