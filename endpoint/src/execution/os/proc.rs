//! Reads processes from `/proc`. Reads only; parsing is pure.
//!
//! A process that is gone by the time it is read is no error: it is left out.

use rustix::process::Pid;
use std::io;

/// An entry of `/proc/PID/stat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stat {
    /// The process.
    pub(crate) pid: Pid,
    /// Its parent; `None` outside of this process's PID namespace.
    pub(crate) parent: Option<Pid>,
    /// Its process group; `None` outside of this process's PID namespace.
    pub(crate) group: Option<Pid>,
    /// Whether it has ended and waits for its parent to take notice.
    pub(crate) zombie: bool,
    /// When it started, in clock ticks since boot. Together with `pid` it
    /// identifies a process for good.
    pub(crate) start: u64,
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold
        // anything, spaces and parentheses too.
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let pid = std::str::from_utf8(&text[..open]).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(&text[close + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let threads: u32 = fields.get(17)?.parse().ok()?;
        Some(Self {
            pid: Pid::from_raw(pid)?,
            parent: Pid::from_raw(fields.get(1)?.parse().ok()?),
            group: Pid::from_raw(fields.get(2)?.parse().ok()?),
            // A process with an ended first thread shows as a zombie while its other
            // threads run on.
            zombie: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Returns the id of this process.
pub(crate) fn own_pid() -> Option<Pid> {
    i32::try_from(std::process::id()).ok().and_then(Pid::from_raw)
}

/// Reads the process `pid`, if there is one.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    Stat::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Lists all processes.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn processes() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        found.extend(pid.and_then(stat));
    }
    Ok(found)
}

/// Reads the environment that `pid` was started with, as NUL-terminated entries;
/// empty for a zombie and for a process that may not be looked into.
pub(crate) fn environ(pid: Pid) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

/// Reads the soft limit of `pid` on real-time CPU time, in microseconds; `None` if
/// it has none or cannot be read.
pub(crate) fn realtime_limit(pid: Pid) -> Option<u64> {
    parse_realtime_limit(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn parse_realtime_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Lists the children of this process's first thread. The kernel makes every orphan
/// that falls to this process a child of that thread, so no orphan is missing
/// here; processes started by this process itself may be among them. New ones come
/// last: the list is whole if none is reaped meanwhile.
///
/// # Errors
/// The kernel was built without that file.
pub(crate) fn first_threads_children() -> io::Result<Vec<Pid>> {
    let own = std::process::id();
    let text = std::fs::read_to_string(format!("/proc/self/task/{own}/children"))?;
    Ok(text
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw))
        .collect())
}

/// Reads the most resident memory this process ever had, in bytes.
pub(crate) fn own_peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    memory(&status, "VmHWM:")
}

/// Reads the resident memory of `pid`, in bytes; `None` if it is gone.
pub(crate) fn resident_memory(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    memory(&status, "VmRSS:")
}

fn memory(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, state: &str, threads: u32) -> String {
        format!(
            "42 ({name}) {state} 7 40 40 0 -1 4194304 98 0 0 0 1 2 3 4 20 0 {threads} 0 12345 9 9"
        )
    }

    fn pid(raw: i32) -> Option<Pid> {
        Pid::from_raw(raw)
    }

    #[test]
    fn a_program_may_be_called_anything() {
        for name in ["sleep", "a b", ") Z 1 1", "((", ""] {
            let stat = Stat::parse(line(name, "S", 1).as_bytes()).unwrap();
            assert_eq!(stat.pid, pid(42).unwrap());
            assert_eq!((stat.parent, stat.group), (pid(7), pid(40)));
            assert_eq!((stat.zombie, stat.start), (false, 12345));
        }
    }

    #[test]
    fn a_zombie_with_running_threads_is_not_over() {
        let zombie = |threads| Stat::parse(line("x", "Z", threads).as_bytes()).unwrap().zombie;
        assert!(zombie(1));
        assert!(!zombie(2));
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in ["", "42", "42 (x", "42 (x) S 1", "x (x) S 1 1 1"] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_realtime_limit_is_a_number_or_none() {
        let limits = |value| {
            format!(
                "Max pending signals       9  9  signals\nMax realtime timeout      {value} unlimited  us\n"
            )
        };
        assert_eq!(parse_realtime_limit(&limits("4611686018427387905")), Some((1 << 62) + 1));
        assert_eq!(parse_realtime_limit(&limits("unlimited")), None);
        assert_eq!(parse_realtime_limit(""), None);
    }

    #[test]
    fn this_process_reads_itself() {
        let own = own_pid().unwrap();
        assert_eq!(stat(own).unwrap().pid, own);
        assert!(processes().unwrap().iter().any(|stat| stat.pid == own));
        assert!(own_peak_memory().unwrap() > 0);
        assert!(resident_memory(own).unwrap() > 0);
    }
}
