//! The sentences, each from the facts that are its cause.

use super::*;
use clutch_common::wire::Load;

const NOW: u64 = 100_000_000;

/// A task that the broker has, of an endpoint that is online and was just heard.
fn facts() -> WaitFacts {
    WaitFacts {
        now_ms: NOW,
        endpoint: "lab".to_owned(),
        placement: Placement::Placed,
        queue_exists: Some(true),
        consumed: Some(true),
        messages_waiting: Some(0),
        heard_at_ms: Some(NOW - 1000),
        cores: 1,
        ..WaitFacts::default()
    }
}

fn load(change: impl FnOnce(&mut Load)) -> Option<LiveLoad> {
    let mut load = Load { slots: 4, running: 4, ..Load::default() };
    change(&mut load);
    Some(LiveLoad { load, heard_at_ms: NOW, clock_ahead_ms: 0, stale: false })
}

fn live(phase: Phase) -> Option<LiveTask> {
    Some(LiveTask {
        attempt: 1,
        phase,
        since_ms: NOW,
        accepted_at_ms: None,
        progress: None,
        waits_for: None,
        waits: Vec::new(),
        heard_at_ms: NOW - 200_000,
        stale: false,
    })
}

/// Asserts the cause of these facts, and words of its sentence.
fn told(facts: &WaitFacts, cause: WaitCause, words: &[&str]) {
    let why = why(facts);
    assert_eq!(why.cause, cause, "{}", why.words);
    for word in words {
        assert!(why.words.contains(word), "'{word}' is not in: {}", why.words);
    }
}

#[test]
fn without_a_link_the_service_says_since_when_and_why() {
    let unlinked = Some((NOW - 3_700_000, "connection refused".to_owned()));
    let words = ["no link to the broker for 1 h 1 min", "connection refused", "doctor"];
    told(&WaitFacts { unlinked, ..facts() }, WaitCause::NoLink, &words);
}

#[test]
fn a_task_that_the_broker_does_not_have_is_told_with_the_broker_s_answer() {
    let placed = |placement| WaitFacts { placement, ..facts() };
    told(&placed(Placement::Returned), WaitCause::NoQueue, &["clutch-service provision lab"]);
    let gone = WaitFacts { queue_exists: Some(false), ..facts() };
    told(&gone, WaitCause::NoQueue, &["no queue for lab"]);
    let full = WaitFacts { messages_waiting: Some(7), ..placed(Placement::Refused) };
    told(&full, WaitCause::QueueFull, &["is full", "7 messages"]);
    told(&placed(Placement::OnItsWay), WaitCause::Submitting, &["not confirmed"]);
    let retry_at_ms = Some(NOW + 90_000);
    let retry = WaitFacts { retry_at_ms, ..placed(Placement::OnItsWay) };
    told(&retry, WaitCause::RetryPause, &["the next one starts in 1 min 30 s"]);
}

#[test]
fn an_endpoint_that_is_not_there_is_told_as_what_it_is() {
    let never = WaitFacts { heard_at_ms: None, consumed: Some(false), ..facts() };
    told(&never, WaitCause::NeverSeen, &["never seen", "clutch-endpoint run"]);
    let offline =
        WaitFacts { consumed: Some(false), heard_at_ms: Some(NOW - 86_400_000), ..facts() };
    told(&offline, WaitCause::Offline, &["offline", "1 d ago"]);
    let standby = WaitFacts { standby_only: true, ..offline.clone() };
    told(&standby, WaitCause::StandbyOnly, &["only a standby of lab"]);
    let unread = WaitFacts { consumed: None, messages_waiting: Some(2), ..offline };
    told(&unread, WaitCause::Offline, &["offline"]);
    let unread = WaitFacts { heard_at_ms: Some(NOW - 1000), tasks_ahead: 2, ..unread };
    told(&unread, WaitCause::TasksAhead, &[]);
}

#[test]
fn a_drain_is_told_by_where_it_was_asked_for() {
    let drained_since_ms = Some(NOW - 5000);
    let words = ["draining for 5 s", "endpoint resume lab"];
    told(&WaitFacts { drained_since_ms, ..facts() }, WaitCause::Draining, &words);
    let load = load(|load| load.draining = true);
    let drained = WaitFacts { load, ..facts() };
    told(&drained, WaitCause::Draining, &["clutch-endpoint resume"]);
    // What it told before it went away may not be so any more.
    told(&WaitFacts { consumed: Some(false), ..drained }, WaitCause::Offline, &["lab is offline"]);
}

#[test]
fn the_endpoint_s_own_troubles_come_before_the_queue() {
    let disk = load(|load| load.troubles = vec!["disk full: 3 MiB left in /var".to_owned()]);
    let full = WaitFacts { load: disk, tasks_ahead: 3, ..facts() };
    told(&full, WaitCause::DiskFull, &["lab says: disk full: 3 MiB left in /var"]);
    let workers = load(|load| {
        let troubles = ["function a.b: its workers end before they are ready", "function a: ok"];
        load.troubles = troubles.map(str::to_owned).to_vec();
    });
    let function = Some("a.b".to_owned());
    let call = WaitFacts { load: workers.clone(), function, ..facts() };
    told(&call, WaitCause::Workers, &["function a.b: its workers end"]);
    told(&WaitFacts { load: workers, ..facts() }, WaitCause::SlotsBusy, &[]);
    let mut waits = WaitFacts { live: live(Phase::Accepted), ..call };
    waits.live.as_mut().unwrap().waits_for = Some("for a worker of 'a.b' to start".to_owned());
    let words = ["lab says that it waits for a worker of 'a.b' to start (function a.b: its"];
    told(&waits, WaitCause::Workers, &words);
    let inbox = load(|load| (load.inbox_full, load.accepted) = (true, 9));
    told(&WaitFacts { load: inbox, ..facts() }, WaitCause::InboxFull, &["9 tasks"]);
}

