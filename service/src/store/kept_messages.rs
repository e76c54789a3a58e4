//! The messages that the service keeps for tasks until a process took them.
//!
//! Touches the database only. Promises: a message is recorded once, however often it comes; its
//! bytes go when it is taken, or cannot be any more; a target has a bounded number of them.

use super::engine::{Columns, Db, FromRow, values};
use super::{Error, Result, Store, TaskFacts};
use crate::model::{MessageState, MessageView};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::task::kinship::Kin;
use clutch_common::task::result::Outcome;
use std::ops::ControlFlow;
use uuid::Uuid;

/// The most messages that are kept for one task.
const MAX_MESSAGES: u64 = 1000;
/// The most bytes of them.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// How many bytes of messages are read at once, give or take one.
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// A message that is to be kept.
#[derive(Clone, Debug)]
pub(crate) struct NewMessage {
    /// Its id.
    pub(crate) id: Uuid,
    /// The attempt that sent it.
    pub(crate) source: Attempt,
    /// The row of its target.
    pub(crate) task: i64,
    /// The attempt of the target that alone may take it.
    pub(crate) pinned: Option<u32>,
    /// The addressee.
    pub(crate) addressee: String,
    /// The bytes.
    pub(crate) body: Vec<u8>,
}

/// The fate of a message that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// It is kept, and was not before.
    New,
    /// It was recorded before.
    Known,
    /// Too many messages are kept for its target.
    NoRoom,
    /// Its id is that of another message.
    OtherMessage,
}

/// A message that is kept, and what decides over its way.
#[derive(Clone, Debug)]
pub(crate) struct KeptMessage {
    /// Its place in the order of all.
    pub(crate) n: i64,
    /// Its id.
    pub(crate) id: Uuid,
    /// The attempt that sent it.
    pub(crate) source: Attempt,
    /// The attempt of the target that alone may take it.
    pub(crate) pinned: Option<u32>,
    /// The addressee.
    pub(crate) addressee: String,
    /// The bytes.
    pub(crate) body: Vec<u8>,
    /// The facts about its target.
    pub(crate) target: TaskFacts,
}

impl FromRow for KeptMessage {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let (n, id) = (columns.next()?, columns.next()?);
        let source = Attempt { task_id: columns.next()?, attempt: columns.next()? };
        let (pinned, addressee, body) = (columns.next()?, columns.next()?, columns.next()?);
        let (seq, task) = (columns.next()?, columns.next::<TaskId>()?);
        let endpoint = columns.next::<EndpointId>()?;
        let (state, attempt) = (columns.next()?, columns.next()?);
        let kin = Kin { task, group: 0, parent: None };
        let target = TaskFacts { seq, kin, endpoint, state, attempt };
        Ok(Self { n, id, source, pinned, addressee, body, target })
    }
}

/// Which of the messages that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhichKept {
    /// All of them.
    All,
    /// Those to the task in a row.
    To(i64),
    /// Those to tasks that have their outcome.
    ToEnded,
}

/// The end of a message that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageEnd {
    /// A process of this attempt took it.
    Taken(u32),
    /// This newer attempt is there.
    Superseded(u32),
    /// Its target has this outcome.
    Ended(Outcome),
}

impl Store {
    /// Keeps a message, unless it was recorded before.
    pub(crate) async fn keep_message(&self, message: NewMessage, now_ms: u64) -> Result<Keeping> {
        self.write("keeping a message", move |write| keep(write.db, &message, now_ms)).await
    }

    /// How many messages are kept.
    pub(crate) async fn count_kept(&self) -> Result<u64> {
        self.read("counting messages", |db| {
            Ok(db.only::<(u64,)>("SELECT count(*) FROM messages WHERE state = 'kept'", &[])?.0)
        })
        .await
    }

