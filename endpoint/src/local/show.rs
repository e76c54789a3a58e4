//! The answers of the daemon, in words for people. Pure.

use super::types::{DrainView, LinkState, Phase, Status, TaskView, Tasks};
use clutch_common::text::counted::counted;
use clutch_common::text::printable;
use clutch_common::wire::Role;
use std::time::{Duration, UNIX_EPOCH};

/// A moment, as the service's commands show it.
fn moment(ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A duration in whole seconds.
fn seconds(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms / 1000)).to_string()
}

/// Lines of a name and a value.
fn lines(lines: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let line = |(name, value)| format!("{}\n", printable::lines(&format!("{name:<12} {value}")));
    lines.into_iter().map(line).collect()
}

/// How the daemon and its link are.
pub(super) fn status(status: &Status) -> String {
    let ago = |since: u64| seconds(status.now_ms.saturating_sub(since));
    let mut found = vec![
        ("endpoint", format!("{} ({})", status.name, status.endpoint_id)),
        ("link", link(status)),
    ];
    found.extend(status.link.fault.clone().map(|fault| ("", fault)));
    found.extend(status.link.advice.clone().map(|advice| ("", advice)));
    found.extend(status.role.map(|role| {
        let role = match role {
            Role::Active => "active: it reads the endpoint's tasks",
            Role::Standby => "standby: another instance reads the endpoint's tasks",
        };
        ("role", role.to_owned())
    }));
    found.extend(drains(status).into_iter().map(|drain| ("draining", drain)));
    let waiting = status.accepted.saturating_sub(status.running);
    let (used, slots) = (status.slots_used, counted(status.slots as u64, "slot"));
    found.push(("tasks", format!("{used} of {slots} in use, {waiting} waiting")));
    found.push(("results", format!("{} not delivered", status.undelivered)));
    found.extend(status.functions.iter().map(|function| {
        let (name, most) = (&function.name, counted(function.at_most as u64, "worker"));
        let (busy, idle) = (function.busy, function.idle);
        ("function", format!("{name}: at most {most}; {busy} busy, {idle} idle"))
    }));
    found.extend(status.troubles.iter().map(|words| ("trouble", words.clone())));
    found.extend((status.passed_by > 0).then(|| {
        let messages = counted(status.passed_by, "message");
        ("passed by", format!("{messages} that this version does not know; upgrade the endpoint"))
    }));
    found.push(("state", format!("{} ({})", status.state.display(), status.state_id)));
    let free = status.disk_free_bytes.map(|bytes| format!("{} MiB free", bytes >> 20));
    found.push(("disk", free.unwrap_or_else(|| "its free space cannot be read".to_owned())));
    let (pid, since) = (status.pid, moment(status.started_at_ms));
    found.push(("process", format!("{pid}, for {} (since {since})", ago(status.started_at_ms))));
    found.push(("version", status.version.clone()));
    lines(found)
}

fn link(status: &Status) -> String {
    let link = &status.link;
    let since = format!(
        "for {} (since {})",
        seconds(status.now_ms.saturating_sub(link.since_ms)),
        moment(link.since_ms)
    );
    let address = &link.address;
    let next = |at: u64| format!(", next try in {}", seconds(at.saturating_sub(status.now_ms)));
    match link.state {
        LinkState::Connecting => format!("connecting to {address} {since}"),
        LinkState::Engaged => format!("engaged with {address} {since}"),
        LinkState::StandingBy => format!("standing by at {address} {since}"),
        LinkState::Disengaged => {
            let next = link.next_try_ms.map(next).unwrap_or_default();
            format!("disengaged from {address} {since}{next}")
        }
    }
}

/// The drains in force, and how each is ended.
fn drains(status: &Status) -> Vec<String> {
    let words = |by: &str, drain: &DrainView, end: &str| {
        let deadline = drain.deadline_ms.map_or_else(String::new, |at| {
            format!("; tasks that still run are stopped at {}", moment(at))
        });
        format!("by {by}{deadline}; `{end}` ends it")
    };
    let name = &status.name;
    let service = status.drains.service.as_ref().map(|drain| {
        words("the service", drain, &format!("clutch-service endpoint resume {name}"))
    });
    let local = status.drains.local.as_ref();
    let local =
        local.map(|drain| words("a command on this machine", drain, "clutch-endpoint resume"));
    service.into_iter().chain(local).collect()
}

/// The tasks that are accepted and not finished, one a line.
pub(super) fn tasks(tasks: &Tasks, now_ms: u64) -> String {
    if tasks.tasks.is_empty() && tasks.more == 0 {
        return "no task is accepted\n".to_owned();
    }
    let mut text = format!(
        "{:<36} {:>7} {:<8} {:>10} {:>10} {:>8}  {}\n",
        "TASK", "ATTEMPT", "PHASE", "FOR", "LEFT", "PID", "NAME OR WORK, AND WHY IT WAITS"
    );
    for task in &tasks.tasks {
        text.push_str(&line(task, now_ms));
        text.push('\n');
    }
    if tasks.more > 0 {
        let more = counted(tasks.more as u64, "more task");
        text.push_str(&format!("and {more}: see --limit\n"));
    }
    text
}

