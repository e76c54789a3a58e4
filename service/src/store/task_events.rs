//! The events of the feed that a transaction makes: what it changed in tasks, read in the same
//! transaction.
//!
//! Touches the database only, and only while a client listens.

use super::engine::{Columns, Db, FromRow, RowChange, values};
use super::stored_state::StoredState;
use super::{Error, Result, Store};
use crate::feed::Feed;
use crate::model::{FeedEvent, FeedKind, FeedTask};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::system::clock::now_ms;
use std::collections::BTreeMap;

/// A task as an event shows it.
struct ShownTask {
    task: TaskId,
    endpoint: EndpointId,
    endpoint_name: Option<String>,
    key: Option<String>,
    index: Option<u64>,
    name: Option<String>,
    state: StoredState,
    /// The attempt that the outcome is from.
    recorded: Option<u32>,
    current: u32,
}

impl FromRow for ShownTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            task: columns.next()?,
            endpoint: columns.next()?,
            endpoint_name: columns.next()?,
            key: columns.next()?,
            index: columns.next()?,
            name: columns.next()?,
            state: columns.next()?,
            recorded: columns.next()?,
            current: columns.next()?,
        })
    }
}

impl ShownTask {
    fn event(self, kind: FeedKind, at_ms: u64) -> FeedEvent {
        let ended = matches!(self.state, StoredState::Done(_));
        let attempt = self.recorded.filter(|_| ended).unwrap_or(self.current);
        FeedEvent {
            kind,
            at_ms,
            endpoint: self.endpoint,
            endpoint_name: self.endpoint_name,
            status: None,
            of: Some(FeedTask {
                task: self.task,
                key: self.key,
                index: self.index,
                name: self.name,
                state: self.state.shown(),
                attempt,
                progress: None,
            }),
        }
    }
}

/// The task in a row, by a condition on `t`.
fn shown(condition: &str) -> String {
    format!(
        "SELECT t.id, n.id, e.name, s.key, t.idx, t.name, t.state, t.attempt, t.current_attempt \
         FROM tasks t JOIN interned_ids n ON n.n = t.endpoint \
         LEFT JOIN endpoints e ON e.id = n.id \
         LEFT JOIN submissions s ON s.id = t.submission WHERE {condition}"
    )
}

/// The events of the tasks that this transaction has inserted or changed so far.
pub(super) fn of_transaction(db: &Db<'_>) -> Result<Vec<FeedEvent>> {
    let mut changed: BTreeMap<i64, Vec<RowChange>> = BTreeMap::new();
    for (row, change) in db.changed_tasks() {
        changed.entry(row).or_default().push(change);
    }
    let (find, at_ms) = (shown("t.seq = ?"), now_ms());
    let mut events = Vec::with_capacity(changed.len());
    for (row, changes) in changed {
        if changes.iter().all(|change| *change == RowChange::Answered) {
            continue;
        }
        let Some(task) = db.one::<ShownTask>(&find, values![row])? else { continue };
        let inserted = changes.contains(&RowChange::Inserted);
        match (kind(task.state), inserted) {
            // A task of another program comes with its result. One that had its outcome before
            // is changed where the broker confirms it late.
            (Some(FeedKind::Outcome), _) => {
                if changes.contains(&RowChange::Answered) {
                    events.push(task.event(FeedKind::Outcome, at_ms));
                }
            }
            (Some(kind), false) => events.push(task.event(kind, at_ms)),
            (_, true) => events.push(task.event(FeedKind::Recorded, at_ms)),
            (None, false) => (),
        }
    }
    Ok(events)
}

/// The kind of event when a task comes to a state. That it is scheduled, or handed to the link, is
/// none.
fn kind(state: StoredState) -> Option<FeedKind> {
    match state {
        StoredState::InTopic | StoredState::Waiting | StoredState::Paused => {
            Some(FeedKind::Waiting)
        }
        StoredState::Scheduled | StoredState::Submitting => None,
        StoredState::Submitted => Some(FeedKind::Submitted),
        StoredState::Done(_) => Some(FeedKind::Outcome),
    }
}

