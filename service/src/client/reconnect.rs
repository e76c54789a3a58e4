//! Waits for a service that is away, so that a command that waits for tasks survives its restart.
//!
//! A service that was never reached is not waited for: the command would wait for a service that
//! was never started. Touches: time, and stderr, which is told once per absence.

use crate::cli::output;
use crate::failure::{Failure, UNAVAILABLE, kind_of};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

/// The kind of the error that no service listens.
pub(super) const NO_SERVICE: &str = "no_service";
/// The kind of the error that the service ended while it was asked.
pub(super) const WENT_AWAY: &str = "went_away";
/// The kind of the error that the service takes connections and does not answer.
pub(super) const SILENT: &str = "silent";
/// The kinds of a service that is about to end.
const STOPPING: &str = "stopping";
/// The kind of a service that has no link to the broker, as after its start.
const DISENGAGED: &str = "disengaged";

/// The first and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a service that is away is waited for.
#[derive(Debug)]
pub(super) struct ReconnectPolicy {
    give_up_after: Option<Duration>,
    absence: Mutex<Absence>,
}

/// Whether the service is away.
#[derive(Clone, Copy, Debug, Default)]
struct Absence {
    /// Whether the service was there at all.
    reached: bool,
    /// Since when it is away.
    since: Option<Instant>,
    pause: Duration,
}

impl ReconnectPolicy {
    /// A policy that ends after some time, or never.
    pub(super) fn new(give_up_after: Option<Duration>) -> Self {
        Self { give_up_after, absence: Mutex::default() }
    }

    /// Asks until the service answers.
    pub(super) async fn ask<T, A>(&self, ask: impl Fn() -> A) -> anyhow::Result<T>
    where
        A: Future<Output = anyhow::Result<T>>,
    {
        loop {
            let error = match ask().await {
                Ok(answer) => {
                    self.reached();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let Some(pause) = self.pause(&error)? else { return Err(error) };
            tokio::time::sleep(pause).await;
        }
    }

    fn reached(&self) {
        let mut absence = self.absence.lock().unwrap_or_else(PoisonError::into_inner);
        if absence.since.is_some() {
            output::note("the service is there again");
        }
        *absence = Absence { reached: true, ..Absence::default() };
    }

    /// How long to wait before the next try; nothing for an error of another kind.
    fn pause(&self, error: &anyhow::Error) -> Result<Option<Duration>, Failure> {
        let mut absence = self.absence.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kind_of(error);
        // It ended a connection, so it was there.
        absence.reached |= [WENT_AWAY, STOPPING].contains(&kind);
        let away = [NO_SERVICE, WENT_AWAY, SILENT, STOPPING].contains(&kind)
            || kind == DISENGAGED && absence.since.is_some();
        if !away || !absence.reached {
            return Ok(None);
        }
        let since = *absence.since.get_or_insert_with(|| {
            output::note(&format!(
                "the service is away ({error:#}): this command waits for it; the tasks go on \
                 meanwhile"
            ));
            Instant::now()
        });
        let left = self.give_up_after.map(|bound| bound.saturating_sub(since.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            let words = format!("the service did not come back in time: {error:#}");
            return Err(Failure::new(UNAVAILABLE, words).of_kind(kind.to_owned()).in_doubt());
        }
        absence.pause = (absence.pause * 2).clamp(PAUSE.0, PAUSE.1);
        Ok(Some(left.map_or(absence.pause, |left| left.min(absence.pause))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit_code;
    use std::cell::RefCell;

    fn failure(kind: &'static str) -> anyhow::Error {
        Failure::new(UNAVAILABLE, "no").of_kind(kind).into()
    }

    /// Asks with these answers: a kind of error, or that it is there.
    async fn ask(
        reconnect: &ReconnectPolicy,
        answers: &[&'static str],
    ) -> (anyhow::Result<()>, usize) {
        let left = RefCell::new(answers.iter());
        let asked = reconnect.ask(|| {
            let answer = *left.borrow_mut().next().unwrap();
            async move { if answer.is_empty() { Ok(()) } else { Err(failure(answer)) } }
        });
        let answer = asked.await;
        (answer, left.borrow().len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_was_there_is_waited_for_and_one_that_never_was_is_not() {
        let reconnect = ReconnectPolicy::new(None);
        let (answer, left) = ask(&reconnect, &[NO_SERVICE, ""]).await;
        assert!(answer.is_err() && left == 1);
        let restarted = [WENT_AWAY, NO_SERVICE, NO_SERVICE, DISENGAGED, ""];
        assert!(ask(&reconnect, &restarted).await.0.is_ok());
        assert!(ask(&reconnect, &[STOPPING, SILENT, ""]).await.0.is_ok());
        let (answer, left) = ask(&reconnect, &[DISENGAGED, ""]).await;
        assert!(answer.is_err() && left == 1, "it was not away");
        assert!(ask(&reconnect, &["not_found", ""]).await.0.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_it_is_bounded_and_pauses_grow_to_5_s() {
        let reconnect = ReconnectPolicy::new(Some(Duration::from_secs(60)));
        let begun = Instant::now();
        let mut answers = vec![WENT_AWAY];
        answers.extend([NO_SERVICE; 100]);
        let (answer, left) = ask(&reconnect, &answers).await;
        assert_eq!(exit_code(&answer.unwrap_err()), UNAVAILABLE);
        assert_eq!(begun.elapsed().as_secs(), 60);
        assert!((80..90).contains(&left), "{left}");
    }
}
