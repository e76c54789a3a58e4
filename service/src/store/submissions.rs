//! Submissions: tasks recorded before they are published, identified by key and index, so
//! that submitting again continues instead of repeating.

use super::endpoints::{self, Endpoint};
use super::engine::{Columns, Db, FromRow, append, values};
use super::rows::{decoded, encoded};
use super::stored_state::StoredState;
use super::transitions::{StateCounts, set_state};
use super::{
    Error, Result, Store, Write, cancel_requests, children, expiries, retries, topic_tasks,
    unaccounted,
};
use crate::model::{
    Destination, DueTime, RetryPolicy, TaskSpec, TopicOrder, moment, quoted, topic_id,
};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::byte_string::ByteString;
use clutch_common::task::topic::TopicTerms;
use clutch_common::task::{Task, Work};
use std::collections::BTreeMap;

/// How much of a command line a listing shows, in characters.
const COMMAND_SHOWN: usize = 80;
/// The operation of both methods that mark tasks as submitted.
const MARKING: &str = "recording that the broker has the tasks";

/// The tasks of a chunk that the caller hands to the link once they are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handing {
    /// None: the link is down.
    Nothing,
    /// Those that are new.
    New,
    /// All that the broker is not known to have: a caller waits for its word.
    Unconfirmed,
}

/// A part of a submission.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// The endpoint or topic that the tasks go to.
    pub(crate) to: Destination,
    /// The submission's key.
    pub(crate) key: String,
    /// How many tasks the submission has.
    pub(crate) total: u64,
    /// The index of the first task here.
    pub(crate) first: u64,
    /// The tasks.
    pub(crate) specs: Vec<TaskSpec>,
    /// Which of them are handed to the link at once.
    pub(crate) handing: Handing,
    /// When the service runs tasks of the submission again by itself.
    pub(crate) retry: Option<RetryPolicy>,
    /// When the tasks are due; at once if nothing is said.
    pub(crate) due: Option<DueTime>,
    /// The task that submits them, if one does.
    pub(crate) parent: Option<TaskId>,
    /// The present, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
}

impl Chunk {
    /// One of its tasks, as it is recorded at a moment.
    fn task(&self, spec: &TaskSpec, of: &Submission, id: TaskId, created_at_ms: u64) -> Task {
        let mut task = spec.task(id, of.begins(created_at_ms));
        // One that is alone in its submission needs no number.
        task.group = if self.total > 1 { of.row.unsigned_abs() } else { 0 };
        task.parent = self.parent;
        if let Destination::Topic(TopicOrder { topic, version, .. }) = &self.to {
            let (name, version) = (topic.clone(), version.clone());
            // The moment is that of each placement.
            task.topic = Some(TopicTerms { name, start_by_ms: 0, version });
        }
        task
    }
}

/// A part of a submission, as it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecordedChunk {
    /// The id of the endpoint that the tasks go to, or the one that stands for their topic.
    pub(crate) id: EndpointId,
    /// The endpoint; nothing if it is a topic.
    pub(crate) endpoint: Option<Endpoint>,
    /// The tasks, in the order of the chunk.
    pub(crate) tasks: Vec<RecordedTask>,
    /// When they are due, if they are scheduled, or were.
    pub(crate) due_at_ms: Option<u64>,
}

/// The submission of a chunk.
struct Submission {
    row: i64,
    due_at_ms: Option<u64>,
    new: bool,
}

impl Submission {
    /// The moment from which the expiry of its tasks counts, for one recorded at a moment.
    fn begins(&self, created_at_ms: u64) -> u64 {
        self.due_at_ms.map_or(created_at_ms, |due| due.max(created_at_ms))
    }
}

/// A recorded task of a submission.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecordedTask {
    /// Its row.
    pub(crate) seq: i64,
    /// The task.
    pub(crate) task: Task,
    /// The task as it is published.
    pub(crate) body: String,
    /// Its state.
    pub(crate) state: StoredState,
    /// Whether it is new.
    pub(crate) new: bool,
    /// Whether it is to be published, and how.
    pub(crate) hand_over: Option<HandOver>,
}

