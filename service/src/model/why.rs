//! Why a task has no outcome yet: one sentence from facts. Pure.
//!
//! The causes are tried in the order in which a task meets them on its way: the service's
//! link, the queue, the endpoint, and the task's own turn there. The first that holds is
//! told, with the thing to do where there is something, and the expiry if that is near.

mod cause;
mod topic;

use super::{LiveLoad, LiveTask};
pub(crate) use cause::{WaitCause, Why};
use clutch_common::text::counted::counted;
use clutch_common::wire::Phase;
pub(crate) use topic::{TopicCandidate, TopicFacts, unplaced_why};

/// A task that expires within this time is told to.
const EXPIRES_SOON_MS: u64 = 10 * 60 * 1000;
/// An endpoint that reads nothing and was not heard for this long is taken for offline.
const SILENT_MS: u64 = 90_000;
/// An endpoint that was asked this long ago and did not answer is told of.
const ANSWER_WITHIN_MS: u64 = 10_000;

/// How far the service has come with a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It is recorded, and not handed to the link or not answered.
    #[default]
    OnItsWay,
    /// The broker had no queue for it.
    Returned,
    /// The broker's queue was full.
    Refused,
    /// The broker has it.
    Placed,
}

/// The facts about a task without an outcome. Times are in milliseconds since the Unix epoch,
/// by the service's clock unless said otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct WaitFacts {
    /// The present.
    pub(crate) now_ms: u64,
    /// The endpoint's name.
    pub(crate) endpoint: String,
    /// Since when the service has no link, and the fault; nothing if it has one.
    pub(crate) unlinked: Option<(u64, String)>,
    /// When it is due, if it is scheduled.
    pub(crate) due_at_ms: Option<u64>,
    /// How far the service has come with it.
    pub(crate) placement: Placement,
    /// How far it is in its topic, if it was submitted to one.
    pub(crate) topic: Option<TopicFacts>,
    /// When its next attempt is due, if a retry waits for that.
    pub(crate) retry_at_ms: Option<u64>,
    /// When its cancellation was requested, if it was.
    pub(crate) cancel_requested_ms: Option<u64>,
    /// Whether the broker has the endpoint's task queue; nothing if it did not tell.
    pub(crate) queue_exists: Option<bool>,
    /// Whether an instance reads the endpoint's queues; nothing if the broker did not tell.
    pub(crate) consumed: Option<bool>,
    /// How many messages wait in the task queue; nothing if the broker did not tell.
    pub(crate) messages_waiting: Option<u64>,
    /// How many tasks at the endpoint's queue are ahead of this one: of its priority and before
    /// it, or of a higher one.
    pub(crate) tasks_ahead: u64,
    /// When the endpoint was heard last; nothing if it never was.
    pub(crate) heard_at_ms: Option<u64>,
    /// Whether the instances that are known all stand by.
    pub(crate) standby_only: bool,
    /// Since when the service has the endpoint drain, if it does.
    pub(crate) drained_since_ms: Option<u64>,
    /// The endpoint's last load.
    pub(crate) load: Option<LiveLoad>,
    /// The task, as its endpoint told of it last.
    pub(crate) live: Option<LiveTask>,
    /// When slots are expected to be free, by the walltimes of the tasks in them.
    pub(crate) slot_free_at_ms: Option<u64>,
    /// How many slots it takes.
    pub(crate) cores: u64,
    /// How many slots the endpoint's instance told of last.
    pub(crate) slots: Option<u64>,
    /// The function that it calls.
    pub(crate) function: Option<String>,
    /// When it expires.
    pub(crate) expires_at_ms: Option<u64>,
    /// If it may be lost: when its endpoint was asked for it last, and when that answered.
    pub(crate) asked: Option<(Option<u64>, Option<u64>)>,
}

