//! Faults under messages between tasks at two endpoints. Every sender gets an answer; one that is
//! told `delivered` was heard, and no run of a receiver takes a message twice.

mod at_random;

use super::stage::{Setup, Site, Stage, append};
use super::{ALL, BOTH, Need, Play, Row, Seen};
use crate::broker::Private;
use crate::poll;
use crate::process::Daemon;
use crate::proxy::Proxy;
use crate::world::{Endpoint, SOON};
use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "messages-link-cut",
        "the connections of one of two endpoints are reset ten times while their tasks send each \
         other a thousand messages",
        Play::Beside(link_cut),
    )
    .needs(&[Need::Python])
    .on(BOTH),
    Row::new(
        "messages-half-open",
        "an endpoint's side of the link is gone three times under messages, the broker still sees \
         it",
        Play::Beside(half_open),
    )
    .needs(&[Need::Python])
    .within(90)
    .on(BOTH),
    Row::new(
        "messages-broker-restart",
        "the broker is stopped in order and started again three times under messages",
        Play::Alone(broker_restart),
    )
    .needs(&[Need::Python])
    .since("the broker being up again")
    .on(BOTH),
    Row::new(
        "messages-service-kill",
        "the service is ended by kill -9 forty times under messages",
        Play::Beside(service_kill),
    )
    .needs(&[Need::Python])
    .since("the last kill")
    .on(ALL),
    Row::new(
        "messages-endpoint-kill",
        "an endpoint with senders and receivers is ended by kill -9 ten times under messages",
        Play::Beside(endpoint_kill),
    )
    .needs(&[Need::Python])
    .since("the last kill")
    .may_run_again("what ran when its endpoint was killed runs again")
    .on(ALL),
    at_random::ROW,
];

/// The task that sends and receives.
const SCRIPT: &str = include_str!("../../python/correspondent.py");
/// How many receivers each of the two endpoints has; and how many senders to each of the two, from
/// where there are any.
const PAIRS: usize = 2;
/// How many messages each sender sends.
const MESSAGES: usize = 250;
/// How many messages are answered between two faults.
const BETWEEN: usize = 8;
/// The options of the service.
const SERVICE: &[&str] = &["--messages", "any"];
/// A daemon that is killed often takes no task for its killer.
const SETTINGS: &str = "[engine]\npoison_after = 100\n[messages]\nallow = \"any\"";

/// The ways that messages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ways {
    /// From each endpoint to the other.
    Across,
    /// Those, and from each endpoint to itself.
    All,
}

impl Ways {
    /// The names of the endpoints of each way.
    fn ends(self) -> &'static [(&'static str, &'static str)] {
        const ALL: &[(&str, &str)] =
            &[("lab", "far"), ("far", "lab"), ("lab", "lab"), ("far", "far")];
        match self {
            Self::Across => &ALL[..2],
            Self::All => ALL,
        }
    }

    /// How many senders there are.
    fn senders(self) -> usize {
        self.ends().len() * PAIRS
    }
}

/// Two endpoints with tasks that send each other messages.
struct Correspondence {
    stage: Stage,
    far: Endpoint,
    far_daemon: Daemon,
    far_proxy: Proxy,
    folder: PathBuf,
    ways: Ways,
}

impl Correspondence {
    /// Begins it: each sender sends so many messages, as far as it may
    /// ([`Correspondence::let_send`]).
    fn begin(site: &Site, ways: Ways, messages: usize) -> Result<Self> {
        let heartbeat = ["--heartbeat", "2s"];
        let slots = PAIRS + ways.senders() / 2;
        let (service, settings, provision) = (SERVICE, SETTINGS, &heartbeat);
        let setup = Setup { service, slots, settings, provision, ..Setup::default() };
        let stage = site.stage_with(&setup)?;
        let far_proxy = Proxy::before(site.amqp)?;
        let behind = site.behind(&stage.world, &far_proxy)?;
        let mut options = site.queue_options();
        options.extend(behind.iter().flat_map(|url| ["--endpoint-broker", url]));
        options.extend(heartbeat);
        let far = stage.world.provision_with("far", &options)?;
        append(&far.config, SETTINGS)?;
        let far_daemon = run_far(&stage, &far)?;
        let folder = stage.world.folder().join("post");
        std::fs::create_dir_all(folder.join("log"))?;
        std::fs::write(folder.join("correspondent.py"), SCRIPT)?;
        let mut begun = Self { stage, far, far_daemon, far_proxy, folder, ways };
        begun.receivers()?;
        begun.senders(messages)?;
        Ok(begun)
    }