/// A task that is recorded as `submitting`, and to be published by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// No copy of its current attempt can be at the broker.
    First,
    /// A copy may be at the broker: it was handed to the link before, without an answer.
    Again,
}

/// A task of the chunk that was recorded before.
struct KnownTask {
    index: u64,
    seq: i64,
    state: StoredState,
    created_at_ms: u64,
    current_attempt: u32,
    body: String,
}

impl FromRow for KnownTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            index: columns.next()?,
            seq: columns.next()?,
            state: columns.next()?,
            created_at_ms: columns.next()?,
            current_attempt: columns.next()?,
            body: columns.next()?,
        })
    }
}

/// A task that is new, with its index in the submission.
struct NewTask<'a> {
    index: u64,
    recorded: &'a RecordedTask,
}

impl<'a> NewTask<'a> {
    fn of_topic(&self) -> topic_tasks::NewTopicTask<'a> {
        let RecordedTask { seq, task, .. } = self.recorded;
        topic_tasks::NewTopicTask { seq: *seq, index: self.index, task }
    }
}

impl Store {
    /// Records the tasks of a chunk, unless they are recorded already, and returns them;
    /// nothing if the endpoint is not known. New ones that are due later are `scheduled` then,
    /// those that the caller hands to the link `submitting`, others `waiting`. A conflict when the key is
    /// that of other tasks; then nothing is recorded.
    pub(crate) async fn record_submission(&self, chunk: Chunk) -> Result<Option<RecordedChunk>> {
        self.write("recording the tasks", move |write| {
            let endpoint = match &chunk.to {
                Destination::Topic(_) => None,
                Destination::Endpoint(name) => endpoints::find(write.db, name)?,
            };
            let id = match (&endpoint, &chunk.to) {
                (Some(endpoint), _) => endpoint.id,
                (None, Destination::Topic(order)) => topic_id(&order.topic),
                (None, Destination::Endpoint(_)) => return Ok(None),
            };
            let (tasks, due_at_ms) = record(write, id, &chunk, TaskId::new)?;
            Ok(Some(RecordedChunk { id, endpoint, tasks, due_at_ms }))
        })
        .await
    }

    /// Marks tasks as confirmed by the broker, each with the attempt that was, where that is
    /// news. Returns whether one of them is unaccounted for: it can be asked for now.
    pub(crate) async fn mark_submitted(&self, tasks: Vec<(i64, u32)>, now_ms: u64) -> Result<bool> {
        if tasks.is_empty() {
            return Ok(false);
        }
        self.write(MARKING, move |write| mark_submitted(write.db, &tasks, now_ms)).await
    }

    /// The same, recorded only: until it is [durable](Store::durable), a power cut may undo
    /// it, and no submission waits for a sync of it.
    pub(crate) async fn note_submitted(&self, tasks: Vec<(i64, u32)>, now_ms: u64) -> Result<bool> {
        let job = move |write: &mut Write<'_>| mark_submitted(write.db, &tasks, now_ms);
        self.record_only(MARKING, job, |_| ()).await
    }
}

fn mark_submitted(db: &Db<'_>, tasks: &[(i64, u32)], now_ms: u64) -> Result<bool> {
    let mut counts = StateCounts::default();
    let find =
        "SELECT submission, state, current_attempt, submitted_at_ms FROM tasks WHERE seq = ?";
    let mut find = db.prepare(find)?;
    let mut update = db.prepare("UPDATE tasks SET state = ?, submitted_at_ms = ? WHERE seq = ?")?;
    for (task, attempt) in tasks {
        let found: Option<(Option<i64>, StoredState, u32, Option<u64>)> =
            find.first(values![task])?;
        let Some((submission, before, current, submitted_at_ms)) = found else { continue };
        // Another request may have published the same attempt, and had less luck.
        let unsubmitted = matches!(before, StoredState::Submitting | StoredState::Waiting);
        let is_news = unsubmitted || submitted_at_ms.is_none();
        if *attempt != current || !is_news {
            continue;
        }
        let state = if unsubmitted { StoredState::Submitted } else { before };
        update.execute(values![state.as_str(), submitted_at_ms.unwrap_or(now_ms), task])?;
        if unsubmitted {
            counts.moved(submission, before, state);
        }
    }
    counts.write(db)?;
    unaccounted::any(db, tasks.iter().map(|(task, _)| *task))
}

