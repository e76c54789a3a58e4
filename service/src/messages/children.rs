//! Records and publishes the tasks that tasks submit.
//!
//! Touches the records and task queues. Promises: the id of the request is the key of the
//! submission, so that a further copy records nothing and is answered with the same ids; a child
//! goes to the endpoint of its parent, or to one that the rules name.

use super::Rules;
use super::decision::forbidden;
use super::outbox::Outbox;
use super::posts::DoneSignal;
use crate::model::{Destination, RetryPolicy, TaskSpec};
use crate::publishing::Outgoing;
use crate::store::{Chunk, Endpoint, Error, Handing, RecordedChunk, Store, TaskFacts};
use clutch_common::id::TaskId;
use clutch_common::system::clock::now_ms;
use clutch_common::task::json::Json;
use clutch_common::wire::{Reply, RequestAnswer, TaskRequest};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// The most children of one request.
const MAX_CHILDREN: usize = 1000;

/// The children that a task submits, and the facts about that task.
pub(super) struct Birth {
    /// The request, without what it asks for.
    pub(super) request: TaskRequest,
    /// The body of the request.
    pub(super) asked: Json,
    /// The facts about the task that asks.
    pub(super) parent: TaskFacts,
    /// Tells that the request is done.
    pub(super) done: DoneSignal,
}

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChildrenRequest {
    /// The endpoint that they go to; that of their parent unless given.
    #[serde(default)]
    endpoint: Option<String>,
    /// The children.
    tasks: Vec<TaskSpec>,
    /// When the service runs them again by itself.
    #[serde(default)]
    retry: Option<RetryPolicy>,
}

impl ChildrenRequest {
    /// Reads a request, or says why it cannot be done.
    fn read(asked: &Json) -> Result<Self, String> {
        let request: Self =
            serde_json::from_str(asked.text()).map_err(|error| error.to_string())?;
        let count = request.tasks.len();
        if count == 0 || count > MAX_CHILDREN {
            return Err(format!("a request has from 1 to {MAX_CHILDREN} tasks, not {count}"));
        }
        for (index, spec) in request.tasks.iter().enumerate() {
            spec.check().map_err(|reason| format!("task {index}: {reason}"))?;
        }
        if let Some(policy) = &request.retry {
            policy.check().map_err(|reason| format!("retry: {reason}"))?;
        }
        Ok(request)
    }
}

/// The parts that children are recorded with.
pub(super) struct Nursery<'a> {
    /// The records.
    pub(super) store: &'a Store,
    /// The way to answer, and to publish.
    pub(super) outbox: &'a Outbox,
    /// The rules.
    pub(super) rules: &'a Rules,
    /// Where the publishing runs, which outlives the session's last message.
    pub(super) submissions: &'a TaskTracker,
}

impl Nursery<'_> {
    /// Records children until the session ends.
    pub(super) async fn record(&self, mut births: mpsc::Receiver<Birth>) {
        while let Some(birth) = births.recv().await {
            let Birth { request, asked, parent, done } = birth;
            // Without a reply a further copy asks again.
            let Some(reply) = self.reply(&request, &asked, &parent).await else { continue };
            let TaskRequest { endpoint_id, request, copy, source, .. } = request;
            let answer = RequestAnswer { request, copy, since: copy, source, answer: reply };
            self.outbox.answer(endpoint_id, answer, Some(done)).await;
        }
    }

    async fn reply(&self, from: &TaskRequest, asked: &Json, parent: &TaskFacts) -> Option<Reply> {
        let request = match ChildrenRequest::read(asked) {
            Ok(request) => request,
            Err(reason) => return Some(Reply::Refused(reason.into())),
        };
        let to = request.endpoint.clone().unwrap_or_else(|| parent.endpoint.to_string());
        match self.store.endpoint(&to).await {
            Ok(Some(endpoint)) if self.may_go_to(&endpoint, parent) => (),
            Ok(Some(endpoint)) => {
                return Some(forbidden(&format!(
                    "children go to the endpoint of their parent, and not to '{}' \
                     (`serve --children-at {}` lets them)",
                    endpoint.name, endpoint.name
                )));
            }
            Ok(None) => return Some(Reply::Refused(format!("there is no endpoint '{to}'").into())),
            Err(error) => {
                tracing::debug!(%error, "the endpoint of children cannot be looked up");
                return None;
            }
        }
        let chunk = Chunk {
            to: Destination::Endpoint(to),
            key: from.request.to_string(),
            total: request.tasks.len() as u64,
            first: 0,
            specs: request.tasks,
            handing: Handing::New,
            retry: request.retry,
            due: None,
            parent: Some(from.source.task_id),
            now_ms: now_ms(),
        };
        match self.store.record_submission(chunk).await {
            Ok(Some(recorded)) => Some(Reply::Submitted(self.publish(recorded))),
            Ok(None) => Some(Reply::Refused("the endpoint was removed".into())),
            Err(Error::Conflict(reason)) => Some(Reply::Refused(reason.into())),
            Err(error) => {
                tracing::warn!(%error, "tasks of a task cannot be recorded; it asks again");
                None
            }
        }
    }

    fn may_go_to(&self, endpoint: &Endpoint, parent: &TaskFacts) -> bool {
        let names = [endpoint.name.clone(), endpoint.id.to_string()];
        endpoint.id == parent.endpoint
            || self.rules.children_at.iter().any(|allowed| names.contains(allowed))
    }

    /// Publishes what is new, beside everything else; returns the ids of all.
    fn publish(&self, recorded: RecordedChunk) -> Vec<TaskId> {
        let RecordedChunk { id: endpoint, tasks, .. } = recorded;
        let ids = tasks.iter().map(|one| one.task.id).collect();
        let publisher = self.outbox.publisher().clone();
        self.submissions.spawn(async move {
            let new = tasks.iter().filter(|one| one.hand_over.is_some());
            let new: Vec<Outgoing<'_>> = new.map(Outgoing::from).collect();
            if new.is_empty() {
                return;
            }
            if let Err(error) = publisher.tasks(endpoint, true, &new).await {
                tracing::warn!(%error, "the broker's answer for tasks of a task is not recorded");
            }
        });
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_children_is_read_or_refused_in_words() {
        let read = |text: &str| ChildrenRequest::read(&text.parse().unwrap());
        let request = read(r#"{"tasks":[{"argv":["true"]}],"endpoint":"lab"}"#).unwrap();
        assert_eq!((request.tasks.len(), request.endpoint.as_deref()), (1, Some("lab")));
        for (text, words) in [
            (r#"{"tasks":[]}"#, "from 1 to 1000"),
            (r#"{"tasks":[{"argv":[]}]}"#, "task 0: argv is empty"),
            (r#"{"tasks":[{"argv":["a"]}],"when":1}"#, "unknown field `when`"),
            ("[]", "invalid length"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
