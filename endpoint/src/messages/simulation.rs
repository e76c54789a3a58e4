//! A sender's endpoint, a service without memory and a target's endpoint, from seeds: what is
//! between them is lost, late and doubled, and the target's endpoint crashes. Nothing here depends
//! on chance or a clock.
//!
//! Judged: `delivered` is told only of a message that a process took; that none took it is told
//! only of one that none took, nor takes later; no run of the target takes one twice; and each
//! send has an answer in time.

use super::letter::{Letter, LetterOrigin};
use super::mailbox::{Hold, Mailboxes, Moment, Wanted};
use super::outgoing::{Known, NextStep, Outgoing, SendEnd, Target};
use clutch_common::id::{Attempt, TaskId};
use clutch_common::task::result::Outcome;
use clutch_common::wire::{Judgement, Reply, VERDICT_GRACE};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;
use uuid::Uuid;

/// How many worlds are played.
const WORLDS: u64 = 3000;
/// The longest delay of a message in a bad world, in milliseconds.
const LATE_MS: u64 = 20_000;
const TARGET: TaskId = TaskId(Uuid::from_u128(7));

/// Numbers from a seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next(100) < percent
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// The sender's endpoint does its next step.
    Sender(u128),
    /// A copy comes to the service.
    Request { id: u128, copy: u32, left: Duration },
    /// A copy comes to the target's endpoint.
    Deliver { id: u128, copy: u32, left: Duration, again: bool },
    /// A verdict comes to the service.
    Verdict { id: u128, since: u32, copy: u32, verdict: Judgement },
    /// An answer comes to the sender's endpoint.
    Answer { id: u128, since: u32, copy: u32, reply: Reply },
    /// A process of the target receives.
    Receive,
    /// It acknowledges, or gives back.
    Settle { delivery: u64, id: u128, run: u32, takes: bool },
    /// The target's endpoint has something due.
    Due,
    /// The target is started, or its endpoint crashes and starts it again.
    Start,
    /// The target ends.
    End,
}

/// The target, as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Waits,
    Runs,
    Ended,
}

struct World {
    chance: Chance,
    now: Moment,
    queue: BTreeMap<(Moment, u64), Happening>,
    next: u64,
    /// How much of what is between the endpoints is lost and doubled, in percent.
    lost: u64,
    doubled: u64,
    late_ms: u64,
    boxes: Mailboxes,
    run: u32,
    phase: Phase,
    sends: BTreeMap<u128, Outgoing>,
    ends: BTreeMap<u128, (SendEnd, Moment)>,
    /// The messages that each run took.
    taken: BTreeSet<(u32, u128)>,
    complaints: Vec<String>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let bad = chance.percent(60);
        let (lost, doubled) = if bad { (chance.next(40), chance.next(30)) } else { (0, 0) };
        let late_ms = if bad { 1 + chance.next(LATE_MS) } else { 20 };
        let mut world = Self {
            chance,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            next: 0,
            lost,
            doubled,
            late_ms,
            boxes: Mailboxes::default(),
            run: 0,
            phase: Phase::Waits,
            sends: BTreeMap::new(),
            ends: BTreeMap::new(),
            taken: BTreeSet::new(),
            complaints: Vec::new(),
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        for id in 1..=1 + u128::from(self.chance.next(8)) {
            let at = ms(self.chance.next(40_000));
            // A short wait is often over before a copy that was doubled comes again.
            let longest = if self.chance.percent(60) { 3_000 } else { 40_000 };
            let until = at + ms(100 + self.chance.next(longest));
            self.sends.insert(id, Outgoing::new(until, 1, 5));
            self.at(at, Happening::Sender(id));
        }
        let start = self.chance.next(30_000);
        self.at(ms(start), Happening::Start);
        if self.chance.percent(40) {
            for _ in 0..=self.chance.next(3) {
                let at = start + self.chance.next(40_000);
                self.at(ms(at), Happening::Start);
            }
        }
        if self.chance.percent(50) {
            let at = start + self.chance.next(60_000);
            self.at(ms(at), Happening::End);
        }
        let pause = 200 + self.chance.next(20_000);
        for number in 0..(120_000 / pause) {
            let at = number * pause + self.chance.next(pause);
            self.at(ms(at), Happening::Receive);
        }
    }

    fn at(&mut self, at: Moment, happening: Happening) {
        self.next += 1;
        self.queue.insert((at.max(self.now), self.next), happening);
    }

