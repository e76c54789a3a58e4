//! Reads a dead letter: where it came from and why, its tasks or results, and what would be lost
//! with it. Pure.

use clutch_common::id::{Attempt, EndpointId};
use clutch_common::link::{Message, REJECTED};
use clutch_common::topology::RESULTS_QUEUE;
use clutch_common::wire::{
    self, PING_TYPE, PRESENCE_TYPE, RESULTS_TYPE, Results, Tasks, ToEndpoint, ToService,
};
use serde::Serialize;

/// How many reasons are told of a message with many things that cannot be read.
const REASONS: usize = 3;

/// A dead letter, read as far as it can be.
#[derive(Debug, Serialize)]
pub(crate) struct Letter {
    /// Names it: the same for the same message from the same queue.
    pub(crate) handle: String,
    pub(crate) message_id: Option<String>,
    pub(crate) correlation_id: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// When the message was made.
    pub(crate) made_at_ms: Option<u64>,
    /// The queue it was in.
    pub(crate) queue: Option<String>,
    /// Why it is here, in the broker's word.
    pub(crate) reason: Option<String>,
    /// When it came here.
    pub(crate) died_at_ms: Option<u64>,
    pub(crate) bytes: usize,
    /// Why it cannot be read, or not all of it.
    pub(crate) problem: Option<String>,
    #[serde(skip)]
    pub(crate) content: Content,
}

/// The content of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// Tasks that can be read.
    pub(crate) tasks: Vec<Attempt>,
    /// Tasks that cannot be read, and are named all the same.
    pub(crate) unreadable: Vec<Attempt>,
    /// Results that can be read.
    pub(crate) results: Vec<Attempt>,
    /// Another message of ours.
    pub(crate) other: Option<&'static str>,
}

/// The loss if a letter was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stake {
    /// Nothing that is not known elsewhere.
    Nothing,
    /// Tasks without a result, and their endpoint.
    Tasks(Option<EndpointId>, Vec<Attempt>),
    /// Results that may be recorded nowhere.
    Results,
}

impl Letter {
    /// Reads a message.
    #[must_use]
    pub(crate) fn read(message: &Message) -> Self {
        let death = message.deaths.first();
        let queue = death.map(|death| death.queue.clone());
        let (content, problems) = read(message, queue.as_deref());
        Self {
            handle: handle(message),
            message_id: message.message_id.clone(),
            correlation_id: message.correlation_id.clone(),
            kind: message.kind.clone(),
            made_at_ms: message.timestamp_ms,
            reason: death.map(|death| death.reason.clone()),
            died_at_ms: death.and_then(|death| death.at_ms),
            queue,
            bytes: message.body.len(),
            problem: told(&problems),
            content,
        }
    }

