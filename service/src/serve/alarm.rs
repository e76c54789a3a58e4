//! An alarm by the wall clock: it rings at a moment, and when the clock is set.
//!
//! Touches: one timer of the kernel. Promises: an alarm that is set for a moment rings at that
//! moment by the wall clock, however the clock is set meanwhile and however long the machine
//! sleeps; one that is not set never rings. It may ring early: the caller looks at the clock.

use clutch_common::system::clock::now_ms;
use rustix::io::{Errno, read};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The longest sleep, in milliseconds, where the kernel does not tell that the clock was set.
const LONGEST_BLIND_MS: u64 = 60_000;

/// The alarm.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    #[allow(
        deprecated,
        reason = "its successor is unsafe; what that guards against, a descriptor closed or replaced meanwhile, an OwnedFd never does"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        Ok(Self { timer: AsyncFd::with_interest(timer, Interest::READABLE)? })
    }

    /// Returns at a moment, in milliseconds since the Unix epoch, or earlier; never if none is
    /// given.
    pub(super) async fn ring(&self, at_ms: Option<u64>) -> io::Result<()> {
        let Some(at_ms) = at_ms else { return std::future::pending().await };
        if !self.set(at_ms)? {
            return Ok(());
        }
        loop {
            let mut ready = self.timer.readable().await?;
            let mut count = [0; 8];
            match read(self.timer.get_ref(), &mut count) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                // It is cancelled when the clock was set.
                Ok(_) | Err(Errno::CANCELED) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sets the timer; returns whether it is to be waited for.
    fn set(&self, at_ms: u64) -> io::Result<bool> {
        let told = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let timer = self.timer.get_ref();
        match timerfd_settime(timer, told, &once(by_kernel(at_ms))) {
            Ok(_) => Ok(true),
            Err(Errno::CANCELED) => Ok(false),
            Err(Errno::INVAL) => {
                let at_ms = at_ms.min(now_ms().saturating_add(LONGEST_BLIND_MS));
                timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once(by_kernel(at_ms)))?;
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A moment by the kernel's clock: it differs from the clock that this process is shown where
/// that one is faked.
fn by_kernel(at_ms: u64) -> u64 {
    let kernel = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(kernel.tv_sec).unwrap_or(0);
    let kernel_ms = seconds.saturating_mul(1000) + kernel.tv_nsec.unsigned_abs() / 1_000_000;
    let ahead = i128::from(kernel_ms) - i128::from(now_ms());
    // The two are read one after the other.
    let ahead = if ahead.abs() <= 1 { 0 } else { ahead };
    u64::try_from(i128::from(at_ms) + ahead).unwrap_or(0)
}

fn once(at_ms: u64) -> Itimerspec {
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A moment of 0 would mean that the timer is off.
    let at_ms = at_ms.max(1);
    let at = Timespec {
        tv_sec: i64::try_from(at_ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(at_ms % 1000).unwrap_or(0) * 1_000_000,
    };
    Itimerspec { it_interval: none, it_value: at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_rings_at_its_moment_and_again_and_not_if_it_is_not_set() {
        let alarm = Alarm::new().unwrap();
        for after in [30, 0, 20] {
            let at = now_ms() + after;
            alarm.ring(Some(at)).await.unwrap();
            assert!(now_ms() >= at);
        }
        alarm.ring(Some(0)).await.unwrap();
        let far = now_ms() + 50 * 365 * 24 * 60 * 60 * 1000;
        for never in [Some(far), None] {
            let ring = tokio::time::timeout(Duration::from_millis(20), alarm.ring(never));
            assert!(ring.await.is_err(), "{never:?}");
        }
    }
}