    /// Sends something over the network. What is doubled is known to be: the service drops a
    /// request that comes again.
    fn carry(&mut self, happening: &Happening) {
        if self.chance.percent(self.lost) {
            return;
        }
        let late = |world: &mut Self| world.now + ms(1 + world.chance.next(world.late_ms));
        let at = late(self);
        self.at(at, happening.clone());
        if self.chance.percent(self.doubled) {
            let again = match happening.clone() {
                Happening::Request { .. } => return,
                Happening::Deliver { id, copy, left, .. } => {
                    Happening::Deliver { id, copy, left, again: true }
                }
                other @ (Happening::Sender(_)
                | Happening::Verdict { .. }
                | Happening::Answer { .. }
                | Happening::Receive
                | Happening::Settle { .. }
                | Happening::Due
                | Happening::Start
                | Happening::End) => other,
            };
            let at = at + ms(1 + self.chance.next(self.late_ms));
            self.at(at, again);
        }
    }

    fn letter(id: u128, since: u32, copy: u32) -> Letter {
        Letter {
            id: Uuid::from_u128(id),
            source: Attempt { task_id: TaskId(Uuid::from_u128(1)), attempt: 1 },
            to: TARGET,
            attempt: None,
            addressee: "in".to_owned(),
            body: b"hello".as_slice().into(),
            origin: LetterOrigin::Service { copy, since, answer_to: None },
        }
    }

