//! The clutch decides what a fault of the link leads to: *wait this long*, or *give up*.
//! No IO and no clock; nothing in it is random but the jitter.
//!
//! A fault of the link never stops the engine. It only decides how long the daemon
//! stays without a link (disengaged) before it dials again.

use crate::exit::Exit;
use backoff::ExponentialBackoff;
use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;
use clutch_common::link::Fault;
use std::time::Duration;

/// A link that held at least this long counts as mended: delays start anew.
const STABLE: Duration = Duration::from_secs(30);
/// The broker drops the connection of a dead peer after about three heartbeats
/// (measured on `RabbitMQ` 3.10: 30 s at a heartbeat of 10 s).
const LOCK_HEARTBEATS: u32 = 3;
const LOCK_MARGIN: Duration = Duration::from_secs(5);
/// How long refusals are waited out after the broker was away: while it starts, it may
/// refuse a user or a vhost that it has not loaded yet.
const BOOT_PATIENCE: Duration = Duration::from_secs(30);

/// The decision on a fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// Stay disengaged for `delay`, then dial again.
    Wait {
        /// How long.
        delay: Duration,
        /// Advice for a person.
        advice: &'static str,
    },
    /// End the daemon; what is pending stays on disk.
    GiveUp {
        /// The exit code.
        exit: Exit,
        /// Advice for a person.
        advice: &'static str,
    },
}

/// How a kind of fault is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    /// Mends by itself: from a fifth of a second up to 30 s.
    Transient,
    /// Needs a person: from 5 s up to a minute; a daemon that never was
    /// engaged gives up instead, unless the broker may be about to start.
    Standing(Exit),
    /// Another instance, or a dead connection of one: dial again every few seconds until
    /// a dead peer would have been dropped, then give up. An instance that has been
    /// engaged, or shares its endpoint, waits for the lease on a link that is up instead
    /// ([`Clutch::waits_for_lease`]).
    Locked,
}

/// The state between faults.
pub(crate) struct Clutch {
    standby: bool,
    transient: ExponentialBackoff,
    standing: ExponentialBackoff,
    engaged_before: bool,
    locked_for: Duration,
    lock_patience: Duration,
    /// The rest of [`BOOT_PATIENCE`].
    boot_patience: Duration,
}

impl Clutch {
    /// Creates a clutch for a link with this heartbeat; `standby` says that the endpoint
    /// is shared with other instances. `jitter` is the share of a delay that is random,
    /// 0 to 1.
    pub(crate) fn new(heartbeat: Duration, standby: bool, jitter: f64) -> Self {
        let backoff = |first: u64, most: u64| {
            ExponentialBackoffBuilder::new()
                .with_initial_interval(Duration::from_millis(first))
                .with_max_interval(Duration::from_millis(most))
                .with_multiplier(2.0)
                .with_randomization_factor(jitter)
                .with_max_elapsed_time(None)
                .build()
        };
        Self {
            standby,
            transient: backoff(200, 30_000),
            standing: backoff(5_000, 60_000),
            engaged_before: false,
            locked_for: Duration::ZERO,
            lock_patience: heartbeat * LOCK_HEARTBEATS + LOCK_MARGIN,
            boot_patience: Duration::ZERO,
        }
    }

    /// Whether the instance waits for a lease that another one holds, on a link that is up
    /// and for as long as it takes.
    pub(crate) fn waits_for_lease(&self) -> bool {
        self.standby || self.engaged_before
    }

    /// Decides what to do about `fault`, which ended a session that had been
    /// engaged, or waiting for the lease, for `engaged_for` (`None`: it never was).
    pub(crate) fn disengage(&mut self, fault: &Fault, engaged_for: Option<Duration>) -> Decision {
        if let Some(held) = engaged_for {
            self.engaged_before = true;
            if held >= STABLE {
                self.transient.reset();
                self.standing.reset();
            }
        }
        match policy(fault) {
            Policy::Transient => {
                self.boot_patience = BOOT_PATIENCE;
                wait(&mut self.transient, advice(fault))
            }
            Policy::Standing(exit) if !self.engaged_before && self.boot_patience.is_zero() => {
                Decision::GiveUp { exit, advice: advice(fault) }
            }
            Policy::Standing(_) => {
                let decision = wait(&mut self.standing, advice(fault));
                if let Decision::Wait { delay, .. } = &decision {
                    self.boot_patience = self.boot_patience.saturating_sub(*delay);
                }
                decision
            }
            Policy::Locked if self.locked_for >= self.lock_patience => {
                Decision::GiveUp { exit: Exit::Refused, advice: advice(fault) }
            }
            Policy::Locked => {
                let delay = Duration::from_secs(2);
                self.locked_for += delay;
                Decision::Wait { delay, advice: advice(fault) }
            }
        }
    }
}

