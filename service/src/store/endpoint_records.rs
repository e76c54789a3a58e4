//! Everything recorded about endpoints, to be shown. Touches the database only.

use super::engine::{Columns, Db, FromRow, Value, values};
use super::rows::{OPEN_STATES, queue_kind, told};
use super::steering::{self, DrainStanding};
use super::{Endpoint, Result, Store};
use crate::model::{CancelsView, StateRecord};
use clutch_common::failover::KnownState;
use clutch_common::id::EndpointId;
use std::collections::BTreeMap;

/// An endpoint with all that is recorded about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointRecord {
    /// The endpoint.
    pub(crate) endpoint: Endpoint,
    /// When it was provisioned, in milliseconds since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// How long a state that another took over from may be silent.
    pub(crate) lost_after_ms: u64,
    /// Whether it is to drain.
    pub(crate) drain: DrainStanding,
    /// Its states, the one that was heard last first.
    pub(crate) states: Vec<StateRecord>,
    /// How many tasks without an outcome are in each state.
    pub(crate) open: BTreeMap<String, u64>,
    /// When the oldest submission with such tasks was recorded.
    pub(crate) oldest_ms: Option<u64>,
    /// How many attempts are unaccounted for.
    pub(crate) unaccounted: u64,
    /// How many of them no state was asked for.
    pub(crate) unasked: u64,
    /// Its cancellations.
    pub(crate) cancels: CancelsView,
}

impl FromRow for EndpointRecord {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let (id, name) = (columns.next()?, columns.next()?);
        let queue = queue_kind(&columns.next::<String>()?)?;
        let (created_at_ms, lost_after_ms) = (columns.next()?, columns.next()?);
        let drain = DrainStanding::read(columns)?;
        Ok(Self {
            endpoint: Endpoint { id, name, queue, draining: drain.draining },
            created_at_ms,
            lost_after_ms,
            drain,
            states: Vec::new(),
            open: BTreeMap::new(),
            oldest_ms: None,
            unaccounted: 0,
            unasked: 0,
            cancels: CancelsView::default(),
        })
    }
}

/// A state of an endpoint.
struct OwnState(EndpointId, StateRecord);

impl FromRow for OwnState {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let endpoint = columns.next()?;
        let state = StateRecord {
            known: KnownState::read(columns)?,
            known_since_ms: columns.next()?,
            heard_at_ms: columns.next()?,
            told: told(columns.next::<Option<String>>()?.as_deref()),
        };
        Ok(Self(endpoint, state))
    }
}

impl Store {
    /// Up to `limit` endpoints by name, those after a name.
    pub(crate) async fn endpoint_records(
        &self,
        after: String,
        limit: u64,
    ) -> Result<Vec<EndpointRecord>> {
        self.read("reading the endpoints", move |db| {
            records(db, "WHERE name > ? ORDER BY name LIMIT ?", values![after, limit], None)
        })
        .await
    }

    /// One endpoint; nothing if it is not known.
    pub(crate) async fn endpoint_record(&self, id: EndpointId) -> Result<Option<EndpointRecord>> {
        self.read("reading an endpoint", move |db| {
            let mut record = records(db, "WHERE id = ?", values![id], Some(id))?.pop();
            if let Some(record) = &mut record {
                record.cancels = cancels(db, id)?;
            }
            Ok(record)
        })
        .await
    }
}

/// The cancellations of an endpoint.
fn cancels(db: &Db<'_>, endpoint: EndpointId) -> Result<CancelsView> {
    let count = "SELECT count(*) FROM cancellations WHERE endpoint_id = ?";
    let (tasks,) = db.only(count, values![endpoint])?;
    let count = "SELECT count(*) FILTER (WHERE confirmed = 0), \
         count(*) FILTER (WHERE confirmed = 1) FROM cancels WHERE endpoint_id = ?";
    let (unsent, in_force) = db.only(count, values![endpoint])?;
    Ok(CancelsView { tasks, unsent, in_force })
}

/// The endpoints of a condition; `only` is the one that it chooses, if it is one.
fn records(
    db: &Db<'_>,
    condition: &str,
    chosen: &[Value<'_>],
    only: Option<EndpointId>,
) -> Result<Vec<EndpointRecord>> {
    let find = format!(
        "SELECT id, name, queue_kind, created_at_ms, lost_after_ms, {} {condition}",
        steering::STANDING
    );
    let mut records: Vec<EndpointRecord> = db.all(&find, chosen)?;
    let mut by_id: BTreeMap<EndpointId, &mut EndpointRecord> =
        records.iter_mut().map(|record| (record.endpoint.id, record)).collect();
    let own = |column: &str| only.map_or(String::new(), |_| format!("AND {column} = ? "));
    let values: Vec<Value<'_>> = only.into_iter().map(Value::from).collect();

    let states = format!(
        "SELECT endpoint_id, id, instance, role, holds, active_since_ms, superseded_at_ms, \
         given_up_at_ms, known_since_ms, heard_at_ms, details FROM states \
         WHERE 1 = 1 {}ORDER BY heard_at_ms DESC, id",
        own("endpoint_id")
    );
    for OwnState(endpoint, state) in db.all(&states, &values)? {
        by_id.get_mut(&endpoint).into_iter().for_each(|record| record.states.push(state.clone()));
    }
    let open = format!(
        "SELECT s.endpoint_id, c.state, CAST(sum(c.tasks) AS BIGINT), min(s.created_at_ms) \
         FROM counts c JOIN submissions s ON s.id = c.submission \
         WHERE c.tasks > 0 AND c.state IN {OPEN_STATES} {}GROUP BY s.endpoint_id, c.state",
        own("s.endpoint_id")
    );
    let found: Vec<(EndpointId, String, u64, u64)> = db.all(&open, &values)?;
    for (endpoint, state, tasks, since_ms) in found {
        let Some(record) = by_id.get_mut(&endpoint) else { continue };
        record.open.insert(state, tasks);
        record.oldest_ms = Some(record.oldest_ms.map_or(since_ms, |oldest| oldest.min(since_ms)));
    }
    let doubts = format!(
        "SELECT endpoint_id, count(*), count(*) FILTER (WHERE asked_at_ms IS NULL) \
         FROM unaccounted WHERE 1 = 1 {}GROUP BY endpoint_id",
        own("endpoint_id")
    );
    let found: Vec<(EndpointId, u64, u64)> = db.all(&doubts, &values)?;
    for (endpoint, unaccounted, unasked) in found {
        let Some(record) = by_id.get_mut(&endpoint) else { continue };
        (record.unaccounted, record.unasked) = (unaccounted, unasked);
    }
    Ok(records)
}
