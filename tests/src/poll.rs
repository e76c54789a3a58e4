//! Waiting for something to become true in another process. The only place in
//! the harness that sleeps.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives something, for at most `within`.
///
/// # Errors
/// When time is up; the error says `what` was waited for. An error of `look`
/// ends the wait at once.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} in vain for {what}");
        }
        pause(PAUSE);
    }
}

/// Sleeps, on a thread of the test's own.
#[allow(clippy::disallowed_methods, reason = "tests run on threads of their own")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_what_was_found_or_says_what_was_missing() {
        let mut looks = 0;
        let found = until("three", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
        let error = until::<()>("rain", Duration::ZERO, || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("rain"));
        let error = until::<()>("rain", Duration::MAX / 4, || bail!("no sky")).unwrap_err();
        assert_eq!(error.to_string(), "no sky");
    }
}