fn wait(backoff: &mut ExponentialBackoff, advice: &'static str) -> Decision {
    let delay = backoff.next_backoff().unwrap_or(backoff.max_interval);
    Decision::Wait { delay, advice }
}

/// Returns the exit code for a fault after which the program does not go on.
pub(crate) fn exit_code(fault: &Fault) -> Exit {
    match policy(fault) {
        Policy::Transient => Exit::Unavailable,
        Policy::Standing(exit) => exit,
        Policy::Locked => Exit::Refused,
    }
}

fn policy(fault: &Fault) -> Policy {
    match fault {
        Fault::Refused(_)
        | Fault::Unreachable(_)
        | Fault::Closed(_)
        | Fault::Blocked { .. }
        | Fault::ConfirmTimeout(_)
        | Fault::Limited(_)
        | Fault::Rejected(_) => Policy::Transient,
        Fault::Credentials(_) | Fault::Forbidden(_) => Policy::Standing(Exit::Refused),
        Fault::Tls(_) => Policy::Standing(Exit::Config),
        Fault::Missing(_) | Fault::Mismatch(_) | Fault::Protocol(_) => {
            Policy::Standing(Exit::Unavailable)
        }
        Fault::Locked(_) => Policy::Locked,
    }
}

/// Advises a person on a fault.
pub(crate) fn advice(fault: &Fault) -> &'static str {
    match fault {
        Fault::Refused(_) => {
            "check that the broker runs and that the port in the broker URL is right"
        }
        Fault::Unreachable(_) => {
            "check that what the broker URL names can be reached from here: a host and its port, or a folder that is mounted"
        }
        Fault::Tls(_) => {
            "check that the URL's scheme and port belong together and that the broker's certificate is trusted here"
        }
        Fault::Credentials(_) => {
            "check user, password and vhost in the broker URL, or ask the service's operator for a new endpoint.toml"
        }
        Fault::Forbidden(_) => {
            "ask the service's operator for the permissions that this endpoint needs there"
        }
        Fault::Missing(_) => {
            "ask the service's operator to run `clutch-service provision` for this endpoint again"
        }
        Fault::Locked(_) => {
            "only one instance of an endpoint is active: stop the other one, or run every instance with --standby to have one wait for the other; what a dead one holds is free after three heartbeats. If the other's state folder is lost, `run --replace` takes its place"
        }
        Fault::Mismatch(_) | Fault::Protocol(_) => {
            "check that the broker URL is right, and compare the versions of endpoint, service and broker"
        }
        Fault::Limited(_) => {
            "an endpoint has two connections to its broker, each with up to three channels: close what is not needed there, or ask the broker's operator to raise the limit"
        }
        Fault::Rejected(_) => {
            "the results queue does not take more: check that `clutch-service serve` collects"
        }
        Fault::Blocked { .. } => "memory or disk is short there: its operator has to make room",
        Fault::Closed(_) => {
            "the endpoint dials again by itself; if that goes on, look at the broker's log and at what lies between"
        }
        Fault::ConfirmTimeout(_) => {
            "the broker is busy, or the link to it slower than it takes: look at both; what is not confirmed is sent again"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(10);

    type Make = fn(String) -> Fault;

    fn clutch() -> Clutch {
        Clutch::new(HEARTBEAT, false, 0.0)
    }

    fn fault(make: Make) -> Fault {
        make("x".into())
    }

    fn delay(decision: Decision) -> Duration {
        match decision {
            Decision::Wait { delay, .. } => delay,
            Decision::GiveUp { .. } => panic!("gave up: {decision:?}"),
        }
    }

    fn exit(decision: Decision) -> Exit {
        match decision {
            Decision::GiveUp { exit, .. } => exit,
            Decision::Wait { .. } => panic!("waits: {decision:?}"),
        }
    }

    #[test]
    fn what_time_mends_is_waited_for_without_end_and_ever_longer() {
        for make in
            [Fault::Refused, Fault::Unreachable, Fault::Closed, Fault::Limited, Fault::Rejected]
        {
            let mut clutch = clutch();
            let delays: Vec<u128> = (0..1000)
                .map(|_| delay(clutch.disengage(&fault(make), None)).as_millis())
                .collect();
            assert_eq!(&delays[..4], &[200, 400, 800, 1600]);
            assert_eq!(delays[999], 30_000);
        }
    }

    #[test]
    fn a_link_that_held_starts_the_waiting_anew_and_a_flapping_one_does_not() {
        let mut clutch = clutch();
        let closed = fault(Fault::Closed);
        for _ in 0..5 {
            clutch.disengage(&closed, Some(Duration::from_secs(1)));
        }
        assert_eq!(
            delay(clutch.disengage(&closed, Some(Duration::from_secs(1)))).as_millis(),
            6400
        );
        assert_eq!(delay(clutch.disengage(&closed, Some(STABLE))).as_millis(), 200);
    }

    #[test]
    fn what_needs_a_person_ends_a_first_start_and_is_waited_for_later() {
        let cases: [(Make, Exit); 6] = [
            (Fault::Credentials, Exit::Refused),
            (Fault::Forbidden, Exit::Refused),
            (Fault::Tls, Exit::Config),
            (Fault::Missing, Exit::Unavailable),
            (Fault::Mismatch, Exit::Unavailable),
            (Fault::Protocol, Exit::Unavailable),
        ];
        for (make, code) in cases {
            assert_eq!(exit(clutch().disengage(&fault(make), None)), code);
            let mut later = clutch();
            later.disengage(&fault(Fault::Closed), Some(STABLE));
            assert_eq!(delay(later.disengage(&fault(make), None)), Duration::from_secs(5));
        }
    }

    #[test]
    fn a_refusal_is_waited_out_for_half_a_minute_after_the_broker_was_away() {
        let mut clutch = clutch();
        let refused = Fault::Credentials("vhost '/' not found".into());
        delay(clutch.disengage(&Fault::Unreachable("connection refused".into()), None));
        let mut waited = Duration::ZERO;
        while let Decision::Wait { delay, .. } = clutch.disengage(&refused, None) {
            waited += delay;
            assert!(waited < BOOT_PATIENCE * 2);
        }
        assert!(waited >= BOOT_PATIENCE);
    }

    #[test]
    fn a_lock_is_waited_for_as_long_as_a_dead_peer_may_hold_it_and_no_longer() {
        let mut clutch = clutch();
        let mut waited = Duration::ZERO;
        while let Decision::Wait { delay, .. } = clutch.disengage(&fault(Fault::Locked), None) {
            waited += delay;
        }
        assert!(waited >= HEARTBEAT * 3 && waited <= HEARTBEAT * 4, "{waited:?}");
        assert_eq!(exit(clutch.disengage(&fault(Fault::Locked), None)), Exit::Refused);
    }

    #[test]
    fn an_instance_that_shares_the_endpoint_or_has_been_engaged_waits_for_the_lease() {
        for (standby, engaged, waits) in [
            (false, None, false),
            (false, Some(Duration::ZERO), true),
            (true, None, true),
            (true, Some(STABLE), true),
        ] {
            let mut clutch = Clutch::new(HEARTBEAT, standby, 0.0);
            assert_eq!(clutch.waits_for_lease(), standby);
            clutch.disengage(&fault(Fault::Closed), engaged);
            assert_eq!(clutch.waits_for_lease(), waits, "standby {standby}, engaged {engaged:?}");
        }
    }

    #[test]
    fn jitter_spreads_the_delays() {
        let mut clutch = Clutch::new(HEARTBEAT, false, 0.5);
        let delay = delay(clutch.disengage(&fault(Fault::Closed), None)).as_millis();
        assert!((100..=300).contains(&delay), "{delay}");
    }
}
