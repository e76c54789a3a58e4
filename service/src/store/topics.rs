//! Topics as people see them, and what the board of this run begins with.
//!
//! Touches the database only.

use super::engine::{Columns, Db, FromRow, values};
use super::stored_state::StoredState;
use super::{Result, Store, Write, members, topic_tasks};
use crate::model::{EarlierPlacement, PlacementRecord, TopicMember, TopicRecord, WaitingKind};
use crate::topics::{Change, MemberFacts, TaskKind, TaskPlacement};
use clutch_common::id::EndpointId;
use clutch_common::task::priority::Priority;
use std::collections::BTreeMap;

/// A kind of tasks, as it is recorded.
struct KindRow {
    number: i64,
    kind: TaskKind,
}

impl FromRow for KindRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let (number, topic) = (columns.next()?, columns.next()?);
        let mut name = || -> Result<Option<String>> {
            Ok(Some(columns.next::<String>()?).filter(|name| !name.is_empty()))
        };
        let (function, version) = (name()?, name()?);
        Ok(Self { number, kind: TaskKind { topic, function, version } })
    }
}

const KINDS: &str = "SELECT k.n, t.name, k.function, k.version FROM topic_kinds k \
     JOIN topics t ON t.n = k.topic";

/// A placed task that has no outcome.
struct PlacedRow {
    task: i64,
    state: StoredState,
    placed: TaskPlacement,
}

impl FromRow for PlacedRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let (task, state) = (columns.next()?, columns.next()?);
        let placed = TaskPlacement {
            member: columns.next()?,
            kind: columns.next()?,
            attempt: columns.next()?,
            cores: columns.next()?,
            start_by_ms: columns.next()?,
            claimed: columns.next()?,
        };
        Ok(Self { task, state, placed })
    }
}

/// The placed tasks of submissions that have open ones. The join is a `CROSS JOIN`: the other way
/// round, it would go through every task there is.
const PLACED: &str = "SELECT t.seq, t.state, n.id, tt.kind, tt.attempt, tt.cores, tt.start_by_ms, \
     tt.claimed FROM counts c CROSS JOIN tasks t JOIN topic_tasks tt ON tt.task = t.seq \
     JOIN interned_ids n ON n.n = tt.member WHERE t.submission = c.submission AND c.state = ? \
     AND c.tasks > 0 AND t.state = c.state AND t.topic IS NOT NULL";

struct PlacementRow {
    record: PlacementRecord,
    task: i64,
}

impl FromRow for PlacementRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let KindRow { number: task, kind } = KindRow::read(columns)?;
        let record = PlacementRecord {
            topic: kind.topic,
            function: kind.function,
            version: kind.version,
            member: columns.next()?,
            attempt: columns.next()?,
            placed_at_ms: columns.next()?,
            start_by_ms: columns.next()?,
            claimed: columns.next()?,
            place_by_ms: columns.next()?,
            earlier: Vec::new(),
        };
        Ok(Self { record, task })
    }
}

impl Store {
    /// The topics that tasks were submitted to or that endpoints name, by name.
    pub(crate) async fn topics(&self) -> Result<Vec<TopicRecord>> {
        self.read("reading the topics", |db| topics(db, None)).await
    }

    /// One topic; nothing if no task was submitted to it and no endpoint names it.
    pub(crate) async fn topic(&self, name: &str) -> Result<Option<TopicRecord>> {
        let name = name.to_owned();
        self.read("reading a topic", move |db| Ok(topics(db, Some(&name))?.pop())).await
    }

    /// The placement of the task in a row, if it is of a topic.
    pub(crate) async fn placement_of(&self, task: i64) -> Result<Option<PlacementRecord>> {
        self.read("reading the placement of a task", move |db| placement(db, task)).await
    }

    /// Tells the board all that is recorded, as a run begins.
    pub(crate) async fn load_topics(&self, now_ms: u64) -> Result<()> {
        let load = move |write: &mut Write<'_>| load(write, now_ms);
        self.record_only("reading what is placed", load, |()| ()).await
    }
}