/// Records the tasks of a chunk, unless they are recorded already; `endpoint` is the id of its
/// endpoint, or the one that stands for its topic, and `new_id` gives the ids of new
/// ones. A conflict changes nothing.
pub(super) fn record(
    write: &mut Write<'_>,
    endpoint: EndpointId,
    chunk: &Chunk,
    new_id: impl Fn() -> TaskId,
) -> Result<(Vec<RecordedTask>, Option<u64>)> {
    let db = write.db;
    let topic = match &chunk.to {
        Destination::Topic(order) => Some(topic_tasks::address(write, order)?),
        Destination::Endpoint(_) => None,
    };
    let number = topic.as_ref().map(|to| to.topic);
    let of = submission(db, endpoint, chunk)?;
    let Submission { row: submission, new, due_at_ms } = of;
    let mut known = if new { BTreeMap::new() } else { known(db, submission, chunk)? };
    let missing = chunk.specs.len() - known.len();
    if !new && missing > 0 && has_forgotten(db, submission)? {
        return Err(Error::Conflict(format!(
            "tasks of the submission with the key '{}' are forgotten, and would run again: choose \
             another key",
            chunk.key
        )));
    }
    // What is placed is published where it is placed, and again by the placer.
    let again = if chunk.handing == Handing::Unconfirmed && topic.is_none() {
        hand_over_known(db, &mut known)?
    } else {
        BTreeMap::new()
    };
    let (state, hand_over) = match chunk.handing {
        _ if due_at_ms.is_some_and(|due| due > chunk.now_ms) => (StoredState::Scheduled, None),
        _ if topic.is_some() => (StoredState::InTopic, None),
        Handing::Nothing => (StoredState::Waiting, None),
        Handing::New | Handing::Unconfirmed => (StoredState::Submitting, Some(HandOver::First)),
    };
    let mut rows = db.reserve_tasks(missing)?.into_iter();
    let mut recorded = Vec::with_capacity(chunk.specs.len());
    for (index, spec) in (chunk.first..).zip(&chunk.specs) {
        if let Some(task) = known.get(&index) {
            let hand_over = again.get(&index).copied();
            recorded
                .push(RecordedTask { hand_over, ..recorded_before(db, task, spec, &of, chunk)? });
        } else if let Some(seq) = rows.next() {
            let task = chunk.task(spec, &of, new_id(), chunk.now_ms);
            let body = encoded(&task)?;
            recorded.push(RecordedTask { seq, task, body, state, new: true, hand_over });
        }
    }
    let new: Vec<NewTask> = (chunk.first..)
        .zip(&recorded)
        .filter(|(_, recorded)| recorded.new)
        .map(|(index, recorded)| NewTask { index, recorded })
        .collect();
    let endpoint = write.ids.number(db, endpoint)?;
    insert(db, (endpoint, number), submission, &new, chunk.now_ms)?;
    if let Some(to) = &topic {
        let rows: Vec<topic_tasks::NewTopicTask<'_>> = new.iter().map(NewTask::of_topic).collect();
        let from = (state == StoredState::InTopic).then_some(chunk.now_ms);
        topic_tasks::insert(write, to, (submission, of.new), &rows, from)?;
    }
    if let Some(parent) = chunk.parent {
        children::insert(db, parent, new.iter().map(|one| one.recorded.seq))?;
    }
    let mut counts = StateCounts::default();
    counts.add(submission, state, i64::try_from(new.len()).unwrap_or(i64::MAX));
    counts.write(db)?;
    if state == StoredState::Scheduled && missing > 0 {
        // The clock may have been set back since the others were released.
        let update = "UPDATE submissions SET released_at_ms = NULL WHERE id = ?";
        db.run(update, values![submission])?;
    }
    Ok((recorded, due_at_ms))
}

