//! Faults at random under messages, at one endpoint and between two.
//!
//! The faults are drawn from a bag, by a seed, and the bag is filled again when it is empty, so
//! that each strikes as often. Before each one every sender may send some more messages, and the
//! next one strikes while the last of those are under way.

use super::super::dice::Dice;
use super::{Correspondence, Ways, run_far};
use crate::broker::Private;
use crate::faults::stage::Site;
use crate::faults::{BOTH, Need, Play, Row, Seen};
use crate::poll;
use crate::proxy::Proxy;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};

pub(super) const ROW: Row = Row::new(
    "messages-at-random",
    "200 faults, drawn from a seed, under 5,000 messages at one endpoint and between two: the \
     links of both are cut and half-open, the broker is started again, the service and either \
     endpoint are ended by kill -9",
    Play::Alone(at_random),
)
.needs(&[Need::Python])
.within(120)
.since("the end of a fault, the longest of all")
.may_run_again("what ran when its endpoint was killed runs again")
.on(BOTH);

/// How many faults strike, and how many in the short form.
const FAULTS: usize = 200;
const FAULTS_IN_BRIEF: usize = 10;
/// How many messages there are for each fault.
const FOR_EACH: usize = 25;
/// The longest pause before a fault, in milliseconds.
const PAUSE_MS: u64 = 500;
/// How many faults are between two reports.
const REPORT: usize = 20;

/// A correspondence that faults strike.
struct Storm<'a> {
    post: Correspondence,
    broker: &'a mut Private,
}

type Fault = fn(&mut Storm) -> Result<()>;

/// The faults of a full bag.
const BAG: [(&str, Fault); 10] = [
    ("a link is cut", |storm| cut(&storm.post.stage.proxy)),
    ("the other link is cut", |storm| cut(&storm.post.far_proxy)),
    ("a link is half-open", |storm| lose(&storm.post.stage.proxy)),
    ("the other link is half-open", |storm| lose(&storm.post.far_proxy)),
    ("both links are cut", |storm| {
        cut(&storm.post.far_proxy)?;
        cut(&storm.post.stage.proxy)
    }),
    ("the broker is restarted", |storm| storm.broker.restart()),
    ("the service is killed", |storm| kill_service(storm)),
    ("the service is killed again", |storm| kill_service(storm)),
    ("an endpoint is killed", |storm| {
        storm.post.stage.daemon.kill()?;
        storm.post.stage.restart()
    }),
    ("the other endpoint is killed", |storm| {
        storm.post.far_daemon.kill()?;
        storm.post.far_daemon = run_far(&storm.post.stage, &storm.post.far)?;
        Ok(())
    }),
];

fn kill_service(storm: &mut Storm) -> Result<()> {
    storm.post.stage.service.kill()?;
    Correspondence::restart_service(&mut storm.post.stage)
}

fn cut(proxy: &Proxy) -> Result<()> {
    until_linked(proxy)?;
    ensure!(proxy.cut() > 0, "there was no connection to cut");
    Ok(())
}

fn lose(proxy: &Proxy) -> Result<()> {
    until_linked(proxy)?;
    ensure!(proxy.lose_clients() > 0, "there was no connection to lose");
    Ok(())
}

fn until_linked(proxy: &Proxy) -> Result<()> {
    poll::until("a connection", SOON, || Ok((proxy.open() > 0).then_some(())))
}

fn at_random(site: &Site, broker: &mut Private) -> Result<Seen> {
    let faults = if site.brief { FAULTS_IN_BRIEF } else { FAULTS };
    let (ways, seed) = (Ways::All, site.long.seed);
    let messages = (faults * FOR_EACH).div_ceil(ways.senders());
    let post = Correspondence::begin(site, ways, messages)?;
    let (mut storm, mut dice) = (Storm { post, broker }, Dice(seed));
    let (mut bag, mut worst, begun) = (Vec::new(), Duration::ZERO, Instant::now());
    for number in 1..=faults {
        if bag.is_empty() {
            bag = BAG.to_vec();
        }
        let drawn = usize::try_from(dice.throw(bag.len() as u64))?;
        let (name, fault) = bag.swap_remove(drawn);
        let allowed = (messages * number).div_ceil(faults);
        storm.post.let_send(allowed)?;
        poll::pause(Duration::from_millis(dice.throw(PAUSE_MS)));
        let at = || format!("seed {seed}, fault {number}: {name}");
        fault(&mut storm).with_context(at)?;
        let end = Instant::now();
        // The last message of each sender may be under way when the next fault strikes.
        storm.post.until_answered((allowed - 1) * ways.senders()).with_context(at)?;
        worst = worst.max(end.elapsed());
        if number % REPORT == 0 {
            (site.long.tell)(&format!(
                "{:6.0} s  {number} faults, {:.1} s the longest to recover",
                begun.elapsed().as_secs_f64(),
                worst.as_secs_f64()
            ));
        }
    }
    let tasks = 2 * super::PAIRS + ways.senders();
    let (letters, seen) = storm.post.finish()?;
    let (answers, all) = (letters.answers.len(), messages * ways.senders());
    Ok(seen
        .allowing(tasks)
        .recovered_in(worst)
        .must(answers == all, || format!("{answers} of {all} messages were answered"))
        .note(format!("{faults} faults, seed {seed}")))
}
