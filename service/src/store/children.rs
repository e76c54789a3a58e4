//! The relations of tasks, by which messages between them are allowed and families are shown:
//! the submissions that they share, and the parents of tasks that tasks submitted.
//!
//! Touches the database only. Promises: no child is recorded of a task that has its outcome or is
//! to be cancelled, so that a family that is cancelled gets no new members; a task without a parent has no row here; the facts of a
//! task take one look-up by its id.

use super::engine::{Columns, Db, FromRow, append, values};
use super::stored_state::StoredState;
use super::{Error, Result, Store, cancel_requests};
use crate::model::{Family, Relative, TaskState};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::kinship::Kin;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many descendants of a task are shown with it.
const SHOWN: usize = 200;
/// The most descendants that one request takes along.
const MAX_DESCENDANTS: usize = 1_000_000;

/// The facts about a task that decide over messages from and to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskFacts {
    /// Its row.
    pub(crate) seq: i64,
    /// Its relations.
    pub(crate) kin: Kin,
    /// The endpoint that it is for.
    pub(crate) endpoint: EndpointId,
    /// Its state.
    pub(crate) state: StoredState,
    /// The attempt under way, or the last one.
    pub(crate) attempt: u32,
}

impl FromRow for TaskFacts {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let (seq, task) = (columns.next()?, columns.next()?);
        // A row of a submission is never 0.
        let group = columns.next::<Option<u64>>()?.unwrap_or(0);
        let kin = Kin { task, group, parent: columns.next()? };
        let (endpoint, state, attempt) = (columns.next()?, columns.next()?, columns.next()?);
        Ok(Self { seq, kin, endpoint, state, attempt })
    }
}

impl Store {
    /// The facts about those of these tasks that are known.
    pub(crate) async fn task_facts(
        &self,
        tasks: BTreeSet<TaskId>,
    ) -> Result<BTreeMap<TaskId, TaskFacts>> {
        self.read("looking up the tasks of a message", move |db| {
            let find = "SELECT t.seq, t.id, t.submission, c.parent, n.id, t.state, \
                 t.current_attempt FROM tasks t JOIN interned_ids n ON n.n = t.endpoint \
                 LEFT JOIN children c ON c.task = t.seq WHERE t.id = ?";
            let mut find = db.prepare(find)?;
            let mut facts = BTreeMap::new();
            for task in tasks {
                facts.extend(find.first::<TaskFacts>(values![&task])?.map(|found| (task, found)));
            }
            Ok(facts)
        })
        .await
    }
}

impl Store {
    /// The rows of the descendants of tasks that have no outcome, each once and after its parent.
    pub(crate) async fn open_descendants(&self, tasks: Vec<TaskId>) -> Result<Vec<i64>> {
        self.read("looking for the tasks of tasks", move |db| {
            let mut open = Vec::new();
            let mut met: BTreeSet<TaskId> = tasks.iter().copied().collect();
            let mut parents = VecDeque::from(tasks);
            while let Some(parent) = parents.pop_front()
                && met.len() < MAX_DESCENDANTS
            {
                for RelativeRow(seq, child) in children_of(db, parent, MAX_DESCENDANTS)? {
                    if met.insert(child.id) {
                        parents.push_back(child.id);
                        if !matches!(child.state, TaskState::Done(_)) {
                            open.push(seq);
                        }
                    }
                }
            }
            Ok(open)
        })
        .await
    }
}

/// A task with its row.
struct RelativeRow(i64, Relative);

impl FromRow for RelativeRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let seq = columns.next()?;
        let (id, parent) = (columns.next()?, columns.next()?);
        let state = columns.next::<StoredState>()?.shown();
        let (name, command) = (columns.next()?, columns.next()?);
        Ok(Self(seq, Relative { id, parent, state, name, command }))
    }
}

/// The columns and tables of a [`RelativeRow`].
const RELATIVE: &str = "SELECT t.seq, t.id, c.parent, t.state, t.name, t.command FROM tasks t \
     LEFT JOIN children c ON c.task = t.seq ";

/// Children of a task, in the order of their recording, at most so many.
fn children_of(db: &Db<'_>, parent: TaskId, limit: usize) -> Result<Vec<RelativeRow>> {
    let find = format!("{RELATIVE}WHERE c.parent = ? ORDER BY c.task LIMIT ?");
    db.all(&find, values![&parent, limit as u64])
}

/// The relatives of the task in a row that are shown with it.
pub(super) fn family(db: &Db<'_>, seq: i64, id: TaskId) -> Result<Family> {
    let find = "SELECT parent FROM children WHERE task = ?";
    let parent_id = db.one::<(TaskId,)>(find, values![seq])?.map(|(parent,)| parent);
    let find = format!("{RELATIVE}WHERE t.id = ?");
    let parent = match &parent_id {
        Some(parent) => db.one::<RelativeRow>(&find, values![parent])?.map(|row| row.1),
        None => None,
    };
    let mut family = Family { parent_id, parent, ..Family::default() };
    // The last one is shown next.
    let mut open: Vec<Relative> = Vec::new();
    let mut parent = id;
    loop {
        let children = children_of(db, parent, SHOWN + 1)?.into_iter().rev();
        open.extend(children.map(|RelativeRow(_, child)| child));
        let Some(next) = open.pop() else { return Ok(family) };
        if family.descendants.len() == SHOWN {
            family.more = true;
            return Ok(family);
        }
        parent = next.id;
        family.descendants.push(next);
    }
}

/// Notes the parent of new tasks. A conflict where that has ended, or is to be cancelled.
pub(super) fn insert(
    db: &Db<'_>,
    parent: TaskId,
    children: impl Iterator<Item = i64>,
) -> Result<()> {
    let children: Vec<i64> = children.collect();
    if children.is_empty() {
        return Ok(());
    }
    let find = "SELECT seq, state FROM tasks WHERE id = ?";
    let reason = match db.one::<(i64, StoredState)>(find, values![&parent])? {
        None => "is not known",
        Some((_, StoredState::Done(_))) => "has ended",
        Some((seq, _)) if cancel_requests::is_requested(db, seq)? => "is to be cancelled",
        Some(_) => "",
    };
    if !reason.is_empty() {
        return Err(Error::Conflict(format!("the task that submits these {reason}")));
    }
    db.insert("children (task, parent)", &children, |values, child| {
        append!(values, child, &parent);
    })
}