/// Has tasks published that the broker is not known to have: those that wait are `submitting`
/// from here on. Returns them, by index.
fn hand_over_known(
    db: &Db<'_>,
    known: &mut BTreeMap<u64, KnownTask>,
) -> Result<BTreeMap<u64, HandOver>> {
    let mut all = BTreeMap::new();
    let mut waiting = Vec::new();
    for task in known.values_mut() {
        match task.state {
            StoredState::Waiting => {
                task.state = StoredState::Submitting;
                waiting.push((task.seq, task.current_attempt));
                all.insert(task.index, HandOver::First);
            }
            // One that is to be cancelled is not published again.
            StoredState::Submitting if cancel_requests::is_requested(db, task.seq)? => (),
            StoredState::Submitting => drop(all.insert(task.index, HandOver::Again)),
            StoredState::Scheduled
            | StoredState::InTopic
            | StoredState::Paused
            | StoredState::Submitted
            | StoredState::Done(_) => (),
        }
    }
    set_state(db, &waiting, &[StoredState::Waiting], StoredState::Submitting)?;
    Ok(all)
}

/// The submission that a chunk belongs to; made if there is none.
fn submission(db: &Db<'_>, to: EndpointId, chunk: &Chunk) -> Result<Submission> {
    let find = "SELECT id, endpoint_id, total, due_at_ms FROM submissions WHERE key = ?";
    let found: Option<(i64, EndpointId, u64, Option<u64>)> = db.one(find, values![&chunk.key])?;
    let Some((submission, endpoint, total, due_at_ms)) = found else {
        let due = chunk.due.map(|due| due.moment(chunk.now_ms));
        let released = due.filter(|due| *due <= chunk.now_ms).map(|_| chunk.now_ms);
        let insert = format!(
            "INSERT INTO submissions (id, key, endpoint_id, total, created_at_ms, due_at_ms, \
             released_at_ms) VALUES ({}, ?, ?, ?, ?, ?, ?) RETURNING id",
            db.dialect().next_submission
        );
        let values = values![&chunk.key, to, chunk.total, chunk.now_ms, due, released];
        let (id,) = db.only(&insert, values)?;
        if let Some(policy) = &chunk.retry {
            retries::insert_policy(db, id, policy)?;
        }
        return Ok(Submission { row: id, due_at_ms: due, new: true });
    };
    let differs = |what: String| {
        Err(Error::Conflict(format!(
            "the key '{}' is that of another submission: {what}; choose another key",
            chunk.key
        )))
    };
    if endpoint != to {
        return differs(recipient(db, endpoint)?);
    }
    if total != chunk.total {
        return differs(format!("it has {total} tasks, this one has {}", chunk.total));
    }
    if retries::of_submission(db, submission)? != chunk.retry {
        return differs("its tasks are run again after other outcomes or pauses".to_owned());
    }
    let same = match chunk.due {
        None => due_at_ms.is_none(),
        Some(DueTime::AtMs(at)) => due_at_ms == Some(at),
        // Of the first request, it counts.
        Some(DueTime::InMs(_)) => due_at_ms.is_some(),
    };
    if !same {
        return differs(match due_at_ms {
            Some(at) => format!("its tasks are scheduled for {}", moment(at)),
            None => "its tasks are not scheduled for later".to_owned(),
        });
    }
    Ok(Submission { row: submission, due_at_ms, new: false })
}

/// Where the submission went, in words.
fn recipient(db: &Db<'_>, id: EndpointId) -> Result<String> {
    let find = "SELECT t.name FROM topics t JOIN interned_ids n ON n.n = t.n WHERE n.id = ?";
    let topic = db.one::<(String,)>(find, values![id])?;
    let to = topic.map_or_else(|| format!("endpoint {id}"), |(name,)| format!("topic '{name}'"));
    Ok(format!("it went to the {to}"))
}

/// Whether some of a submission's tasks are forgotten.
fn has_forgotten(db: &Db<'_>, submission: i64) -> Result<bool> {
    db.exists("SELECT 1 FROM submissions WHERE id = ? AND forgotten > 0", values![submission])
}