fn line(task: &TaskView, now_ms: u64) -> String {
    let phase = match task.phase {
        Phase::Waiting => "waiting",
        Phase::Starting => "starting",
        Phase::Running => "running",
    };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let since = or_none(task.since_ms.map(|since| seconds(now_ms.saturating_sub(since))));
    let left = or_none(task.walltime_left_ms.map(seconds));
    let pid = or_none(task.pid.map(|pid| pid.to_string()));
    let work = task.name.as_ref().unwrap_or(&task.work);
    let why = task.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let (id, work) = (task.id(), printable::lines(&format!("{work}{why}")).replace('\n', " "));
    format!(
        "{:<36} {:>7} {phase:<8} {since:>10} {left:>10} {pid:>8}  {work}",
        id.task_id.to_string(),
        id.attempt
    )
}

/// The outcome of a drain.
pub(super) fn drained(status: &Status) -> String {
    let waiting = status.accepted.saturating_sub(status.running);
    let (running, waiting) =
        (counted(status.running as u64, "task"), counted(waiting as u64, "task"));
    let mut text = format!(
        "drained: no task is started or read until `clutch-endpoint resume`, also after a restart\n\
         {running} still running, {waiting} waiting here, {} not delivered\n",
        counted(status.undelivered, "result")
    );
    if let Some(at) = status.drains.local.as_ref().and_then(|drain| drain.deadline_ms) {
        text.push_str(&format!("tasks that still run are stopped at {}\n", moment(at)));
    }
    text
}

/// The outcome of a resume.
pub(super) fn resumed(status: &Status) -> String {
    match drains(status).as_slice() {
        [] => "resumed: tasks are read and started\n".to_owned(),
        [drain, ..] => format!("resumed here, and still drained {drain}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{DrainsView, Function, LinkView};
    use super::*;
    use clutch_common::id::{EndpointId, StateId, TaskId};

    fn found() -> Status {
        Status {
            version: "1.2.3".to_owned(),
            pid: 7,
            endpoint_id: EndpointId::new(),
            name: "lab".to_owned(),
            state: "/s".into(),
            state_id: StateId::new(),
            started_at_ms: 1_000,
            now_ms: 61_000,
            link: LinkView {
                state: LinkState::Disengaged,
                since_ms: 31_000,
                address: "host:5672".to_owned(),
                fault: Some("connection refused".to_owned()),
                advice: Some("is the broker running?".to_owned()),
                next_try_ms: Some(66_000),
            },
            role: None,
            slots: 4,
            slots_used: 3,
            running: 1,
            accepted: 3,
            undelivered: 9,
            disk_free_bytes: Some(5 << 20),
            drains: DrainsView::default(),
            functions: vec![Function { name: "add".to_owned(), at_most: 2, idle: 1, busy: 0 }],
            troubles: vec!["disk full: make room".to_owned()],
            passed_by: 0,
        }
    }

    #[test]
    fn a_link_that_is_down_says_since_when_why_and_when_it_is_tried_again() {
        let text = status(&found());
        for words in [
            "disengaged from host:5672 for 30s",
            "next try in 5s",
            "connection refused",
            "is the broker running?",
            "3 of 4 slots in use, 2 waiting",
            "9 not delivered",
            "add: at most 2 workers; 0 busy, 1 idle",
            "5 MiB free",
            "disk full: make room",
            "7, for 1m",
        ] {
            assert!(text.contains(words), "no '{words}' in:\n{text}");
        }
        assert!(!text.contains("passed by") && !text.contains("draining"), "{text}");
    }

    #[test]
    fn a_drain_says_by_whom_and_how_it_ends() {
        let service = Some(DrainView::default());
        let local = Some(DrainView { deadline_ms: Some(90_000) });
        let both = Status { drains: DrainsView { service: service.clone(), local }, ..found() };
        let text = status(&both);
        assert!(text.contains("by the service; `clutch-service endpoint resume lab`"), "{text}");
        assert!(text.contains("are stopped at 1970-01-01T00:01:30Z"), "{text}");
        assert!(drained(&both).contains("1 task still running, 2 tasks waiting"));
        let left = Status { drains: DrainsView { service, local: None }, ..found() };
        assert!(resumed(&left).contains("still drained by the service"));
        assert_eq!(resumed(&found()), "resumed: tasks are read and started\n");
    }

    #[test]
    fn a_task_says_how_long_it_runs_or_why_it_waits() {
        let task = TaskView {
            task_id: TaskId::new(),
            attempt: 2,
            name: None,
            work: "sleep\n60".to_owned(),
            phase: Phase::Running,
            since_ms: Some(1_000),
            walltime_left_ms: Some(30_000),
            pid: Some(99),
            why: None,
        };
        let shown = line(&task, 21_000);
        assert!(shown.contains("running") && shown.contains("20s") && shown.contains("30s"));
        assert!(shown.contains("99  sleep 60"), "{shown}");
        let why = Some("all slots are in use".to_owned());
        let waits = TaskView { phase: Phase::Waiting, since_ms: None, pid: None, why, ..task };
        let text = tasks(&Tasks { tasks: vec![waits], more: 3 }, 21_000);
        assert!(text.contains(": all slots are in use") && text.contains("3 more tasks"), "{text}");
        assert_eq!(tasks(&Tasks { tasks: vec![], more: 0 }, 0), "no task is accepted\n");
    }
}