    /// The messages that are kept, in order, from behind a place on: as many as may be read at
    /// once.
    pub(crate) async fn kept_messages(
        &self,
        which: WhichKept,
        after: i64,
        most: usize,
    ) -> Result<Vec<KeptMessage>> {
        self.read("reading messages", move |db| {
            let condition = match which {
                WhichKept::All => "",
                WhichKept::To(_) => " AND m.task = ?",
                WhichKept::ToEnded => {
                    " AND t.state <> 'scheduled' AND t.state <> 'unplaced' AND t.state <> 'waiting' \
                     AND t.state <> 'paused' AND t.state <> 'submitting' AND t.state <> 'submitted'"
                }
            };
            let find = format!(
                "SELECT m.n, m.id, m.source, m.source_attempt, m.pinned, m.addressee, m.body, \
                 t.seq, t.id, i.id, t.state, t.current_attempt FROM messages m \
                 JOIN tasks t ON t.seq = m.task JOIN interned_ids i ON i.n = t.endpoint \
                 WHERE m.state = 'kept' AND m.n > ?{condition} ORDER BY m.n"
            );
            let mut values = values![after].to_vec();
            if let WhichKept::To(task) = which {
                values.push(task.into());
            }
            let (mut found, mut bytes) = (Vec::new(), 0);
            db.each(&find, &values, |message: KeptMessage| {
                bytes += message.body.len();
                found.push(message);
                let full = found.len() >= most || bytes >= PAGE_BYTES;
                Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            Ok(found)
        })
        .await
    }

    /// Records the end of a message; returns whether it was kept until then.
    pub(crate) async fn end_message(&self, id: Uuid, end: MessageEnd, now_ms: u64) -> Result<bool> {
        self.write("recording the end of a message", move |write| {
            let (state, attempt) = match end {
                MessageEnd::Taken(attempt) => ("taken", Some(attempt)),
                MessageEnd::Superseded(attempt) => ("superseded", Some(attempt)),
                MessageEnd::Ended(outcome) => (outcome.as_str(), None),
            };
            let update = "UPDATE messages SET state = ?, attempt = ?, ended_at_ms = ?, body = ? \
                 WHERE id = ? AND state = 'kept'";
            let nothing: &[u8] = &[];
            let values = values![state, attempt, now_ms, nothing, id.to_string()];
            Ok(write.db.run(update, values)? > 0)
        })
        .await
    }

    /// A message that is kept, or was; nothing if it is not known, or its target is forgotten.
    pub(crate) async fn message(&self, id: Uuid) -> Result<Option<MessageView>> {
        self.read("reading a message", move |db| {
            let find = "SELECT m.id, m.source, m.source_attempt, t.id, m.addressee, m.bytes, \
                 m.state, m.attempt, m.kept_at_ms, m.ended_at_ms FROM messages m \
                 JOIN tasks t ON t.seq = m.task WHERE m.id = ?";
            db.one(find, values![id.to_string()])
        })
        .await
    }
}

impl FromRow for MessageView {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let (id, source, source_attempt) = (columns.next()?, columns.next()?, columns.next()?);
        let (to, addressee, bytes) = (columns.next()?, columns.next()?, columns.next()?);
        let stored: String = columns.next()?;
        let (state, outcome) = match stored.as_str() {
            "kept" => (MessageState::Kept, None),
            "taken" => (MessageState::Taken, None),
            "superseded" => (MessageState::Superseded, None),
            outcome => (MessageState::Ended, Some(super::rows::parsed(outcome)?)),
        };
        let (attempt, kept_at_ms, ended_at_ms) =
            (columns.next()?, columns.next()?, columns.next()?);
        Ok(Self {
            id,
            source,
            source_attempt,
            to,
            addressee,
            bytes,
            state,
            outcome,
            attempt,
            kept_at_ms,
            ended_at_ms,
        })
    }
}

/// How many messages are kept for the task in a row.
pub(super) fn count_of(db: &Db<'_>, task: i64) -> Result<u64> {
    let count = "SELECT count(*) FROM messages WHERE task = ? AND state = 'kept'";
    Ok(db.only::<(u64,)>(count, values![task])?.0)
}

fn keep(db: &Db<'_>, message: &NewMessage, now_ms: u64) -> Result<Keeping> {
    let NewMessage { id, source, task, pinned, addressee, body } = message;
    let find = "SELECT task, source FROM messages WHERE id = ?";
    if let Some(known) = db.one::<(i64, TaskId)>(find, values![id.to_string()])? {
        let same = known == (*task, source.task_id);
        return Ok(if same { Keeping::Known } else { Keeping::OtherMessage });
    }
    let room = "SELECT count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM messages \
         WHERE task = ? AND state = 'kept'";
    let (messages, bytes): (u64, u64) = db.only(room, values![task])?;
    let size = body.len() as u64;
    if messages >= MAX_MESSAGES || bytes + size > MAX_BYTES {
        return Ok(Keeping::NoRoom);
    }
    if !db.exists("SELECT 1 FROM tasks WHERE seq = ?", values![task])? {
        return Err(Error::Conflict("the target is forgotten".to_owned()));
    }
    let insert = "INSERT INTO messages (id, task, source, source_attempt, pinned, addressee, \
         bytes, body, kept_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = values![
        id.to_string(),
        task,
        &source.task_id,
        source.attempt,
        *pinned,
        addressee,
        size,
        body.as_slice(),
        now_ms,
    ];
    db.run(insert, values)?;
    Ok(Keeping::New)
}