/// The tasks of the chunk that are recorded already, by index.
fn known(db: &Db<'_>, submission: i64, chunk: &Chunk) -> Result<BTreeMap<u64, KnownTask>> {
    let find = "SELECT t.idx, t.seq, t.state, t.created_at_ms, t.current_attempt, p.body \
         FROM tasks t JOIN payloads p ON p.task = t.seq \
         WHERE t.submission = ? AND t.idx >= ? AND t.idx < ?";
    let end = chunk.first.saturating_add(chunk.specs.len() as u64);
    let tasks: Vec<KnownTask> = db.all(find, values![submission, chunk.first, end])?;
    Ok(tasks.into_iter().map(|task| (task.index, task)).collect())
}

/// A task that was recorded before, if it is the same.
fn recorded_before(
    db: &Db<'_>,
    known: &KnownTask,
    spec: &TaskSpec,
    of: &Submission,
    chunk: &Chunk,
) -> Result<RecordedTask> {
    let first = decoded(known.seq, &known.body, 1)?;
    if chunk.task(spec, of, first.id, known.created_at_ms) != first {
        return Err(Error::Conflict(format!(
            "the key '{}' is that of another submission: its task {} differs from this one; \
             choose another key",
            chunk.key, known.index
        )));
    }
    let task = Task { attempt: known.current_attempt, ..first };
    let task = expiries::current(db, known.seq, task)?;
    let body = if task.attempt == 1 { known.body.clone() } else { encoded(&task)? };
    let (seq, state) = (known.seq, known.state);
    Ok(RecordedTask { seq, task, body, state, new: false, hand_over: None })
}

fn insert(
    db: &Db<'_>,
    (endpoint, topic): (i64, Option<i64>),
    submission: i64,
    new: &[NewTask<'_>],
    now_ms: u64,
) -> Result<()> {
    let tasks = "tasks (seq, id, endpoint, submission, idx, name, command, state, created_at_ms";
    // As nearly always there are none, and every value costs.
    let terms = new.iter().any(|one| has_terms(&one.recorded.task));
    let topics = if topic.is_some() { ", topic" } else { "" };
    let tasks = [tasks, topics, if terms { ", priority, cores)" } else { ")" }].concat();
    db.insert(&tasks, new, |values, NewTask { index, recorded }| {
        let task = &recorded.task;
        append!(values, recorded.seq, &task.id, endpoint, submission, *index);
        append!(values, task.name.as_deref(), command(task), recorded.state.as_str(), now_ms);
        if topic.is_some() {
            append!(values, topic);
        }
        if terms {
            append!(values, task.priority.rank(), task.cores);
        }
    })?;
    db.insert("payloads (task, body)", new, |values, NewTask { recorded, .. }| {
        append!(values, recorded.seq, &recorded.body);
    })
}

/// Whether a task has another priority or takes more slots than one that names neither.
fn has_terms(task: &Task) -> bool {
    !task.priority.is_normal() || task.cores != 1
}

/// The beginning of the command line, as listings show it.
fn command(task: &Task) -> String {
    let process = match &task.work {
        Work::Process(process) => process,
        Work::Call(call) => return beginning(&call.to_string()),
    };
    let words = process.argv.iter().map(ByteString::shown);
    let mut shown = String::new();
    for word in words {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(&quoted(first_chars(&word, COMMAND_SHOWN + 1)));
        if first_chars(&shown, COMMAND_SHOWN).len() < shown.len() {
            break;
        }
    }
    beginning(&shown)
}

/// As much of a text as listings show.
fn beginning(text: &str) -> String {
    let shown = first_chars(text, COMMAND_SHOWN);
    let cut = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown}{cut}")
}

/// The first so many characters of a text, or all of it.
fn first_chars(text: &str, most: usize) -> &str {
    // A character takes at least one byte.
    let end = if text.len() > most { text.char_indices().nth(most) } else { None };
    end.map_or(text, |(end, _)| &text[..end])
}
