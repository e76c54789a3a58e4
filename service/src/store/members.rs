//! The facts that endpoints told of topics, as they are recorded with the states of their active instances.
//!
//! Touches the database only. Promises: an endpoint of which no active instance told a topic is
//! no member.

use super::engine::{Columns, Db, FromRow, values};
use super::rows::told;
use super::{Result, Write};
use crate::topics::{Change, MemberFacts};
use clutch_common::id::EndpointId;
use std::time::Duration;

/// An endpoint, with what its active instance told last.
pub(super) struct MemberRow {
    pub(super) endpoint: EndpointId,
    pub(super) facts: MemberFacts,
}

impl FromRow for MemberRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let (endpoint, name): (EndpointId, String) = (columns.next()?, columns.next()?);
        let (draining, lost_after_ms): (bool, u64) = (columns.next()?, columns.next()?);
        let told_at_ms = columns.next::<Option<u64>>()?.unwrap_or(0);
        let told = told(columns.next::<Option<String>>()?.as_deref());
        let details = told.details.as_ref();
        let facts = MemberFacts {
            name,
            slots: details.map_or(0, |details| details.slots),
            topics: details.map(|details| details.topics.clone()).unwrap_or_default(),
            functions: details.map(|details| details.functions.clone()).unwrap_or_default(),
            draining: draining || details.is_some_and(|details| details.draining),
            clock_offset_ms: told.clock_offset_ms,
            lost_after: Duration::from_millis(lost_after_ms),
            told_at_ms,
        };
        Ok(Self { endpoint, facts })
    }
}

/// Endpoints, with the state of the active instance of each; a condition may follow. It is that
/// of [`active`](clutch_common::failover::active).
const MEMBERS: &str = "SELECT e.id, e.name, e.draining, e.lost_after_ms, s.heard_at_ms, s.details \
     FROM endpoints e LEFT JOIN states s ON s.endpoint_id = e.id AND s.role = 'active' \
     AND s.superseded_at_ms IS NULL";

/// All endpoints.
pub(super) fn all(db: &Db<'_>) -> Result<Vec<MemberRow>> {
    db.all(MEMBERS, &[])
}

/// Tells the board what an endpoint told, or what is recorded of it, after that changed.
pub(super) fn take_in(write: &mut Write<'_>, endpoint: EndpointId, now_ms: u64) -> Result<()> {
    let find = format!("{MEMBERS} WHERE e.id = ?");
    if let Some(row) = write.db.one::<MemberRow>(&find, values![endpoint])? {
        write.topics.add(Change::Told(endpoint, row.facts), Some(now_ms));
    }
    Ok(())
}