/// Says why a task has no outcome yet.
#[must_use]
pub(crate) fn why(facts: &WaitFacts) -> Why {
    if let Some((cause, words)) = running(facts) {
        return Why { cause, words };
    }
    let told = [
        scheduled,
        cancelling,
        unlinked,
        topic::unplaced,
        unplaced,
        in_doubt,
        too_wide,
        topic::unclaimed,
        draining,
        absent,
        troubled,
        inbox_full,
        behind,
        busy,
    ];
    let found = told.iter().find_map(|told| told(facts));
    let (cause, words) = match (found, expiry(facts)) {
        (Some((cause, words)), Some(expiry)) => (cause, format!("{words}; {expiry}")),
        (Some(told), None) => told,
        (None, Some(expiry)) => {
            (WaitCause::ExpiresSoon, format!("{} has not started it, and {expiry}", facts.endpoint))
        }
        (None, None) => about_to_start(facts),
    };
    Why { cause, words }
}

type CauseWords = Option<(WaitCause, String)>;

fn running(facts: &WaitFacts) -> CauseWords {
    let live = facts.live.as_ref().filter(|live| live.phase == Phase::Running)?;
    if facts.cancel_requested_ms.is_some() {
        return None;
    }
    let mut words = format!("it runs at {}", facts.endpoint);
    let told = || format!(", by what the endpoint told last, {}", ago(facts, live.heard_at_ms));
    if facts.consumed == Some(false) {
        words += &format!("{}; it is offline: its results come once it is back", told());
    } else if live.stale {
        words += &format!("{}; it has told nothing since: look at its host and its log", told());
    }
    Some((WaitCause::Running, words))
}

fn scheduled(facts: &WaitFacts) -> CauseWords {
    let due = facts.due_at_ms?;
    let words = match due.checked_sub(facts.now_ms) {
        Some(left) if left >= 1000 => format!("in {}", span(left)),
        _ => "at any moment".to_owned(),
    };
    Some((WaitCause::Scheduled, format!("scheduled for {}, {words}", super::moment(due))))
}

fn cancelling(facts: &WaitFacts) -> CauseWords {
    let requested = facts.cancel_requested_ms?;
    let offline = facts.consumed == Some(false);
    let then = if offline {
        "the endpoint is offline, and is told before anything else when it is back"
    } else {
        "the endpoint has not answered yet"
    };
    Some((
        WaitCause::CancelRequested,
        format!("its cancellation was requested {}: {then}", ago(facts, requested)),
    ))
}

fn unlinked(facts: &WaitFacts) -> CauseWords {
    let (since, fault) = facts.unlinked.as_ref()?;
    Some((
        WaitCause::NoLink,
        format!(
            "the service has had no link to the broker for {} ({fault}): `clutch-service doctor` \
             checks the broker",
            span(facts.now_ms.saturating_sub(*since))
        ),
    ))
}

fn unplaced(facts: &WaitFacts) -> CauseWords {
    let endpoint = &facts.endpoint;
    if facts.queue_exists == Some(false) || facts.placement == Placement::Returned {
        return Some((
            WaitCause::NoQueue,
            format!(
                "the broker has no queue for {endpoint}: `clutch-service provision {endpoint}` \
                 declares it"
            ),
        ));
    }
    match facts.placement {
        Placement::Placed => None,
        Placement::Refused => Some((
            WaitCause::QueueFull,
            format!(
                "the broker's queue for {endpoint} is full: the task is placed once the endpoint has \
                 read some of the {} in it",
                counted(facts.messages_waiting.unwrap_or(0), "message")
            ),
        )),
        Placement::OnItsWay | Placement::Returned => {
            Some(retry_pause(facts).unwrap_or_else(|| {
                (
                WaitCause::Submitting,
                "the broker has not confirmed it yet; if that lasts, look whether its memory or \
                 disk is short"
                    .to_owned(),
            )
            }))
        }
    }
}

fn retry_pause(facts: &WaitFacts) -> CauseWords {
    let left = facts.retry_at_ms?.checked_sub(facts.now_ms).filter(|left| *left > 0)?;
    let words =
        format!("its last attempt did not succeed, and the next one starts in {}", span(left));
    Some((WaitCause::RetryPause, words))
}

