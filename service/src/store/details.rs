//! Keeps the details that instances tell of themselves with their states, for people. Touches the database
//! only.

use super::engine::{Db, values};
use super::rows::told;
use super::{PresenceMessage, Result};
use crate::model::Told;
use clutch_common::wire::InstanceDetails;

/// Keeps the details that a presence tells of its instance.
pub(super) fn keep(db: &Db<'_>, message: &PresenceMessage, now_ms: u64) -> Result<()> {
    let presence = &message.presence;
    let (endpoint, state) = (presence.endpoint_id, presence.state_id);
    let find = "SELECT details FROM states WHERE endpoint_id = ? AND id = ?";
    let Some((text,)) = db.one::<(Option<String>,)>(find, values![endpoint, &state])? else {
        return Ok(());
    };
    let before = told(text.as_deref());
    let after = after(&before, message, now_ms);
    if after == before {
        return Ok(());
    }
    let text = serde_json::to_string(&after)
        .map_err(|error| super::Error::Unreadable(format!("details of an instance: {error}")))?;
    let update = "UPDATE states SET details = ? WHERE endpoint_id = ? AND id = ?";
    db.run(update, values![text, endpoint, &state]).map(drop)
}

/// The details of an instance after a presence.
fn after(before: &Told, message: &PresenceMessage, now_ms: u64) -> Told {
    let presence = &message.presence;
    let Some(details) = &presence.details else {
        return Told { pending: presence.pending, ..before.clone() };
    };
    let same_session = before.instance == presence.instance;
    Told {
        instance: presence.instance,
        pending: presence.pending,
        details: Some(details.clone()),
        clock_offset_ms: match (measured(details, now_ms), before.clock_offset_ms) {
            (_, before) if message.waited => before,
            (Some(now), Some(before)) if same_session => Some(now.min(before)),
            (now, _) => now,
        },
    }
}

/// How far a clock is behind this host's: less than this, by the time that the message took.
fn measured(details: &InstanceDetails, now_ms: u64) -> Option<i64> {
    let (here, there) = (i64::try_from(now_ms).ok()?, i64::try_from(details.clock_ms).ok()?);
    here.checked_sub(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub_broker;
    use clutch_common::id::{EndpointId, StateId};
    use clutch_common::wire::Presence;
    use uuid::Uuid;

    #[test]
    fn the_clock_is_compared_by_the_quickest_message_of_a_session() {
        let says = |session: u128, clock_ms: Option<u64>, waited| {
            let details = clock_ms.map(|clock_ms| InstanceDetails {
                version: "1".to_owned(),
                host: "node-1".to_owned(),
                slots: 4,
                free: 4,
                topics: Vec::new(),
                functions: Vec::new(),
                started_at_ms: 1,
                clock_ms,
                draining: false,
            });
            let session = Uuid::from_u128(session);
            let active = stub_broker::active(EndpointId::new(), StateId::new(), session);
            let presence = Presence { details, pending: 3, ..active };
            PresenceMessage { presence, message: None, commits: None, waited }
        };
        let mut told = Told::default();
        for (session, clock_ms, waited, now_ms, expected) in [
            (1, Some(9000), true, 90_000, None),
            (1, Some(9000), false, 10_000, Some(1000)),
            (1, Some(9500), false, 10_000, Some(500)),
            (1, Some(9000), false, 11_000, Some(500)),
            (1, None, false, 11_000, Some(500)),
            (2, Some(9000), false, 11_000, Some(2000)),
            (2, Some(19_000), false, 11_000, Some(-8000)),
            (3, Some(9000), true, 90_000, Some(-8000)),
        ] {
            told = after(&told, &says(session, clock_ms, waited), now_ms);
            assert_eq!(told.clock_offset_ms, expected, "{session} {clock_ms:?} at {now_ms}");
            assert_eq!(told.pending, 3);
        }
        assert_eq!(told.details.map(|details| details.slots), Some(4));
    }
}
