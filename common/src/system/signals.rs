//! Handles the signals of a daemon: some stop it in order, and the others do nothing.
//!
//! Touches the handlers of this process. Promises that no signal but `KILL` ends it that a
//! user can send by mistake; and that its children have every signal as it is by default,
//! since a handler, unlike "ignore", is not passed on.

use futures_util::future::{FutureExt as _, select_all};
use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::ops::RangeInclusive;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// `TERM`, `INT` and `QUIT`, which ask for a stop as often as they come.
const STOP: [SignalKind; 3] =
    [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
/// By Linux's numbers on all but a few machines: `USR1`, `USR2`, `ALRM`, `STKFLT`, `XCPU`,
/// `XFSZ`, `VTALRM`, `PROF`, `IO`, `PWR`. They end a process that does nothing about them.
const HARMLESS: [i32; 10] = [10, 12, 14, 16, 24, 25, 26, 27, 29, 30];
/// Those that programs give a meaning of their own.
const REAL_TIME: RangeInclusive<i32> = 34..=64;
/// A write to a pipe without a reader. Rust ignores it, and passes it on as it is by
/// default.
const PIPE: i32 = 13;

/// The request that a signal stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To stop.
    Stop,
    /// To read the configuration again: `HUP` from a person or a service manager.
    Reload,
}

/// The signals that stop a daemon in order.
#[derive(Debug)]
pub struct StopSignals {
    stop: Vec<Signal>,
    hangup: Signal,
    /// Whether a closed terminal stops nothing (any more): `HUP` was ignored at the start, as
    /// under `nohup`, or has been told. A closed terminal says so more than once.
    stays: bool,
    /// Whether there was a terminal that can be closed.
    terminal: bool,
}

impl StopSignals {
    /// Handles all signals, from here on to the end of the process. To be called within a
    /// tokio runtime.
    pub fn install() -> io::Result<Self> {
        let ignored = ignored();
        let handled = HARMLESS.into_iter().chain(REAL_TIME);
        for number in handled.chain(ignored.iter().copied().filter(|number| *number != PIPE)) {
            // What may not be handled, or is none, is no signal that could do harm.
            drop(signal(SignalKind::from_raw(number)));
        }
        let hangup = signal(SignalKind::hangup())?;
        let kept = !ignored.contains(&SignalKind::hangup().as_raw_value());
        let stop = STOP.into_iter().map(signal).collect::<io::Result<_>>()?;
        Ok(Self { stop, hangup, stays: !kept, terminal: has_terminal() })
    }

    /// Waits for the next one. `HUP` counts once.
    pub async fn next(&mut self) {
        while self.is_hangup().await {
            if !std::mem::replace(&mut self.stays, true) {
                return;
            }
        }
    }

    /// Waits for the next one, or for `HUP` from a person or a service manager. The kernel
    /// and the shells send `HUP` when a terminal is closed; then the process has lost its
    /// terminal before. So it asks for a stop, once, if this process had a terminal and has
    /// none any more; otherwise it asks for a reload.
    pub async fn next_or_reload(&mut self) -> Asked {
        loop {
            if !self.is_hangup().await {
                return Asked::Stop;
            }
            if !self.terminal || has_terminal() {
                return Asked::Reload;
            }
            if !std::mem::replace(&mut self.stays, true) {
                return Asked::Stop;
            }
        }
    }

    /// Waits for a signal that asks for a stop, whatever else comes.
    pub async fn stop(&mut self) {
        while self.next_or_reload().await == Asked::Reload {}
    }

    /// Waits for the next one; whether it is `HUP`.
    async fn is_hangup(&mut self) -> bool {
        let stop = self.stop.iter_mut().map(|signal| signal.recv().map(|_| false).boxed());
        let hangup = std::iter::once(self.hangup.recv().map(|_| true).boxed());
        select_all(stop.chain(hangup)).await.0
    }
}

/// Whether this process has a terminal that signals come from when it is closed.
fn has_terminal() -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open("/dev/tty", flags, Mode::empty()).is_ok()
}

/// The signals that this process ignores, as it was started.
fn ignored() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    numbers(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}

/// The signals in a mask.
fn numbers(mask: u64) -> Vec<i32> {
    (1..=64).filter(|number| mask >> (number - 1) & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal as Number, getpid, kill_process};
    use std::time::Duration;

    #[test]
    fn a_mask_is_read_as_the_kernel_writes_it() {
        assert_eq!(numbers(0), Vec::<i32>::new());
        assert_eq!(numbers(0x1001), [1, 13]);
        assert_eq!(numbers(1 << 63), [64]);
    }

    /// Signals are the whole process's: all in one test.
    #[tokio::test]
    async fn some_stop_and_others_do_nothing() {
        let mut signals = StopSignals::install().unwrap();
        let own: Pid = getpid();
        let send = |number: Number| kill_process(own, number).unwrap();
        for harmless in [Number::USR1, Number::USR2, Number::ALARM, Number::PROF, Number::XFSZ] {
            send(harmless);
        }
        let early = tokio::time::timeout(Duration::from_millis(50), signals.next()).await;
        assert!(early.is_err(), "one of them stopped it");
        let long = Duration::from_secs(60);
        for number in [Number::TERM, Number::QUIT, Number::INT, Number::HUP] {
            send(number);
            tokio::time::timeout(long, signals.next()).await.unwrap();
        }
        send(Number::HUP);
        let again = tokio::time::timeout(Duration::from_millis(50), signals.next()).await;
        assert!(again.is_err(), "a closed terminal was a second signal");
        // As for a daemon that never had one, whatever these tests run under.
        signals.terminal = false;
        for number in [Number::HUP, Number::HUP] {
            send(number);
            let asked = tokio::time::timeout(long, signals.next_or_reload()).await.unwrap();
            assert_eq!(asked, Asked::Reload);
        }
        send(Number::TERM);
        let asked = tokio::time::timeout(long, signals.next_or_reload()).await.unwrap();
        assert_eq!(asked, Asked::Stop);
    }
}
