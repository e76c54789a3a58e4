//! The long form: very many tasks, and a random fault every few seconds, drawn
//! from a seed. It is played only when it is asked for.

use super::dice::Dice;
use super::stage::{Setup, Site, Stage};
use super::{Need, Play, Row, Seen};
use crate::broker::Private;
use crate::oracle::Verdict;
use crate::poll;
use crate::proxy::{Carry, Way};
use crate::world::{SOON, World};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(super) const ROWS: &[Row] = &[Row::new(
    "million",
    "1,000,000 tasks, and a fault every few seconds, drawn from all of these at random: the link \
     is cut, stalls, trickles, is half-open, refused or torn inside a frame; channel, connections \
     or exchange go; the endpoint, the service and the broker are killed or stopped",
    Play::Alone(million),
)
.may_run_again("those that held a slot at a kill of the endpoint")
.within(120)
.since("the end of a fault, the longest of all")
.needs(&[Need::Hours])];

/// How many tasks are submitted at once, and how many may be under way.
const CHUNK: usize = 10_000;
const UNDER_WAY: u64 = 40_000;
/// Enough work in the endpoint for as long as a link is away.
const SETTINGS: &str = "[inbox]\nmax_tasks = 20000\nmax_bytes = 67108864";
const SLOTS: usize = 4;
/// Between two reports.
const REPORT: Duration = Duration::from_secs(30);

/// A run of the row under way.
struct Run<'a> {
    site: &'a Site,
    stage: Stage,
    dice: Dice,
    /// Submissions made so far, and of those the first that is not done.
    chunks: usize,
    open: usize,
    /// How many tasks are done in the submissions before `open`.
    closed: u64,
    kills: usize,
    worst: Duration,
    faults: BTreeMap<&'static str, usize>,
    begun: Instant,
    told: Instant,
}

type Fault = fn(&mut Run, &mut Private) -> Result<()>;

/// The faults, and how often each is drawn beside the others.
const FAULTS: &[(&str, u64, Fault)] = &[
    ("cut", 4, |run, _| {
        run.stage.proxy.cut();
        Ok(())
    }),
    ("stall", 3, |run, _| run.carry_for(Carry::Stall, 1, 6)),
    ("stall, then cut", 3, |run, _| {
        run.stage.proxy.carry(Carry::Stall)?;
        poll::pause(run.dice.seconds(1, 4));
        run.stage.proxy.cut();
        run.stage.proxy.carry(Carry::Pass)
    }),
    ("slow link", 2, |run, _| run.carry_for(Carry::Slow(64_000), 2, 6)),
    ("refused", 2, |run, _| {
        run.stage.proxy.cut();
        run.carry_for(Carry::Refuse, 1, 8)
    }),
    ("half-open", 2, |run, _| {
        run.stage.proxy.lose_clients();
        Ok(())
    }),
    ("torn frame", 4, |run, _| {
        let way = if run.dice.throw(2) == 0 { Way::There } else { Way::Back };
        run.stage.proxy.tear(way);
        Ok(())
    }),
    ("channel closed", 2, |run, _| {
        run.stage.proxy.forge_acknowledgement();
        Ok(())
    }),
    ("connections closed", 2, |run, _| run.stage.world.vhost().close_connections().map(drop)),
    ("exchange missing", 1, |run, _| {
        run.stage.world.vhost().delete_exchange("results")?;
        poll::pause(run.dice.seconds(1, 4));
        run.stage.provision_again(run.site)
    }),
    ("endpoint killed", 4, |run, _| {
        run.stage.daemon.kill()?;
        run.kills += 1;
        run.stage.restart()
    }),
    ("endpoint stopped", 2, |run, _| {
        let code = run.stage.daemon.stop(SOON)?;
        anyhow::ensure!(code == 0, "the endpoint ended with {code}");
        run.stage.restart()
    }),
    ("service killed", 3, |run, _| {
        run.stage.service.kill()?;
        run.stage.service = run.stage.world.serve()?;
        Ok(())
    }),
    ("broker killed", 1, |_, broker| {
        broker.kill()?;
        broker.run()
    }),
    ("broker restarted", 1, |_, broker| broker.restart()),
];

fn million(site: &Site, broker: &mut Private) -> Result<Seen> {
    let provision = ["--heartbeat", "2s"];
    let setup =
        Setup { provision: &provision, settings: SETTINGS, slots: SLOTS, ..Setup::default() };
    let now = Instant::now();
    let mut run = Run {
        site,
        stage: site.stage_with(&setup)?,
        dice: Dice(site.long.seed),
        chunks: 0,
        open: 0,
        closed: 0,
        kills: 0,
        worst: Duration::ZERO,
        faults: BTreeMap::new(),
        begun: now,
        told: now,
    };
    while run.go_on()? {
        run.fault(broker).with_context(|| run.state())?;
    }
    run.finish()
}

