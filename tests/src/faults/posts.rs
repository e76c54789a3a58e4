//! Faults under messages between tasks at two endpoints. Every sender gets an answer; one that is
//! told `delivered` was heard, and no run of a receiver takes a message twice.

use super::stage::{Setup, Site, Stage};
use super::{Need, Play, Row, Seen};
use crate::broker::Private;
use crate::poll;
use crate::process::Daemon;
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
    .needs(&[Need::Python]),
    Row::new(
        "messages-half-open",
        "an endpoint's side of the link is gone three times under messages, the broker still sees \
         it",
        Play::Beside(half_open),
    )
    .needs(&[Need::Python])
    .within(90),
    Row::new(
        "messages-broker-restart",
        "the broker is stopped in order and started again three times under messages",
        Play::Alone(broker_restart),
    )
    .needs(&[Need::Python])
    .since("the broker being up again"),
    Row::new(
        "messages-service-kill",
        "the service is ended by kill -9 forty times under messages",
        Play::Beside(service_kill),
    )
    .needs(&[Need::Python])
    .since("the last kill"),
    Row::new(
        "messages-endpoint-kill",
        "an endpoint with senders and receivers is ended by kill -9 ten times under messages",
        Play::Beside(endpoint_kill),
    )
    .needs(&[Need::Python])
    .since("the last kill")
    .may_run_again("what ran when its endpoint was killed runs again"),
];

/// The task that sends and receives.
const SCRIPT: &str = include_str!("../../python/correspondent.py");
/// How many receivers, and senders, each of the two endpoints has.
const PAIRS: usize = 2;
/// How many messages each sender sends.
const MESSAGES: usize = 250;
/// How many messages are answered between two faults.
const BETWEEN: usize = 8;

/// Two endpoints with tasks that send each other messages.
struct Correspondence {
    stage: Stage,
    far: Endpoint,
    _far_daemon: Daemon,
    folder: PathBuf,
}

impl Correspondence {
    fn begin(site: &Site) -> Result<Self> {
        let stage = site.stage_with(&Setup {
            service: &["--messages", "any"],
            slots: 2 * PAIRS,
            // A daemon that is killed often takes no task for its killer.
            settings: "[engine]\npoison_after = 100",
            provision: &["--heartbeat", "2s"],
            ..Setup::default()
        })?;
        let far = stage.world.provision("far")?;
        let slots = (2 * PAIRS).to_string();
        let far_daemon = stage.world.run_with(&far, &["--slots", &slots])?;
        let folder = stage.world.folder().join("post");
        std::fs::create_dir_all(folder.join("log"))?;
        std::fs::write(folder.join("correspondent.py"), SCRIPT)?;
        let mut begun = Self { stage, far, _far_daemon: far_daemon, folder };
        begun.receivers()?;
        begun.senders()?;
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
        let path = self.folder.join("targets");
        std::fs::write(path.with_extension("new"), targets)?;
        Ok(std::fs::rename(path.with_extension("new"), path)?)
    }

    fn senders(&mut self) -> Result<()> {
        let folder = self.folder.display().to_string();
        for (name, to) in [("lab", "far"), ("far", "lab")] {
            let arguments = format!("send '{folder}' of-{name}-$1 {to}-$1 {MESSAGES}");
            self.submit(name == "far", &arguments)?;
        }
        Ok(())
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
        poll::until("the last sender to end", 10 * SOON, || {
            let ended = [2, 3].map(|number| self.stage.progress_of(number));
            let all = ended
                .into_iter()
                .all(|progress| progress.is_ok_and(|progress| progress.done == progress.total));
            Ok(all.then_some(()))
        })?;
        std::fs::write(self.folder.join("stop"), "")?;
        let letters = Letters::read(&self.folder)?;
        Ok(letters.judge(self.stage.seen()?.recovered_in(recovery)))
    }
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
    let mut post = Correspondence::begin(site)?;
    let mut cut = 0;
    let end = post.play(10, |stage| {
        cut += stage.proxy.cut();
        Ok(())
    })?;
    ensure!(cut >= 10, "only {cut} connections were cut");
    post.seen(end)
}

fn half_open(site: &Site) -> Result<Seen> {
    let mut post = Correspondence::begin(site)?;
    let end = post.play(3, |stage| {
        ensure!(stage.proxy.lose_clients() > 0, "there was no connection to lose");
        stage.until_disengaged()?;
        stage.until_engaged()
    })?;
    post.seen(end)
}

fn broker_restart(site: &Site, broker: &mut Private) -> Result<Seen> {
    let mut post = Correspondence::begin(site)?;
    let end = post.play(3, |stage| {
        broker.stop()?;
        stage.until_disengaged()?;
        broker.run()?;
        stage.until_link()
    })?;
    post.seen(end)
}

fn service_kill(site: &Site) -> Result<Seen> {
    let mut post = Correspondence::begin(site)?;
    let end = post.play(40, |stage| {
        stage.service.kill()?;
        stage.service = stage.world.launch_service(&["--messages", "any"])?;
        stage.service.wait_for("serving", SOON).map(drop)
    })?;
    post.seen(end)
}

fn endpoint_kill(site: &Site) -> Result<Seen> {
    let mut post = Correspondence::begin(site)?;
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
