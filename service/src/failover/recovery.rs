//! Recovers attempts that may be lost: asks the endpoint for them by roll calls. The next attempts
//! of those that are lost wait, and are placed as all tasks that wait. Each step can be repeated.

use super::drains::send_drain;
use super::roll_call_pause::RollCallPause;
use crate::publishing::{Placements, PublishError, Publisher, control_message};
use crate::store::{Error, Overdue, Store};

use clutch_common::failover::{self as rules, KnownState};
use clutch_common::id::EndpointId;
use clutch_common::link::Fault;
use clutch_common::system::clock::now_ms;
use clutch_common::{topology, wire};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The pause before what the broker or the database did not take is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// How long to sleep at most: the clock by which pauses are kept may be set.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The work that is left after a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    /// Nothing that could be done now.
    Nothing,
    /// More of the same.
    More,
    /// Something that is too early before then.
    Later(Instant),
    /// Something that could not be done.
    Failed,
}

/// Asks until told to stop; looks whenever there is news.
///
/// # Errors
/// Never: what it cannot do it tries again. The session ends it.
pub(crate) async fn recover(
    store: &Store,
    publisher: Publisher,
    placements: &Placements,
    mut news: watch::Receiver<u64>,
    ask_after: Duration,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let roll_call = wire::ROLL_CALL_MAX;
    let pauses = BTreeMap::new();
    let mut recovery = Recovery {
        store,
        publisher,
        placements,
        roll_call,
        pauses,
        asked_again: false,
        told: false,
    };
    let mut look_at = Instant::now();
    let recovering = async {
        loop {
            news.mark_unchanged();
            if Instant::now() >= look_at {
                recovery.look(ask_after).await;
                look_at = Instant::now() + ask_after;
            }
            let left = recovery.round().await;
            let wake = match left {
                Left::Later(then) => then.min(look_at),
                Left::Nothing | Left::More | Left::Failed => look_at,
            };
            let done = matches!(left, Left::Nothing | Left::Later(_));
            tokio::select! {
                changed = news.changed(), if done => if changed.is_err() { return },
                () = tokio::time::sleep_until(wake), if done => (),
                () = tokio::time::sleep(PAUSE), if left == Left::Failed => (),
                () = tokio::task::yield_now(), if left == Left::More => (),
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => (),
        () = recovering => stop.cancelled().await,
    }
    Ok(())
}

struct Recovery<'a> {
    store: &'a Store,
    publisher: Publisher,
    placements: &'a Placements,
    /// How many attempts a roll call asks for.
    roll_call: usize,
    /// When each endpoint may be asked again.
    pauses: BTreeMap<EndpointId, RollCallPause>,
    /// Whether the attempts that were asked for before this session are asked for again: another
    /// state may have been active in between.
    asked_again: bool,
    /// It was told that something cannot be done.
    told: bool,
}

impl Recovery<'_> {
    async fn round(&mut self) -> Left {
        match self.try_round().await {
            Ok(left) => left,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                self.tell(&error);
                Left::Failed
            }
        }
    }

    /// Has tasks asked for that have been without a result for long, and published again that
    /// have been without the broker's answer.
    async fn look(&mut self, ask_after: Duration) {
        let unanswered = u64::try_from(ask_after.as_millis()).unwrap_or(u64::MAX);
        let until_ms = now_ms().saturating_sub(unanswered);
        if let Err(error) = self.placements.doubt_since(self.store, until_ms).await {
            self.tell(&format!("{:#}", anyhow::Error::from(error)));
        }
        match self.store.ask_for_overdue(ask_after, now_ms()).await {
            Ok(overdue) => {
                for Overdue { endpoint, tasks, since_ms } in overdue {
                    let oldest =
                        Duration::from_millis(now_ms().saturating_sub(since_ms) / 1000 * 1000);
                    tracing::info!(
                        %endpoint,
                        tasks,
                        oldest = %humantime::format_duration(oldest),
                        "tasks have no result yet: the endpoint is asked whether it has them"
                    );
                }
            }
            Err(error) => self.tell(&format!("{:#}", anyhow::Error::from(error))),
        }
    }

    fn tell(&mut self, reason: &str) {
        if self.told {
            tracing::debug!(reason, "an endpoint still cannot be asked for tasks");
        } else {
            self.told = true;
            tracing::warn!(
                reason,
                "an endpoint may have lost tasks, and asking for them fails; trying until it succeeds"
            );
        }
    }

    async fn try_round(&mut self) -> Result<Left, Error> {
        if !self.asked_again {
            self.store.ask_all_again().await?;
            self.asked_again = true;
        }
        self.welcome().await?;
        let mut left = worse(self.send_drains().await?, self.end_pauses().await?);
        let to_ask = self.store.endpoints_to_ask().await?;
        let now = Instant::now();
        let asked = self.pauses.iter_mut().filter(|(endpoint, _)| !to_ask.contains(endpoint));
        asked.for_each(|(_, pause)| pause.end_series(now));
        if !to_ask.is_empty() {
            for one in self.store.endpoint_states().await? {
                if to_ask.contains(&one.endpoint)
                    && let Some(state) = rules::to_ask(&one.states)
                {
                    left = worse(left, self.ask(one.endpoint, state).await?);
                }
            }
        }
        if matches!(left, Left::Nothing | Left::Later(_)) {
            self.told = false;
        }
        Ok(left)
    }

    /// Answers instances that asked whether their disk went back in time. An instance that the
    /// answer does not reach asks again.
    async fn welcome(&self) -> Result<(), Error> {
        for pending in self.store.pending_welcomes().await? {
            let welcome = wire::encode_welcome(&pending.welcome);
            let message = control_message(wire::WELCOME_TYPE, welcome);
            let lease = topology::lease_queue(pending.endpoint);
            if let Err(why) = self.publisher.message(lease, message).await {
                tracing::debug!(
                    endpoint = %pending.endpoint,
                    reason = %why,
                    "an instance that has asked is not told how its disk is"
                );
            }
            self.store.welcomed(pending).await?;
        }
        Ok(())
    }

    /// Has the tasks published of which the pause before the next attempt is over.
    async fn end_pauses(&self) -> Result<Left, Error> {
        let (ended, next) = self.store.end_pauses(now_ms()).await?;
        if ended > 0 {
            self.placements.tell();
        }
        let later = |due: u64| {
            Instant::now() + Duration::from_millis(due.saturating_sub(now_ms())).min(LONGEST_PAUSE)
        };
        Ok(next.map_or(Left::Nothing, |due| Left::Later(later(due))))
    }

    /// Sends each drain and each resume that the broker is not known to have.
    async fn send_drains(&mut self) -> Result<Left, Error> {
        let mut left = Left::Nothing;
        for pending in self.store.pending_drains().await? {
            let endpoint = pending.endpoint;
            if let Err(why) = send_drain(self.store, &self.publisher, pending).await? {
                self.tell(&format!("telling the endpoint {endpoint} to drain: {why}"));
                left = Left::Failed;
            }
        }
        Ok(left)
    }

    /// Sends one roll call.
    async fn ask(&mut self, endpoint: EndpointId, known: &KnownState) -> Result<Left, Error> {
        let unaccounted = self.store.attempts_to_ask(endpoint, self.roll_call).await?;
        let (pause, now) = (self.pauses.entry(endpoint).or_default(), Instant::now());
        if unaccounted.is_empty() {
            pause.end_series(now);
            return Ok(Left::Nothing);
        }
        if let Some(then) = pause.begin(now) {
            return Ok(Left::Later(then));
        }
        let attempts = unaccounted.iter().map(|one| one.attempt).collect();
        let KnownState { id: state, instance, .. } = *known;
        let roll_call = wire::RollCall { state_id: state, instance, attempts };
        let message = control_message(wire::ROLL_CALL_TYPE, wire::encode_roll_call(&roll_call));
        match self.publisher.message(topology::tasks_queue(endpoint), message).await {
            Ok(()) => {
                tracing::info!(%endpoint, %state, attempts = unaccounted.len(), "roll call");
                if !self.store.mark_asked(endpoint, known, unaccounted, now_ms()).await? {
                    tracing::debug!(%endpoint, %state, "another instance became active: asking it");
                }
                Ok(Left::More)
            }
            Err(PublishError::TooLarge(_)) if self.roll_call > 1 => {
                self.roll_call /= 2;
                Ok(Left::More)
            }
            Err(why) => {
                self.tell(&why.to_string());
                Ok(Left::Failed)
            }
        }
    }
}

fn worse(one: Left, other: Left) -> Left {
    match (one, other) {
        (Left::Failed, _) | (_, Left::Failed) => Left::Failed,
        (Left::More, _) | (_, Left::More) => Left::More,
        (Left::Later(one), Left::Later(other)) => Left::Later(one.min(other)),
        (Left::Later(then), Left::Nothing) | (Left::Nothing, Left::Later(then)) => {
            Left::Later(then)
        }
        (Left::Nothing, Left::Nothing) => Left::Nothing,
    }
}