impl Run<'_> {
    fn carry_for(&mut self, how: Carry, from: u64, to: u64) -> Result<()> {
        self.stage.proxy.carry(how)?;
        poll::pause(self.dice.seconds(from, to));
        self.stage.proxy.carry(Carry::Pass)
    }

    fn all_chunks(&self) -> usize {
        self.site.long.tasks.div_ceil(CHUNK)
    }

    /// How many tasks are done, as far as the service answers.
    fn done(&mut self) -> Option<u64> {
        let mut done = self.closed;
        for number in self.open..self.chunks {
            let progress = self.stage.progress_of(number).ok()?;
            done += progress.done;
            if number == self.open && progress.done == progress.total {
                self.open += 1;
                self.closed += progress.total;
            }
        }
        Some(done)
    }

    /// Submits until enough is under way, and works for a while without a
    /// fault. False when all that is left is about to be done.
    fn go_on(&mut self) -> Result<bool> {
        let until = Instant::now() + self.dice.seconds(2, 7);
        loop {
            let done = poll::until("the service to answer", SOON, || Ok(self.done()))?;
            self.tell(done);
            let submitted = (self.chunks * CHUNK) as u64;
            if self.chunks == self.all_chunks() {
                if submitted - done < UNDER_WAY / 8 {
                    return Ok(false);
                }
            } else if submitted - done < UNDER_WAY {
                self.submit()?;
            }
            if Instant::now() >= until {
                return Ok(true);
            }
            poll::pause(Duration::from_millis(200));
        }
    }

    fn submit(&mut self) -> Result<()> {
        let begun = Instant::now();
        // What was refused is submitted again, under its key.
        while let Err(error) = self.stage.submit(CHUNK, "") {
            if begun.elapsed() > SOON {
                return Err(error);
            }
            poll::pause(Duration::from_secs(1));
        }
        self.chunks += 1;
        Ok(())
    }

    /// Draws a fault, plays it, and waits until outcomes are recorded again.
    fn fault(&mut self, broker: &mut Private) -> Result<()> {
        let all = FAULTS.iter().map(|(_, weight, _)| weight).sum();
        let mut drawn = self.dice.throw(all);
        let chosen = FAULTS.iter().find(|(_, weight, _)| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        let Some((name, _, play)) = chosen else { bail!("no fault was drawn") };
        *self.faults.entry(name).or_default() += 1;
        play(self, broker).with_context(|| format!("playing '{name}'"))?;
        let end = Instant::now();
        self.stage.until_link()?;
        let mut first = None;
        poll::until("an outcome after the fault", 2 * SOON, || {
            let Some(done) = self.done() else { return Ok(None) };
            Ok((done > *first.get_or_insert(done)).then_some(()))
        })?;
        self.worst = self.worst.max(end.elapsed());
        Ok(())
    }

    fn state(&self) -> String {
        let faults: Vec<String> =
            self.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
        format!("seed {}: {}", self.site.long.seed, faults.join(", "))
    }

    fn tell(&mut self, done: u64) {
        if self.told.elapsed() < REPORT {
            return;
        }
        self.told = Instant::now();
        let (elapsed, faults) = (self.begun.elapsed(), self.faults.values().sum::<usize>());
        (self.site.long.tell)(&format!(
            "{:6.0} s  {done:>8} recorded of {:>8} submitted, {faults} faults, {:.0} tasks/s, \
             {:.1} s the longest to recover",
            elapsed.as_secs_f64(),
            self.chunks * CHUNK,
            done as f64 / elapsed.as_secs_f64(),
            self.worst.as_secs_f64()
        ));
    }

    /// Waits for the rest, and compares submission by submission.
    fn finish(mut self) -> Result<Seen> {
        let total = (self.chunks * CHUNK) as u64;
        let (mut last, mut at) = (0, Instant::now());
        poll::until("the last outcome", 20 * SOON, || {
            if let Some(done) = self.done()
                && done != last
            {
                (last, at) = (done, Instant::now());
            }
            Ok((last == total || at.elapsed() > SOON).then_some(()))
        })?;
        let elapsed = self.begun.elapsed();
        let starts = self.stage.runs.starts()?;
        let (mut tasks, mut started) = (Verdict::default(), 0);
        let mut others = 0;
        for number in 0..self.chunks {
            let results = self.stage.world.results(&self.stage.key(number))?;
            for task in World::ids(&results) {
                tasks.submitted += 1;
                let times = starts.of(&task);
                started += usize::from(times > 0);
                if times > 1 {
                    tasks.ran_again.insert(task);
                }
            }
            let open = results.iter().filter(|task| task["result"].is_null());
            tasks.lost.extend(World::ids(open));
            others += results.iter().filter(|task| task["state"] != "succeeded").count();
        }
        tasks.recorded = tasks.submitted - tasks.lost.len();
        let strangers = starts.tasks() - started;
        let dead = self.stage.world.vhost().take("dead-letters", 1000)?.len();
        let (faults, kills) = (self.faults.values().sum::<usize>(), self.kills);
        let rate = tasks.submitted as f64 / elapsed.as_secs_f64();
        let seen = Seen { tasks, ..Seen::default() };
        Ok(seen
            .allowing(kills * SLOTS)
            .recovered_in(self.worst)
            .must(others == 0, || format!("{others} did not succeed"))
            .must(strangers == 0, || format!("{strangers} tasks from nowhere ran"))
            .must(dead == 0, || format!("{dead} messages were dead-lettered"))
            .note(format!("{faults} faults in {:.0} s, {rate:.0} tasks/s", elapsed.as_secs_f64()))
            .note(self.state()))
    }
}