fn in_doubt(facts: &WaitFacts) -> CauseWords {
    let (asked, answered) = facts.asked?;
    if answered.is_some() || facts.live.as_ref().is_some_and(|live| !live.stale) {
        return None;
    }
    let endpoint = &facts.endpoint;
    let words = match asked {
        Some(at) if facts.now_ms.saturating_sub(at) < ANSWER_WITHIN_MS => {
            format!("it may be lost, and {endpoint} was just asked for it")
        }
        Some(at) => format!(
            "it may be lost: {endpoint} was asked for it {} and has not answered; it runs again \
             once the endpoint says that it does not have it",
            ago(facts, at)
        ),
        None => format!(
            "another instance of {endpoint} may still have it: it runs again once an instance has \
             said that it does not have it, or the other one is given up"
        ),
    };
    Some((WaitCause::InDoubt, words))
}

fn absent(facts: &WaitFacts) -> CauseWords {
    let endpoint = &facts.endpoint;
    let consumed = facts.consumed == Some(true);
    let Some(heard) = facts.heard_at_ms else {
        if consumed {
            return None;
        }
        return Some((
            WaitCause::NeverSeen,
            format!(
                "{endpoint} was never seen: start `clutch-endpoint run` on its host, with the \
                 endpoint.toml that `clutch-service provision` wrote"
            ),
        ));
    };
    if facts.standby_only && !consumed {
        return Some((
            WaitCause::StandbyOnly,
            format!(
                "only a standby of {endpoint} is there, and it takes over once the broker has let \
                 go of the lease of the instance before"
            ),
        ));
    }
    // Where a link cannot tell how many consume a queue, messages that wait in it tell.
    let unread = facts.messages_waiting.is_some_and(|messages| messages > 0)
        && fresh(facts).is_none()
        && facts.now_ms.saturating_sub(heard) > SILENT_MS;
    (facts.consumed == Some(false) || (facts.consumed.is_none() && unread)).then(|| {
        (
            WaitCause::Offline,
            format!(
                "{endpoint} is offline, and was heard last {}: start it, or look at its log",
                ago(facts, heard)
            ),
        )
    })
}

fn draining(facts: &WaitFacts) -> CauseWords {
    let endpoint = &facts.endpoint;
    if let Some(since) = facts.drained_since_ms {
        return Some((
            WaitCause::Draining,
            format!(
                "{endpoint} has been draining for {}, as it was asked: `clutch-service endpoint \
                 resume {endpoint}` lets it start tasks again",
                span(facts.now_ms.saturating_sub(since))
            ),
        ));
    }
    let load = fresh(facts)?;
    load.load.draining.then(|| {
        (
            WaitCause::Draining,
            format!(
                "{endpoint} is draining: `clutch-service endpoint resume {endpoint}` lets it start \
                 tasks again, or `clutch-endpoint resume` on its host if it was drained there"
            ),
        )
    })
}

fn troubled(facts: &WaitFacts) -> CauseWords {
    let endpoint = &facts.endpoint;
    let waits_for = facts.live.as_ref().and_then(|live| live.waits_for.clone());
    let troubles = fresh(facts).map(|load| load.load.troubles.as_slice()).unwrap_or_default();
    if let Some(disk) = troubles.iter().find(|words| words.starts_with("disk full")) {
        return Some((
            WaitCause::DiskFull,
            format!("{endpoint} says: {disk}; it goes on once there is room"),
        ));
    }
    let of_function = facts.function.as_ref().and_then(|function| {
        let named = format!("function {function}:");
        troubles.iter().find(|words| words.starts_with(&named)).cloned()
    });
    let words = match (waits_for, of_function) {
        (Some(waits), Some(trouble)) => {
            format!("{endpoint} says that it waits {waits} ({trouble})")
        }
        (Some(waits), None) => format!("{endpoint} says that it waits {waits}"),
        (None, trouble) => format!("{endpoint} says: {}", trouble?),
    };
    let cause = if facts.function.is_some() { WaitCause::Workers } else { WaitCause::SlotsBusy };
    Some((cause, words))
}

fn too_wide(facts: &WaitFacts) -> CauseWords {
    // Its last word, though it may be away: its file decides, and not its link.
    let slots = facts.load.as_ref().map(|load| load.load.slots).or(facts.slots)?;
    (facts.cores > slots).then(|| {
        (
            WaitCause::NeedsCores,
            format!(
                "it needs {} cores, and {} has {}: it is rejected in its turn, unless there are \
                 more by then",
                facts.cores,
                facts.endpoint,
                counted(slots, "slot")
            ),
        )
    })
}