#[test]
fn a_task_that_waits_its_turn_says_how_long_the_line_is() {
    let behind = WaitFacts { tasks_ahead: 214, messages_waiting: Some(3), ..facts() };
    told(&behind, WaitCause::TasksAhead, &["214 tasks are ahead of it in the queue of lab"]);
    let one = WaitFacts { tasks_ahead: 1, load: load(|_| ()), ..behind };
    told(&one, WaitCause::TasksAhead, &["1 task is ahead", "runs 4 of 4 slots"]);
    let busy = WaitFacts { load: load(|_| ()), live: live(Phase::Accepted), ..facts() };
    told(&busy, WaitCause::SlotsBusy, &["4 of 4 slots of lab are busy"]);
    let until = WaitFacts { slot_free_at_ms: Some(NOW + 60_000), ..busy };
    told(&until, WaitCause::SlotsBusy, &["until about 1970-01-02T03:47:40Z"]);
    told(&facts(), WaitCause::AboutToStart, &["longer than a second"]);
}

#[test]
fn a_task_that_takes_several_slots_says_how_many_there_are() {
    let wide = WaitFacts { cores: 8, slots: Some(4), consumed: Some(false), ..facts() };
    told(&wide, WaitCause::NeedsCores, &["needs 8 cores, and lab has 4 slots: it is rejected"]);
    let grown = WaitFacts { load: load(|load| load.slots = 8), ..wide };
    told(&grown, WaitCause::Offline, &[]);
    let busy = load(|load| (load.running, load.slots_used) = (1, 2));
    let next = WaitFacts { cores: 4, load: busy, live: live(Phase::Accepted), ..facts() };
    told(&next, WaitCause::SlotsBusy, &["takes 4 slots of lab, and 2 of 4 are busy"]);
    told(&WaitFacts { cores: 2, ..next }, WaitCause::AboutToStart, &[]);
    let busy = load(|load| (load.running, load.slots_used) = (2, 4));
    let narrow = WaitFacts { load: busy, live: live(Phase::Accepted), ..facts() };
    told(&narrow, WaitCause::SlotsBusy, &[]);
}

#[test]
fn an_expiry_that_is_near_is_told_with_any_other_cause() {
    let soon = WaitFacts { expires_at_ms: Some(NOW + 61_000), ..facts() };
    told(&soon, WaitCause::ExpiresSoon, &["it expires in 1 min 1 s"]);
    let offline = WaitFacts { consumed: Some(false), ..soon };
    told(&offline, WaitCause::Offline, &["offline", "; it expires in 1 min 1 s"]);
    let past = WaitFacts { expires_at_ms: Some(NOW - 1), ..offline };
    told(&past, WaitCause::Offline, &["it has expired"]);
    let late = WaitFacts { expires_at_ms: Some(NOW + 86_400_000), ..facts() };
    told(&late, WaitCause::AboutToStart, &[]);
}

#[test]
fn a_task_in_doubt_says_whether_its_endpoint_was_asked() {
    let asked = |asked| WaitFacts { asked: Some(asked), ..facts() };
    told(&asked((None, None)), WaitCause::InDoubt, &["another instance of lab may still have it"]);
    told(&asked((Some(NOW - 20_000), None)), WaitCause::InDoubt, &["20 s ago", "not answered"]);
    told(&asked((Some(NOW - 1000), None)), WaitCause::InDoubt, &["was just asked"]);
    told(&asked((Some(NOW - 1000), Some(NOW))), WaitCause::AboutToStart, &[]);
}

#[test]
fn a_cancellation_that_is_not_answered_is_told_first() {
    let cancelled = WaitFacts { cancel_requested_ms: Some(NOW - 3000), ..facts() };
    told(&cancelled, WaitCause::CancelRequested, &["3 s ago", "has not answered"]);
    let running = WaitFacts { live: live(Phase::Running), ..cancelled };
    told(&running, WaitCause::CancelRequested, &[]);
    told(&WaitFacts { consumed: Some(false), ..running }, WaitCause::CancelRequested, &["offline"]);
}

#[test]
fn a_task_that_runs_says_so_and_when_that_may_be_old() {
    let running = WaitFacts { live: live(Phase::Running), tasks_ahead: 9, ..facts() };
    told(&running, WaitCause::Running, &["it runs at lab"]);
    let away = WaitFacts { consumed: Some(false), ..running.clone() };
    told(&away, WaitCause::Running, &["3 min 20 s ago", "it is offline"]);
    let mut stale = running;
    stale.live.as_mut().unwrap().stale = true;
    told(&stale, WaitCause::Running, &["3 min 20 s ago", "told nothing since"]);
}