fn topics(db: &Db<'_>, only: Option<&str>) -> Result<Vec<TopicRecord>> {
    let mut topics: BTreeMap<String, TopicRecord> = BTreeMap::new();
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let names: Vec<(String, i64)> = db.all("SELECT name, n FROM topics ORDER BY name", &[])?;
    for (name, number) in names.into_iter().filter(|(name, _)| wanted(name)) {
        let mut record = empty(&name);
        let find = format!("{KINDS} WHERE k.topic = ? ORDER BY k.function, k.version");
        let count = "SELECT count(*) FROM topic_tasks WHERE kind = ? AND waits = 1";
        for KindRow { number, kind } in db.all::<KindRow>(&find, values![number])? {
            let (tasks,) = db.only(count, values![number])?;
            if tasks > 0 {
                let TaskKind { function, version, .. } = kind;
                record.waiting.push(WaitingKind { function, version, tasks });
            }
        }
        topics.insert(name, record);
    }
    for state in [StoredState::Submitting, StoredState::Submitted] {
        let find = "SELECT p.name, CAST(sum(c.tasks) AS BIGINT) FROM topics p \
             JOIN interned_ids n ON n.n = p.n JOIN submissions s ON s.endpoint_id = n.id \
             JOIN counts c ON c.submission = s.id AND c.state = ? GROUP BY p.name";
        let found: Vec<(String, u64)> = db.all(find, values![state.as_str()])?;
        for (name, tasks) in found {
            topics.get_mut(&name).into_iter().for_each(|record| record.placed += tasks);
        }
    }
    for row in members::all(db)? {
        for name in row.facts.topics.iter().filter(|name| wanted(name)) {
            let record = topics.entry(name.clone()).or_insert_with(|| empty(name));
            record.members.push(member(row.endpoint, &row.facts));
        }
    }
    Ok(topics.into_values().collect())
}

fn empty(name: &str) -> TopicRecord {
    let (waiting, members) = (Vec::new(), Vec::new());
    TopicRecord { name: name.to_owned(), waiting, placed: 0, members }
}

fn member(endpoint: EndpointId, facts: &MemberFacts) -> TopicMember {
    let MemberFacts { name, slots, functions, draining, clock_offset_ms, .. } = facts.clone();
    TopicMember { endpoint, name, slots, functions, draining, clock_offset_ms }
}

fn placement(db: &Db<'_>, task: i64) -> Result<Option<PlacementRecord>> {
    let find = "SELECT tt.task, p.name, k.function, k.version, n.id, t.current_attempt, \
         tt.placed_at_ms, tt.start_by_ms, tt.claimed, \
         CASE tt.waits WHEN 1 THEN tt.place_by_ms END FROM topic_tasks tt \
         JOIN tasks t ON t.seq = tt.task JOIN topic_kinds k ON k.n = tt.kind \
         JOIN topics p ON p.n = k.topic LEFT JOIN interned_ids n ON n.n = tt.member \
         WHERE tt.task = ?";
    let Some(PlacementRow { mut record, task }) = db.one(find, values![task])? else {
        return Ok(None);
    };
    let find = "SELECT n.id FROM interned_ids n WHERE n.n = ?";
    for (member, attempt) in topic_tasks::earlier(db, task)? {
        let (member,) = db.only(find, values![member])?;
        record.earlier.push(EarlierPlacement { attempt, member });
    }
    Ok(Some(record))
}

fn load(write: &mut Write<'_>, now_ms: u64) -> Result<()> {
    let db = write.db;
    let now = Some(now_ms);
    for KindRow { number, kind } in db.all::<KindRow>(KINDS, &[])? {
        write.topics.add(Change::Kind(number, kind), now);
        let find =
            "SELECT 1 FROM topic_tasks WHERE kind = ? AND priority = ? AND waits = 1 LIMIT 1";
        for priority in Priority::ALL {
            if db.exists(find, values![number, priority.rank()])? {
                write.topics.add(Change::Waits(number, priority), now);
            }
        }
    }
    write.topics.add(Change::MayExpire(now_ms), now);
    for row in members::all(db)? {
        write.topics.add(Change::Told(row.endpoint, row.facts), now);
    }
    for state in [StoredState::Submitting, StoredState::Submitted] {
        for row in db.all::<PlacedRow>(PLACED, values![state.as_str()])? {
            write.topics.add(Change::Placed(row.task, row.placed), now);
            debug_assert_eq!(row.state, state);
        }
    }
    Ok(())
}