fn inbox_full(facts: &WaitFacts) -> CauseWords {
    let load = fresh(facts).filter(|load| load.load.inbox_full && facts.live.is_none())?;
    Some((
        WaitCause::InboxFull,
        format!(
            "the inbox of {} is full, with {} that wait there: it reads more as these run",
            facts.endpoint,
            counted(load.load.accepted, "task")
        ),
    ))
}

fn behind(facts: &WaitFacts) -> CauseWords {
    let waiting = facts.messages_waiting.is_none_or(|messages| messages > 0);
    if facts.live.is_some() || facts.tasks_ahead == 0 || !waiting {
        return None;
    }
    let (are, ahead) = match facts.tasks_ahead {
        1 => ("is", "1 task".to_owned()),
        many => ("are", counted(many, "task")),
    };
    let busy = fresh(facts).map(|load| format!(", which runs {}", slots(load)));
    Some((
        WaitCause::TasksAhead,
        format!(
            "{ahead} {are} ahead of it in the queue of {}, at its priority or above{}",
            facts.endpoint,
            busy.unwrap_or_default()
        ),
    ))
}

fn busy(facts: &WaitFacts) -> CauseWords {
    let load = fresh(facts)?;
    let accepted = facts.live.as_ref().is_some_and(|live| live.phase == Phase::Accepted);
    let used = load.load.slots_used.max(load.load.running);
    let fits = used + facts.cores.max(1) <= load.load.slots;
    if fits || !(accepted || facts.messages_waiting == Some(0)) {
        return None;
    }
    let endpoint = &facts.endpoint;
    if facts.cores > 1 {
        let words = format!(
            "it takes {} slots of {endpoint}, and {used} of {} are busy: no narrower task that \
             comes after it starts before it",
            facts.cores, load.load.slots
        );
        return Some((WaitCause::SlotsBusy, words));
    }
    let words = match facts.slot_free_at_ms.filter(|at| *at > facts.now_ms) {
        Some(at) => format!(
            "the slots of {endpoint} are busy ({}) until about {}, when a walltime ends",
            slots(load),
            super::moment(at)
        ),
        None => format!("{} of {endpoint} are busy", slots(load)),
    };
    Some((WaitCause::SlotsBusy, words))
}

/// When it expires, if that is soon or was.
fn expiry(facts: &WaitFacts) -> Option<String> {
    let at = facts.expires_at_ms?;
    match at.checked_sub(facts.now_ms) {
        None => Some("it has expired, and ends once its endpoint is connected".to_owned()),
        Some(left) => (left < EXPIRES_SOON_MS).then(|| format!("it expires in {}", span(left))),
    }
}

fn about_to_start(facts: &WaitFacts) -> (WaitCause, String) {
    let words = match &facts.live {
        Some(_) => format!("{} has it, and starts it as its turn comes", facts.endpoint),
        None => format!(
            "{} reads it, or runs it and has not told so: it tells of tasks that take longer than a \
             second",
            facts.endpoint
        ),
    };
    (WaitCause::AboutToStart, words)
}

/// The load, unless it is too old to tell anything, or its endpoint is offline since.
fn fresh(facts: &WaitFacts) -> Option<&LiveLoad> {
    facts.load.as_ref().filter(|load| !load.stale && facts.consumed != Some(false))
}

fn slots(load: &LiveLoad) -> String {
    format!("{} of {}", load.load.running, counted(load.load.slots, "slot"))
}

fn ago(facts: &WaitFacts, at_ms: u64) -> String {
    format!("{} ago", span(facts.now_ms.saturating_sub(at_ms)))
}

/// A length of time in its two largest units.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let largest = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(3);
    let mut left = seconds;
    let mut words = Vec::new();
    for (unit, name) in units.iter().skip(largest).take(2) {
        if left / unit > 0 || words.is_empty() {
            words.push(format!("{} {name}", left / unit));
        }
        left %= unit;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests;