    /// Its content, or why it cannot be read, in words.
    #[must_use]
    pub(crate) fn words(&self) -> String {
        let Content { tasks, results, other, .. } = &self.content;
        let counted = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            count => Some(format!("{count} {what}s")),
        };
        let parts = [
            counted(tasks.len(), "task"),
            counted(results.len(), "result"),
            other.map(str::to_owned),
            self.problem.clone(),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// The loss if it was dropped. An endpoint that rejects a message sends results for the tasks
    /// in it that it cannot read, and runs the others. An endpoint has deleted the results that it
    /// published.
    #[must_use]
    pub(crate) fn stake(&self) -> Stake {
        let Content { tasks, unreadable, other, .. } = &self.content;
        let queue = self.queue.as_deref().unwrap_or_default();
        if queue == RESULTS_QUEUE {
            return if other.is_some() { Stake::Nothing } else { Stake::Results };
        }
        let answered = self.reason.as_deref() == Some(REJECTED) && self.problem.is_some();
        let open: Vec<Attempt> = tasks.iter().chain(unreadable).copied().collect();
        if answered || open.is_empty() {
            return if self.content.results.is_empty() { Stake::Nothing } else { Stake::Results };
        }
        Stake::Tasks(queue.strip_suffix(".tasks").and_then(|id| id.parse().ok()), open)
    }
}

/// The content of a message, read as the consumer of its queue would, and the reasons why parts
/// of it cannot be read.
fn read(message: &Message, queue: Option<&str>) -> (Content, Vec<String>) {
    let kind = message.kind.as_deref().unwrap_or_default();
    let to_service = match queue {
        Some(RESULTS_QUEUE) => true,
        Some(queue) if queue.ends_with(".tasks") => false,
        _ => [RESULTS_TYPE, PRESENCE_TYPE, PING_TYPE].contains(&kind),
    };
    let other = |what| (Content { other: Some(what), ..Content::default() }, Vec::new());
    if to_service {
        return match wire::decode_to_service(&message.body) {
            ToService::Results(Results { results, unreadable, .. }) => {
                let results = results.iter().map(|result| result.attempt()).collect();
                let unreadable = unreadable.into_iter().map(Into::into).collect();
                (Content { results, ..Content::default() }, unreadable)
            }
            ToService::Presence(_) => other("an instance's presence"),
            ToService::Ping => other("a ping"),
            ToService::Claims(_) => other("claims of tasks of a topic"),
            ToService::Post(_) => other("a message between tasks"),
            ToService::Unknown(_) => other("a control message of another version"),
        };
    }
    match wire::decode_to_endpoint(&message.body, message.correlation_id.as_deref()) {
        ToEndpoint::RollCall(_) => other("a roll call"),
        ToEndpoint::CancelMark(_) => other("a mark behind cancelled tasks"),
        ToEndpoint::Unknown(_) => other("a control message of another version"),
        ToEndpoint::Tasks(Tasks { tasks, unreadable }) => {
            let content = Content {
                tasks: tasks.iter().map(|task| task.attempt()).collect(),
                unreadable: unreadable.iter().filter_map(|one| one.attempt).collect(),
                ..Content::default()
            };
            (content, unreadable.into_iter().map(|one| one.reason.into()).collect())
        }
    }
}

/// Some of many reasons, as one text.
fn told(reasons: &[String]) -> Option<String> {
    let mut told: Vec<String> = reasons.iter().take(REASONS).cloned().collect();
    if reasons.len() > REASONS {
        told.push(format!("and {} more", reasons.len() - REASONS));
    }
    (!told.is_empty()).then(|| told.join("; "))
}

/// A name for a message, made of all that it is (64 bits of FNV-1a): two that have
/// the same are the same in all that could matter.
fn handle(message: &Message) -> String {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let death = message.deaths.first();
    let timestamp = message.timestamp_ms.map(|ms| ms.to_string());
    let texts = [
        message.message_id.as_deref(),
        message.correlation_id.as_deref(),
        message.kind.as_deref(),
        timestamp.as_deref(),
        death.map(|death| death.queue.as_str()),
        death.map(|death| death.reason.as_str()),
    ];
    // No byte of a text is this one, so that two texts are not read as one.
    let texts = texts
        .into_iter()
        .flat_map(|text| text.map_or(&[][..], str::as_bytes).iter().chain(&[0xff]));
    let hash = texts
        .chain(&message.body)
        .fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::link::{DELIVERY_LIMIT, Death};
    use clutch_common::task::result::Outcome;
    use clutch_common::task::{Process, Task};
    use clutch_common::topology::tasks_queue;

    fn dead(queue: &str, reason: &str, body: Vec<u8>) -> Message {
        let death = Death {
            queue: queue.to_owned(),
            reason: reason.to_owned(),
            at_ms: Some(5000),
            count: 1,
        };
        Message { deaths: vec![death], body, ..Message::default() }
    }

    fn tasks(count: usize) -> (Vec<Attempt>, Vec<u8>) {
        let process = Process { argv: vec!["true".into()], ..Process::default() };
        let tasks: Vec<Task> =
            (0..count).map(|_| Task::new(TaskId::new(), process.clone())).collect();
        let attempts = tasks.iter().map(Task::attempt).collect();
        (attempts, wire::encode_tasks(&tasks.iter().collect::<Vec<_>>()))
    }

    fn with_garbage(body: &[u8], id: &str) -> Vec<u8> {
        let text = String::from_utf8(body.to_vec()).unwrap();
        text.replace("\"tasks\":[", &format!("\"tasks\":[{{\"id\":\"{id}\"}},")).into_bytes()
    }

    #[test]
    fn dropping_a_letter_loses_the_tasks_in_it_that_have_no_result() {
        let id = EndpointId::new();
        let queue = tasks_queue(id);
        let stake = |queue: &str, reason: &str, body: &[u8]| {
            Letter::read(&dead(queue, reason, body.to_vec())).stake()
        };
        let (attempts, body) = tasks(2);
        let lost = Stake::Tasks(Some(id), attempts.clone());
        for reason in [DELIVERY_LIMIT, "maxlen", "expired", REJECTED] {
            assert_eq!(stake(&queue, reason, &body), lost, "{reason}");
        }
        assert_eq!(stake("elsewhere", "maxlen", &body), Stake::Tasks(None, attempts.clone()));
        let bad = TaskId::new();
        let mixed = with_garbage(&body, &bad.to_string());
        assert_eq!(stake(&queue, REJECTED, &mixed), Stake::Nothing, "the endpoint has answered");
        let all = [attempts, vec![Attempt { task_id: bad, attempt: 1 }]].concat();
        assert_eq!(stake(&queue, DELIVERY_LIMIT, &mixed), Stake::Tasks(Some(id), all));
        assert_eq!(stake(&queue, DELIVERY_LIMIT, b"nonsense"), Stake::Nothing);

        let ended = crate::stub_broker::result(Outcome::Succeeded);
        let results = wire::pack_results(ended.endpoint_id, &[wire::encode_result(&ended)]);
        for body in [&results[..], b"nonsense"] {
            for reason in [REJECTED, DELIVERY_LIMIT] {
                assert_eq!(stake(RESULTS_QUEUE, reason, body), Stake::Results);
            }
        }
        assert_eq!(stake(RESULTS_QUEUE, REJECTED, &wire::encode_ping()), Stake::Nothing);
    }

    #[test]
    fn a_letter_says_where_it_was_why_it_is_here_and_what_is_wrong_with_it() {
        let (_, body) = tasks(2);
        let letter = Letter::read(&dead("a.tasks", DELIVERY_LIMIT, body.clone()));
        assert_eq!((letter.queue.as_deref(), letter.died_at_ms), (Some("a.tasks"), Some(5000)));
        assert_eq!(letter.words(), "2 tasks");
        let bare = Message { body: b"\xff".to_vec(), ..Message::default() };
        let letter = Letter::read(&bare);
        assert_eq!((letter.queue.as_deref(), letter.reason.as_deref()), (None, None));
        assert!(letter.words().contains("not a JSON envelope"), "{}", letter.words());
        let mut body = body;
        for _ in 0..5 {
            body = with_garbage(&body, "x");
        }
        let words = Letter::read(&dead("a.tasks", REJECTED, body)).words();
        assert!(words.starts_with("2 tasks; the task") && words.ends_with("and 2 more"), "{words}");
    }

    #[test]
    fn a_message_is_read_as_its_queue_is() {
        let ended = crate::stub_broker::result(Outcome::Failed);
        let results = wire::pack_results(ended.endpoint_id, &[wire::encode_result(&ended)]);
        let words = |message| Letter::read(&message).words();
        assert_eq!(words(dead(RESULTS_QUEUE, REJECTED, results.clone())), "1 result");
        assert!(words(dead("a.tasks", REJECTED, results.clone())).contains("clutch.results"));
        let kind = Some(RESULTS_TYPE.to_owned());
        assert_eq!(words(Message { kind, body: results, ..Message::default() }), "1 result");
        assert_eq!(words(dead(RESULTS_QUEUE, REJECTED, wire::encode_ping())), "a ping");
    }

    #[test]
    fn a_handle_is_the_same_for_the_same_message_only() {
        let message = dead("q", REJECTED, b"body".to_vec());
        assert_eq!(handle(&message), handle(&message.clone()));
        let id = |text: &str| Some(text.to_owned());
        let others = [
            Message { body: b"bodz".to_vec(), ..message.clone() },
            Message { message_id: id("a"), ..message.clone() },
            Message { correlation_id: id("a"), ..message.clone() },
            Message { timestamp_ms: Some(1), ..message.clone() },
            dead("r", REJECTED, b"body".to_vec()),
            dead("q", DELIVERY_LIMIT, b"body".to_vec()),
        ];
        let mut handles: Vec<String> = others.iter().map(handle).collect();
        handles.push(handle(&message));
        handles.sort();
        handles.dedup();
        assert_eq!(handles.len(), others.len() + 1);
    }
}