    fn play(&mut self) {
        while let Some(((now, _), happening)) = self.queue.pop_first() {
            self.now = now;
            self.happen(happening);
        }
        self.judge();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Sender(id) => self.sender(id),
            Happening::Request { id, copy, left } => match (self.phase, copy) {
                // From its records, without asking the endpoint.
                (Phase::Ended, 1) => {
                    let reply = Reply::Finished(Outcome::Failed);
                    self.carry(&Happening::Answer { id, since: copy, copy, reply });
                }
                (Phase::Waits, _) => {
                    let reply = Reply::NotStarted;
                    self.carry(&Happening::Answer { id, since: copy, copy, reply });
                }
                _ => self.carry(&Happening::Deliver { id, copy, left, again: false }),
            },
            Happening::Deliver { id, copy, left, again } => self.deliver(id, copy, left, again),
            Happening::Verdict { id, since, copy, verdict } => {
                self.verdict(id, since, copy, verdict);
            }
            Happening::Answer { id, since, copy, reply } => {
                if let Some(outgoing) = self.sends.get_mut(&id) {
                    outgoing.answered(since..=copy, reply);
                    self.sender(id);
                }
            }
            Happening::Receive => self.receive(),
            Happening::Settle { delivery, id, run, takes } => {
                if run != self.run || self.phase != Phase::Runs {
                    return;
                }
                if !takes {
                    self.boxes.give_back(TARGET, delivery, self.now);
                } else if self.boxes.acknowledge(TARGET, 1, delivery, self.now)
                    && !self.taken.insert((run, id))
                {
                    self.complaints.push(format!("run {run} took {id} twice"));
                }
                self.tell();
            }
            Happening::Due => {
                self.boxes.pass(self.now);
                self.tell();
            }
            Happening::Start if self.phase != Phase::Ended => {
                self.boxes = Mailboxes::default();
                self.run += 1;
                self.phase = Phase::Runs;
            }
            Happening::End if self.phase == Phase::Runs => {
                self.phase = Phase::Ended;
                self.boxes.ended(TARGET, 1, Some(Outcome::Failed), self.now);
                self.tell();
            }
            Happening::Start | Happening::End => (),
        }
    }

    fn sender(&mut self, id: u128) {
        let Some(outgoing) = self.sends.get_mut(&id) else { return };
        let known = Known { now: self.now, target: Target::Elsewhere, link: true, mailbox: None };
        match outgoing.step(&known) {
            NextStep::End(end) => {
                self.sends.remove(&id);
                self.ends.insert(id, (end, self.now));
            }
            NextStep::Wait(until) => self.at(until, Happening::Sender(id)),
            NextStep::Publish(copy) => {
                let left = outgoing.until().saturating_sub(self.now);
                self.carry(&Happening::Request { id, copy, left });
                self.at(self.now, Happening::Sender(id));
            }
            NextStep::Offer(_) => self.complaints.push(format!("{id} is offered here")),
        }
    }

    fn deliver(&mut self, id: u128, copy: u32, left: Duration, again: bool) {
        let since = copy + u32::from(again);
        let letter = Self::letter(id, since, copy);
        let verdict = match self.phase {
            Phase::Runs => self.boxes.offer(letter, 1, self.now + left, usize::MAX, self.now),
            Phase::Waits => Judgement::NotHere,
            Phase::Ended => match self.boxes.about(&letter) {
                Some(taken @ Judgement::Taken(_)) => taken,
                _ => Judgement::Ended(Outcome::Failed),
            },
        };
        self.carry(&Happening::Verdict { id, since, copy, verdict });
        self.tell();
    }

    fn verdict(&mut self, id: u128, since: u32, copy: u32, verdict: Judgement) {
        let reply = match verdict {
            Judgement::Held => Reply::Held,
            Judgement::Taken(attempt) => Reply::Delivered(attempt),
            Judgement::NotListening => Reply::NotListening,
            Judgement::NotHere => Reply::NotStarted,
            Judgement::Ended(outcome) => Reply::Finished(outcome),
            Judgement::Superseded(attempt) => Reply::Superseded(attempt),
            Judgement::NoRoom => Reply::NoRoom,
        };
        self.carry(&Happening::Answer { id, since, copy, reply });
    }

    fn receive(&mut self) {
        if self.phase != Phase::Runs {
            return;
        }
        let wanted = Wanted { addressees: vec!["in".to_owned()], from: None };
        let hold = if self.chance.percent(50) {
            Hold::Connection
        } else {
            Hold::Until(self.now + ms(self.chance.next(3000)))
        };
        let Some(given) = self.boxes.give(TARGET, 1, &wanted, hold, self.now) else {
            return self.tell();
        };
        let (delivery, id) = (given.delivery, given.letter.id.as_u128());
        let (run, takes) = (self.run, self.chance.percent(80));
        let at = self.now + ms(self.chance.next(5000));
        self.at(at, Happening::Settle { delivery, id, run, takes });
        self.tell();
    }

    /// Carries the verdicts of the mailboxes.
    fn tell(&mut self) {
        for (letter, verdict) in self.boxes.take_told() {
            let LetterOrigin::Service { copy, since, .. } = letter.origin else { continue };
            let id = letter.id.as_u128();
            self.carry(&Happening::Verdict { id, since, copy, verdict });
        }
        if let Some(due) = self.boxes.due() {
            self.at(due, Happening::Due);
        }
    }

    fn judge(&mut self) {
        for id in self.sends.keys() {
            self.complaints.push(format!("{id} has no answer"));
        }
        for (id, (end, _)) in &self.ends {
            let taken = self.taken.iter().any(|(_, taken)| taken == id);
            let says_not = matches!(
                end,
                SendEnd::NotListening
                    | SendEnd::NoRoom
                    | SendEnd::Unreachable
                    | SendEnd::Finished { certain: true, .. }
            );
            let says_taken = matches!(end, SendEnd::Delivered(_));
            let wrong = says_taken && !taken || says_not && taken;
            if wrong {
                self.complaints.push(format!("{id} is answered {end:?}, and taken: {taken}"));
            }
        }
    }
}

/// The seeds to play.
fn seeds() -> Range<u64> {
    let Ok(wish) = std::env::var("CLUTCH_SIMULATE_SEEDS") else { return 0..WORLDS };
    let (from, to) = wish.split_once("..").expect("A..B");
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn every_seed_keeps_the_promises() {
    let (mut kinds, seeds) = (BTreeMap::new(), seeds());
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        let limits: BTreeMap<u128, Moment> =
            world.sends.iter().map(|(id, send)| (*id, send.until() + VERDICT_GRACE)).collect();
        world.play();
        for (id, (end, at)) in &world.ends {
            assert!(*at <= limits[id], "seed {seed}: {id} is answered late");
            let kind = format!("{end:?}");
            *kinds.entry(kind.split(['(', ' ']).next().unwrap().to_owned()).or_insert(0) += 1;
        }
        let complaints = &world.complaints;
        assert!(complaints.is_empty(), "seed {seed}: {complaints:?}");
    }
    // Each way is gone often.
    for kind in ["Delivered", "NotListening", "Finished", "TimedOut"] {
        let often = kinds.get(kind).is_some_and(|count| *count > 50);
        assert!(often || seeds != (0..WORLDS), "{kinds:?}");
    }
}