impl Store {
    /// The feed that transactions tell what they change in tasks.
    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Waits until every transaction that writes and has begun is over: readers see it.
    pub(crate) async fn written(&self) -> Result<()> {
        self.writer.run(|_, _| ()).await
    }

    /// The events of these tasks without an outcome, to be made of their kinds.
    pub(crate) async fn task_events(
        &self,
        tasks: Vec<(TaskId, FeedKind)>,
    ) -> Result<Vec<FeedEvent>> {
        self.read("looking up tasks of events", move |db| {
            let (find, at_ms) = (shown("t.id = ?"), now_ms());
            let mut events = Vec::with_capacity(tasks.len());
            for (task, kind) in tasks {
                let task: Option<ShownTask> = db.one(&find, values![&task])?;
                let open = task.filter(|task| !matches!(task.state, StoredState::Done(_)));
                events.extend(open.map(|task| task.event(kind, at_ms)));
            }
            Ok::<_, Error>(events)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::Chunk;
    use super::super::conformance::{begin, chunk, done, record, specs, store};
    use super::*;
    use crate::feed::{Filter, Listener};
    use crate::model::RetryPolicy;
    use crate::stub_broker::result_of;
    use clutch_common::id::Attempt;
    use clutch_common::task::result::Outcome;
    use serde_json::Value;

    /// The kinds of the events that came, with the state, the index and the attempt of the task.
    fn told(listener: &mut Listener) -> Vec<String> {
        let text = listener.read(&Filter::default(), usize::MAX).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = data.map(|json| serde_json::from_str::<Value>(json).unwrap());
        let shown = |event: Value| {
            let member = |name: &str| event[name].to_string().replace('"', "");
            ["kind", "state", "index", "attempt"].map(member).join(" ")
        };
        events.map(shown).collect()
    }

    #[tokio::test]
    async fn each_transaction_tells_the_states_that_it_brings_and_none_that_is_undone() {
        let (_temp, store) = store().await;
        let lab = EndpointId::new();
        begin(&store, chunk(lab, "before", &specs(1))).await.unwrap();
        let (mut listener, _) = store.feed().listen(None).unwrap();
        let retry: RetryPolicy = serde_json::from_str(r#"{ "retries": 1 }"#).unwrap();
        let with_policy = Chunk { retry: Some(retry), ..chunk(lab, "k", &specs(2)) };
        let begun = begin(&store, with_policy).await.unwrap();
        assert_eq!(told(&mut listener), ["recorded waiting 0 1", "recorded waiting 1 1"]);
        let undone = store.write("trying", |write| {
            write.db.run("UPDATE tasks SET state = 'succeeded'", &[])?;
            Err::<(), _>(Error::Conflict("not this".to_owned()))
        });
        assert!(undone.await.is_err());
        let confirmed = begun.iter().map(|one| (one.seq, 1)).collect();
        store.mark_submitted(confirmed, 5).await.unwrap();
        assert_eq!(told(&mut listener), ["submitted submitted 0 1", "submitted submitted 1 1"]);
        // The first runs again by its policy, and comes to no outcome in between.
        let results = [done(&begun[0], 1, Outcome::Failed), done(&begun[1], 1, Outcome::Succeeded)];
        record(&store, &results, &[], 6).await.unwrap();
        assert_eq!(told(&mut listener), ["waiting waiting 0 2", "outcome succeeded 1 1"]);
        // One that came before changes no task.
        record(&store, &results, &[], 7).await.unwrap();
        let external = result_of(Attempt { task_id: TaskId::new(), attempt: 1 }, Outcome::Expired);
        record(&store, &[external], &[], 8).await.unwrap();
        assert_eq!(told(&mut listener), ["outcome expired null 1"]);
        store.cancel(vec![begun[0].seq], 9).await.unwrap();
        assert_eq!(told(&mut listener), ["outcome cancelled 0 2"]);
    }
}
