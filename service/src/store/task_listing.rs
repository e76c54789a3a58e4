//! Lists tasks under a filter, in pages that cost about the same however many tasks there are.
//!
//! A position is a task's row, or in one submission its index. A page begins below a position,
//! and goes downwards: the newest tasks first. Where no index leads to the tasks of a filter,
//! a page goes through a bounded number of positions; it may then be short, or empty, and name
//! the position where the next one begins. Touches the database only.

use super::engine::{Columns, Db, FromRow, Value, values};
use super::rows::{SUMMARY_COLUMNS, SummaryRow, index_condition, summary_tables};
use super::stored_state::StoredState;
use super::{Result, Store};
use crate::model::{NamePattern, Page, TaskState, TaskSummary};
use clutch_common::id::EndpointId;
use clutch_common::task::priority::Priority;
use std::ops::ControlFlow;

/// How many positions a page goes through where no index leads to its tasks.
const POSITIONS: u64 = 50_000;

/// Selects the tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskFilter {
    /// Only those of this endpoint.
    pub(crate) endpoint: Option<EndpointId>,
    /// Only those of this topic.
    pub(crate) topic: Option<String>,
    /// Only those in one of these states; in any if there are none.
    pub(crate) states: Vec<TaskState>,
    /// Only those of this submission.
    pub(crate) submission: Option<i64>,
    /// Only those with such a name.
    pub(crate) name: Option<NamePattern>,
    /// Only those of this level.
    pub(crate) priority: Option<Priority>,
    /// Only those recorded at this moment or later, in milliseconds since the Unix epoch.
    pub(crate) since_ms: Option<u64>,
    /// Only those recorded before this moment.
    pub(crate) until_ms: Option<u64>,
    /// Only those that come after the page with this `next`.
    pub(crate) before: Option<u64>,
    /// At most this many.
    pub(crate) limit: u64,
}

impl TaskFilter {
    /// The name of the column that has a task's position.
    fn position(&self) -> &'static str {
        if self.submission.is_some() { "t.idx" } else { "t.seq" }
    }

    /// The states in the database of the tasks that are listed; none if those in any are.
    fn stored(&self) -> impl Iterator<Item = StoredState> {
        self.states.iter().flat_map(|state| StoredState::shown_as(*state))
    }

    /// Whether tasks that are not listed may lie between those that are, many of them.
    fn passes_tasks_by(&self) -> bool {
        let common = |state: StoredState| index_condition(state).is_empty();
        let times = self.submission.is_some() && (self.since_ms.or(self.until_ms)).is_some();
        let filtered = self.name.is_some() || self.topic.is_some() || self.priority.is_some();
        filtered || times || self.stored().any(common)
    }
}

/// The positions that a page goes through: from `from` on, and below `below`.
struct Range {
    from: u64,
    below: u64,
    /// Whether there may be tasks below `from`.
    goes_on: bool,
}

impl Store {
    /// Lists tasks, newest first; those of one submission by falling index.
    pub(crate) async fn tasks(&self, filter: &TaskFilter) -> Result<Page<TaskSummary>> {
        let filter = filter.clone();
        self.read("listing tasks", move |db| tasks(db, &filter)).await
    }

    /// Lists submitted tasks at these falling positions, under the other conditions of a
    /// filter. A page goes through as many positions as it may have tasks.
    pub(crate) async fn tasks_at(
        &self,
        filter: &TaskFilter,
        positions: Vec<u64>,
    ) -> Result<Page<TaskSummary>> {
        let filter = filter.clone();
        self.read("listing tasks", move |db| tasks_at(db, &filter, &positions)).await
    }
}

fn tasks(db: &Db<'_>, filter: &TaskFilter) -> Result<Page<TaskSummary>> {
    let range = range(db, filter)?;
    let mut rows = Vec::new();
    if filter.states.is_empty() {
        rows = select(db, filter, None, &range)?;
    }
    // One state after the other, as an index has the tasks of each in order.
    for state in filter.stored() {
        rows.extend(select(db, filter, Some(state), &range)?);
    }
    if filter.stored().count() > 1 {
        rows.sort_by_key(|row| std::cmp::Reverse(row.position));
        rows.dedup_by_key(|row| row.position);
    }
    let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let next = match rows.get(limit.saturating_sub(1)) {
        Some(last) => Some(last.position),
        None => range.goes_on.then_some(range.from),
    };
    rows.truncate(limit);
    Ok(Page { items: rows.into_iter().map(|row| row.row.summary).collect(), next })
}

