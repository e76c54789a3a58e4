//! Many tasks over five members, and a random fault every few seconds.

use super::super::Seen;
use super::super::dice::Dice;
use super::super::stage::Site;
use super::fleet::{Fleet, SLOTS};
use crate::poll;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The members.
const MEMBERS: usize = 5;
/// How many submissions share the tasks.
const SUBMISSIONS: usize = 4;

/// A play under way.
struct Run {
    fleet: Fleet,
    dice: Dice,
    /// How many tasks may have run again by the faults so far.
    may_run_again: usize,
}

type Fault = fn(&mut Run, usize) -> Result<()>;

/// The faults, and how often each is drawn beside the others.
const FAULTS: &[(&str, u64, Fault)] = &[
    ("killed", 4, |run, member| {
        run.may_run_again += SLOTS;
        run.fleet.kill(member)?;
        run.fleet.start_again(member)
    }),
    ("cut", 4, |run, member| run.fleet.cut(member)),
    ("without a link", 4, |run, member| {
        let time = run.dice.seconds(1, 5);
        run.fleet.cut_for(member, time)
    }),
    ("stopped", 4, |run, member| {
        let time = run.dice.seconds(1, 7);
        run.fleet.stop_for(member, time)
    }),
    ("disk lost", 1, |run, member| {
        run.may_run_again += run.fleet.lose_disk(member)?;
        Ok(())
    }),
    ("service killed", 4, |run, _| run.fleet.kill_service()),
    ("both killed", 2, |run, member| {
        run.may_run_again += SLOTS;
        run.fleet.stage.service.kill()?;
        run.fleet.kill(member)?;
        run.fleet.serve()?;
        run.fleet.start_again(member)
    }),
];

pub(super) fn play(site: &Site) -> Result<Seen> {
    let (tasks, pace) =
        if site.brief { (3000, Duration::from_secs(1)) } else { (20_000, Duration::from_secs(3)) };
    let mut fleet = Fleet::start(site, MEMBERS)?;
    for _ in 0..SUBMISSIONS {
        fleet.submit(tasks / SUBMISSIONS)?;
    }
    let seed = seed(site);
    let mut run = Run { fleet, dice: Dice(seed), may_run_again: 0 };
    let mut drawn: BTreeMap<&str, usize> = BTreeMap::new();
    let mut end = Instant::now();
    let enough = tasks as u64 * 9 / 10;
    while run.fleet.done()? < enough {
        poll::pause(pace.saturating_sub(end.elapsed()));
        let name = run.draw().with_context(|| format!("seed {seed}: {drawn:?}"))?;
        *drawn.entry(name).or_default() += 1;
        end = Instant::now();
    }
    let Run { fleet, may_run_again, .. } = run;
    let words: Vec<String> = drawn.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let seen = super::seen(fleet, end, may_run_again)?;
    Ok(seen.note(format!("seed {seed}: {}", words.join(", "))))
}

/// The seed that was given, or one of the moment.
fn seed(site: &Site) -> u64 {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    if site.long.seed == 0 { u64::from(now.subsec_nanos()) } else { site.long.seed }
}

impl Run {
    /// Draws a fault and a member, and plays it.
    fn draw(&mut self) -> Result<&'static str> {
        let all = FAULTS.iter().map(|(_, weight, _)| weight).sum();
        let mut drawn = self.dice.throw(all);
        let member = usize::try_from(self.dice.throw(MEMBERS as u64))?;
        for (name, weight, fault) in FAULTS {
            if drawn < *weight {
                fault(self, member).with_context(|| format!("playing '{name}' at {member}"))?;
                return Ok(name);
            }
            drawn -= weight;
        }
        bail!("no fault was drawn")
    }
}