    /// Submits tasks of one kind to an endpoint, as one submission.
    fn submit(&mut self, far: bool, arguments: &str) -> Result<()> {
        let folder = self.folder.display();
        let script = format!("exec python3 '{folder}/correspondent.py' {arguments}");
        if far {
            std::mem::swap(&mut self.stage.endpoint, &mut self.far);
        }
        let submitted = self.stage.submit(PAIRS, &script);
        if far {
            std::mem::swap(&mut self.stage.endpoint, &mut self.far);
        }
        submitted
    }

    /// Starts the receivers, and tells the senders where they are.
    fn receivers(&mut self) -> Result<()> {
        let folder = self.folder.display().to_string();
        let mut targets = String::new();
        for (number, name) in ["lab", "far"].into_iter().enumerate() {
            self.submit(name == "far", &format!("receive '{folder}' {name}-$1"))?;
            let tasks = self.stage.world.results(&self.stage.key(number))?;
            for (index, task) in tasks.iter().enumerate() {
                let id = task["id"].as_str().context("a task without an id")?;
                targets.push_str(&format!("{name}-{} {id}\n", index + 1));
            }
        }
        self.write("targets", &targets)
    }

    fn senders(&mut self, messages: usize) -> Result<()> {
        let folder = self.folder.display().to_string();
        for (from, to) in self.ways.ends() {
            let arguments = format!("send '{folder}' {from}-to-{to}-$1 {to}-$1 {messages}");
            self.submit(*from == "far", &arguments)?;
        }
        Ok(())
    }

    /// Lets each sender send so many messages in all; without this it sends what it has.
    fn let_send(&self, messages: usize) -> Result<()> {
        self.write("allowed", &messages.to_string())
    }

    /// Writes a file of the folder as a whole.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(path.with_extension("new"), text)?;
        Ok(std::fs::rename(path.with_extension("new"), path)?)
    }

    /// Starts the service on what the last one left.
    fn restart_service(stage: &mut Stage) -> Result<()> {
        stage.service = stage.world.launch_service(SERVICE)?;
        stage.service.wait_for("serving", SOON).map(drop)
    }

    /// Plays a fault so many times, each after some more messages were answered; returns when the
    /// last one was over.
    fn play(
        &mut self,
        times: usize,
        mut fault: impl FnMut(&mut Stage) -> Result<()>,
    ) -> Result<Instant> {
        let mut end = Instant::now();
        for number in 1..=times {
            self.until_answered(number * BETWEEN)?;
            fault(&mut self.stage)?;
            end = Instant::now();
        }
        Ok(end)
    }

    fn until_answered(&self, count: usize) -> Result<()> {
        poll::until(&format!("{count} answers"), 2 * SOON, || {
            let answers = Letters::read(&self.folder)?.answers.len();
            Ok((answers >= count).then_some(()))
        })
    }

    /// Waits until messages are answered again, and at last for everything; judges it.
    fn seen(self, end: Instant) -> Result<Seen> {
        let before = Letters::read(&self.folder)?.answers.len();
        self.until_answered(before + 1)?;
        let recovery = end.elapsed();
        Ok(self.finish()?.1.recovered_in(recovery))
    }

    /// Waits for everything; returns the notes, and what they are judged to be.
    fn finish(self) -> Result<(Letters, Seen)> {
        poll::until("the last sender to end", 10 * SOON, || {
            let ended = |number| {
                let progress = self.stage.progress_of(number);
                progress.is_ok_and(|progress| progress.done == progress.total)
            };
            Ok((2..2 + self.ways.ends().len()).all(ended).then_some(()))
        })?;
        std::fs::write(self.folder.join("stop"), "")?;
        let seen = self.stage.seen()?;
        let letters = Letters::read(&self.folder)?;
        let seen = letters.judge(seen);
        Ok((letters, seen))
    }
}

/// Starts the daemon of the other endpoint.
fn run_far(stage: &Stage, far: &Endpoint) -> Result<Daemon> {
    stage.world.run_with(far, &["--slots", &stage.slots.to_string()])
}

/// The notes of all tasks.
#[derive(Debug, Default)]
struct Letters {
    /// The answer to the sender of each message.
    answers: BTreeMap<String, String>,
    /// The messages that receivers got.
    got: BTreeSet<String>,
    /// How often a run of a receiver took a message.
    took: BTreeMap<(PathBuf, String), usize>,
}

impl Letters {
    fn read(folder: &Path) -> Result<Self> {
        let mut letters = Self::default();
        for file in std::fs::read_dir(folder.join("log"))? {
            let run = file?.path();
            for line in std::fs::read_to_string(&run)?.lines() {
                letters.note(&run, line);
            }
        }
        Ok(letters)
    }

