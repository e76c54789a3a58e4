//! Finds queue hazards: policies, operator policies and arguments by which messages leave a queue
//! of Clutch undelivered, or are kept out of it. Pure.

use crate::model::QueueHazard;
use clutch_common::id::EndpointId;
use clutch_common::topology::{DEAD_LETTER_QUEUE, OWNER_QUEUE, RESULTS_QUEUE, tasks_queue};
use serde::Deserialize;
use serde_json::Value;

/// The terms by which messages leave a queue, or are kept out of it.
const HARMFUL: [&str; 4] = ["message-ttl", "max-length", "max-length-bytes", "expires"];

/// A queue, as the management API lists it. What there is none of may be an empty list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ListedQueue {
    pub(super) name: String,
    #[serde(default)]
    arguments: Value,
    #[serde(default)]
    policy: Value,
    #[serde(default)]
    operator_policy: Value,
    #[serde(default)]
    effective_policy_definition: Value,
}

/// Whether a queue is one that provisioning declares.
fn is_ours(name: &str) -> bool {
    let of_endpoint = || {
        let id = name.strip_suffix(".tasks").and_then(|id| id.parse::<EndpointId>().ok());
        id.is_some_and(|id| tasks_queue(id) == name)
    };
    [RESULTS_QUEUE, DEAD_LETTER_QUEUE, OWNER_QUEUE].contains(&name) || of_endpoint()
}

/// Finds the hazards of a queue, if it is one of Clutch's.
pub(super) fn hazards(queue: &ListedQueue) -> Vec<QueueHazard> {
    if !is_ours(&queue.name) {
        return Vec::new();
    }
    let argument = |term: &str| queue.arguments.get(format!("x-{term}"));
    let policy = |term: &str| queue.effective_policy_definition.get(term);
    // An argument wins over a policy.
    let overflow = argument("overflow").or_else(|| policy("overflow")).and_then(Value::as_str);
    let refuses = overflow.is_some_and(|overflow| overflow.starts_with("reject-publish"));
    let mut hazards = Vec::new();
    for term in HARMFUL {
        let by_policy = policy(term).map(|value| (value, by(queue), undo(queue)));
        let by_argument = argument(term).map(|value| {
            let undo = "delete the queue once it is empty, and provision again".to_owned();
            (value, "by an argument it was declared with".to_owned(), undo)
        });
        for (value, by, undo) in by_policy.into_iter().chain(by_argument) {
            let Some(effect) = effect(&queue.name, term, refuses) else { continue };
            let words =
                format!("the queue '{}' has {term}={value} {by}: {effect}; {undo}", queue.name);
            hazards.push(QueueHazard { queue: queue.name.clone(), words });
        }
    }
    hazards
}

/// The effect of a term on a queue, in words; none where it does no harm.
fn effect(queue: &str, term: &str, refuses: bool) -> Option<&'static str> {
    let gone = match (queue, term) {
        (OWNER_QUEUE, "expires") => "once it is gone, any service may take the results",
        (OWNER_QUEUE, _) => return None,
        (_, "expires") => {
            "it is removed, with all that is in it, when it was not used for so many milliseconds"
        }
        (DEAD_LETTER_QUEUE, _) => "dead letters vanish, and what they were about with them",
        (_, "message-ttl") => {
            "what waits for more milliseconds than that leaves it for the dead letters, and stays \
             without an outcome until it is asked for"
        }
        (_, _) if refuses => {
            "it refuses more than that: tasks end as refused, and results wait at their endpoints"
        }
        (_, _) => {
            "the oldest leave it for the dead letters when there is more, and stay without an \
             outcome until they are asked for"
        }
    };
    Some(gone)
}

/// The names of the policies that apply to a queue, in words.
fn by(queue: &ListedQueue) -> String {
    match (queue.policy.as_str(), queue.operator_policy.as_str()) {
        (Some(policy), None) => format!("by the policy '{policy}'"),
        (None, Some(operator)) => format!("by the operator policy '{operator}'"),
        (Some(policy), Some(operator)) => {
            format!("by the policy '{policy}' or the operator policy '{operator}'")
        }
        (None, None) => "by a policy".to_owned(),
    }
}

fn undo(queue: &ListedQueue) -> String {
    let commands = [
        queue.policy.as_str().map(|policy| format!("`rabbitmqctl clear_policy {policy}`")),
        queue
            .operator_policy
            .as_str()
            .map(|it| format!("`rabbitmqctl clear_operator_policy {it}`")),
    ];
    let commands: Vec<String> = commands.into_iter().flatten().collect();
    format!("have its pattern leave out the queues of clutch, or {}", commands.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TASKS: &str = "01890a5d-ac96-774b-bcce-b302099a8057.tasks";

    fn words(queue: Value) -> Vec<String> {
        let queue: ListedQueue = serde_json::from_value(queue).unwrap();
        hazards(&queue).into_iter().map(|hazard| hazard.words).collect()
    }

    #[test]
    fn what_takes_messages_from_a_queue_is_told_with_who_says_so() {
        for (queue, told) in [
            (
                json!({"name": TASKS, "policy": "short", "operator_policy": null,
                    "effective_policy_definition": {"message-ttl": 1000}}),
                &["message-ttl=1000 by the policy 'short'", "clear_policy short"][..],
            ),
            (
                json!({"name": TASKS, "operator_policy": "all",
                    "effective_policy_definition": {"max-length": 10, "overflow": "drop-head"}}),
                &["max-length=10 by the operator policy 'all'", "clear_operator_policy all"],
            ),
            (
                json!({"name": "results", "policy": "a", "operator_policy": "b",
                    "effective_policy_definition": {"max-length-bytes": 10}}),
                &["the policy 'a' or the operator policy 'b'", "oldest leave it"],
            ),
            (
                json!({"name": "results", "policy": "a", "arguments":
                    {"x-overflow": "reject-publish"},
                    "effective_policy_definition": {"max-length": 5, "overflow": "drop-head"}}),
                &["refuses more"],
            ),
            (
                json!({"name": "results", "arguments": {"x-message-ttl": 5},
                    "effective_policy_definition": []}),
                &["message-ttl=5 by an argument", "delete the queue"],
            ),
            (
                json!({"name": "dead-letters", "policy": "a",
                    "effective_policy_definition": {"max-length": 5}}),
                &["dead letters vanish"],
            ),
            (
                json!({"name": "results.owner", "policy": "a",
                    "effective_policy_definition": {"expires": 5, "message-ttl": 5}}),
                &["any service may take"],
            ),
        ] {
            let found = words(queue.clone());
            assert_eq!(found.len(), 1, "{queue}: {found:?}");
            for part in told {
                assert!(found[0].contains(part), "'{part}' is missing in: {}", found[0]);
            }
        }
    }

    #[test]
    fn what_harms_nothing_or_is_not_ours_is_not_told() {
        let ttl = json!({"message-ttl": 1});
        for queue in [
            json!({"name": TASKS, "effective_policy_definition": []}),
            json!({"name": TASKS, "effective_policy_definition": {"ha-mode": "all"}}),
            json!({"name": TASKS, "effective_policy_definition": {"overflow": "drop-head"}}),
            json!({"name": "theirs", "effective_policy_definition": ttl}),
            json!({"name": "x.tasks", "effective_policy_definition": ttl}),
            json!({"name": TASKS}),
        ] {
            assert_eq!(words(queue.clone()), [""; 0], "{queue}");
        }
    }
}