fn tasks_at(db: &Db<'_>, filter: &TaskFilter, positions: &[u64]) -> Result<Page<TaskSummary>> {
    let left = positions.iter().filter(|at| filter.before.is_none_or(|before| **at < before));
    let mut left = left.copied().peekable();
    let mut page = Page { items: Vec::new(), next: None };
    for _ in 0..filter.limit {
        let Some(position) = left.next() else { break };
        let range = Range { from: position, below: position + 1, goes_on: false };
        let found = select(db, filter, Some(StoredState::Submitted), &range)?;
        page.items.extend(found.into_iter().map(|listed| listed.row.summary));
        page.next = left.peek().map(|_| position);
    }
    Ok(page)
}

fn range(db: &Db<'_>, filter: &TaskFilter) -> Result<Range> {
    let (mut first, mut below) = match filter.submission {
        Some(submission) => {
            let find = "SELECT max(idx) FROM tasks WHERE submission = ?";
            let (last,) = db.only::<(Option<u64>,)>(find, values![submission])?;
            (0, last.map_or(0, |last| last + 1))
        }
        None => rows(db)?,
    };
    if filter.submission.is_none() {
        first = filter.since_ms.map_or(Ok(first), |ms| first_since(db, ms))?;
        below = filter.until_ms.map_or(Ok(below), |ms| first_since(db, ms))?;
    }
    let below = filter.before.map_or(below, |before| below.min(before));
    let from = if filter.passes_tasks_by() { below.saturating_sub(POSITIONS) } else { first };
    Ok(Range { from: from.max(first), below, goes_on: from > first })
}

/// The first row, and that after the last one.
fn rows(db: &Db<'_>) -> Result<(u64, u64)> {
    let (first,) = db.only::<(Option<u64>,)>("SELECT min(seq) FROM tasks", &[])?;
    let (last,) = db.only::<(Option<u64>,)>("SELECT max(seq) FROM tasks", &[])?;
    Ok((first.unwrap_or(0), last.map_or(0, |last| last + 1)))
}

/// The first row of a task that was recorded at a moment or later, found by halving: rows are
/// in the order of recording.
fn first_since(db: &Db<'_>, ms: u64) -> Result<u64> {
    let (mut low, mut high) = rows(db)?;
    while low < high {
        let middle = low + (high - low) / 2;
        let find = "SELECT seq, created_at_ms FROM tasks WHERE seq >= ? ORDER BY seq LIMIT 1";
        match db.one::<(u64, u64)>(find, values![middle])? {
            Some((row, created)) if created < ms => low = row + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

/// A listed task, and its position.
struct ListedRow {
    position: u64,
    row: SummaryRow,
}

impl FromRow for ListedRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self { position: columns.next()?, row: SummaryRow::read(columns)? })
    }
}

fn select(
    db: &Db<'_>,
    filter: &TaskFilter,
    state: Option<StoredState>,
    range: &Range,
) -> Result<Vec<ListedRow>> {
    let position = filter.position();
    let tables = summary_tables(db.dialect());
    let mut sql = format!(
        "SELECT {position}, {SUMMARY_COLUMNS}{tables}WHERE {position} >= ? AND {position} < ?"
    );
    let mut values: Vec<Value<'_>> = vec![range.from.into(), range.below.into()];
    let mut also = |condition: &str, value| {
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(submission) = filter.submission {
        also(" AND t.submission = ?", submission.into());
    }
    if let Some(id) = filter.endpoint {
        // A submission belongs to one endpoint, so that its own index serves best.
        let column = match filter.submission {
            Some(_) => db.dialect().endpoint_in_submission,
            None => "t.endpoint",
        };
        also(&format!(" AND {column} = (SELECT n FROM interned_ids WHERE id = ?)"), id.into());
    }
    if let Some(state) = state {
        also(&format!(" AND t.state = ?{}", index_condition(state)), state.as_str().into());
    }
    if let Some(topic) = &filter.topic {
        also(" AND t.topic = (SELECT n FROM topics WHERE name = ?)", topic.as_str().into());
    }
    if let Some(name) = &filter.name {
        also(" AND t.name LIKE ? ESCAPE '\\'", name.like().into());
    }
    if let Some(priority) = filter.priority {
        also(" AND t.priority = ?", priority.rank().into());
    }
    if let Some(since_ms) = filter.since_ms {
        also(" AND t.created_at_ms >= ?", since_ms.into());
    }
    if let Some(until_ms) = filter.until_ms {
        also(" AND t.created_at_ms < ?", until_ms.into());
    }
    sql.push_str(&format!(" ORDER BY {position} DESC"));
    let mut found = Vec::new();
    db.each(&sql, &values, |listed: ListedRow| {
        // `LIKE` passes over the case of letters in one engine and not in another.
        let name = listed.row.summary.name.as_deref().unwrap_or_default();
        if filter.name.as_ref().is_none_or(|pattern| pattern.matches(name)) {
            found.push(listed);
        }
        let full = found.len() as u64 >= filter.limit;
        Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}