    fn note(&mut self, run: &Path, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["got", key] => drop(self.got.insert((*key).to_owned())),
            ["took", key] => {
                *self.took.entry((run.to_owned(), (*key).to_owned())).or_default() += 1;
            }
            ["answer", key, word] => {
                self.answers.insert((*key).to_owned(), (*word).to_owned());
            }
            // Others, and a line that was cut off by a kill.
            _ => (),
        }
    }

    fn judge(&self, seen: Seen) -> Seen {
        let told = |word: &str| self.answers.values().filter(|told| *told == word).count();
        let delivered = self.answers.iter().filter(|(_, word)| *word == "delivered");
        let unheard = delivered.filter(|(key, _)| !self.got.contains(*key)).count();
        let twice = self.took.values().filter(|times| **times > 1).count();
        let taken: BTreeSet<&String> = self.took.keys().map(|(_, key)| key).collect();
        let denies = ["not_listening", "no_room", "unknown", "forbidden", "unreachable"];
        let denied = self
            .answers
            .iter()
            .filter(|(key, word)| denies.contains(&word.as_str()) && taken.contains(key));
        let (denied, without, all) = (denied.count(), told("none"), self.answers.len());
        let mut words: BTreeMap<&str, usize> = BTreeMap::new();
        self.answers.values().for_each(|word| *words.entry(word).or_default() += 1);
        let told_words: Vec<String> =
            words.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
        seen.must(unheard == 0, || format!("{unheard} were told delivered, and no one got them"))
            .must(twice == 0, || format!("{twice} were taken twice by one run"))
            .must(denied == 0, || format!("{denied} were taken, and their senders told otherwise"))
            .must(without == 0, || format!("{without} had no answer"))
            .must(told("delivered") * 2 > all, || "less than half was delivered".to_owned())
            .note(format!("{all} messages: {}", told_words.join(", ")))
    }
}

fn link_cut(site: &Site) -> Result<Seen> {
    let mut post = Correspondence::begin(site, Ways::Across, MESSAGES)?;
    let mut cut = 0;
    let end = post.play(10, |stage| {
        cut += stage.proxy.cut();
        Ok(())
    })?;
    ensure!(cut >= 10, "only {cut} connections were cut");
    post.seen(end)
}

fn half_open(site: &Site) -> Result<Seen> {
    let mut post = Correspondence::begin(site, Ways::Across, MESSAGES)?;
    let end = post.play(3, |stage| {
        ensure!(stage.proxy.lose_clients() > 0, "there was no connection to lose");
        stage.until_disengaged()?;
        stage.until_engaged()
    })?;
    post.seen(end)
}

fn broker_restart(site: &Site, broker: &mut Private) -> Result<Seen> {
    let mut post = Correspondence::begin(site, Ways::Across, MESSAGES)?;
    let end = post.play(3, |stage| {
        broker.stop()?;
        stage.until_disengaged()?;
        broker.run()?;
        stage.until_link()
    })?;
    post.seen(end)
}

fn service_kill(site: &Site) -> Result<Seen> {
    let mut post = Correspondence::begin(site, Ways::Across, MESSAGES)?;
    let end = post.play(40, |stage| {
        stage.service.kill()?;
        Correspondence::restart_service(stage)
    })?;
    post.seen(end)
}

fn endpoint_kill(site: &Site) -> Result<Seen> {
    let mut post = Correspondence::begin(site, Ways::Across, MESSAGES)?;
    let end = post.play(10, |stage| {
        stage.daemon.kill()?;
        poll::pause(Duration::from_millis(100));
        stage.restart()
    })?;
    Ok(post.seen(end)?.allowing(2 * PAIRS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: &[(&str, &str)]) -> Vec<String> {
        let mut letters = Letters::default();
        lines.iter().for_each(|(run, line)| letters.note(Path::new(run), line));
        letters.judge(Seen::default()).breaches
    }

    #[test]
    fn each_promise_to_a_sender_is_judged() {
        let heard = [("a", "sent k"), ("b", "got k"), ("b", "took k"), ("a", "answer k delivered")];
        assert_eq!(judged(&heard), Vec::<String>::new());
        let other_run = [&heard[..], &[("c", "got k"), ("c", "took k")]].concat();
        assert_eq!(judged(&other_run), Vec::<String>::new(), "each run may take it once");
        for (lines, words) in [
            (vec![("a", "answer k delivered")], "1 were told delivered"),
            ([&heard[..], &[("b", "took k")]].concat(), "1 were taken twice"),
            ([&heard[..3], &[("a", "answer k not_listening")]].concat(), "1 were taken, and"),
            (vec![("a", "answer k none")], "1 had no answer"),
            (vec![("a", "answer k timed_out")], "less than half"),
        ] {
            let breaches = judged(&lines);
            assert!(breaches.iter().any(|breach| breach.contains(words)), "{words}: {breaches:?}");
        }
    }
}
