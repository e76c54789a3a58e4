//! How many commits each state of an endpoint is known to have seen. A state that comes
//! back with fewer went back in time, as from a snapshot: its instance is told so before
//! it runs the tasks that it holds (`design/0014`).
//!
//! Touches the database only.

use super::engine::{Db, values};
use super::{Result, Store};
use clutch_common::failover::KnownState;
use clutch_common::id::{EndpointId, StateId};
use clutch_common::wire::{Presence, Role, Welcome};
use std::collections::BTreeMap;

/// An instance that waits for its welcome: whether its state went back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingWelcome {
    /// The instance's endpoint.
    pub(crate) endpoint: EndpointId,
    /// The message to send.
    pub(crate) welcome: Welcome,
}

impl Store {
    /// The welcomes that instances wait for.
    pub(crate) async fn pending_welcomes(&self) -> Result<Vec<PendingWelcome>> {
        self.read("looking for instances that wait for a welcome", |db| {
            let find = "SELECT endpoint_id, asks, behind FROM states WHERE asks IS NOT NULL";
            let pending = |(endpoint, instance, behind)| PendingWelcome {
                endpoint,
                welcome: Welcome { instance, behind },
            };
            Ok(db.all(find, &[])?.into_iter().map(pending).collect())
        })
        .await
    }

    /// Records that an instance was welcomed, or is gone.
    pub(crate) async fn welcomed(&self, done: PendingWelcome) -> Result<()> {
        self.write("recording that an instance was welcomed", move |write| {
            let update = "UPDATE states SET asks = NULL WHERE endpoint_id = ? AND asks = ?";
            write.db.run(update, values![done.endpoint, done.welcome.instance.to_string()])?;
            Ok(())
        })
        .await
    }
}

/// Records how many commits a state has seen by its presence; returns whether it went back
/// in time. `before` are the endpoint's states as they were; `read` is the number of commits
/// by messages that were read before and are not recorded yet.
pub(super) fn compare(
    db: &Db<'_>,
    presence: &Presence,
    before: &[KnownState],
    read: Option<u64>,
) -> Result<bool> {
    let Presence { endpoint_id: endpoint, state_id: state, instance, .. } = presence;
    if presence.role != Role::Active {
        return Ok(false);
    }
    let find = "SELECT commits FROM states WHERE endpoint_id = ? AND id = ?";
    let known = db.one::<(u64,)>(find, values![endpoint, state])?.map_or(0, |(known,)| known);
    let known = known.max(read.unwrap_or(0));
    let mut runs = before.iter().filter(|one| one.id == *state);
    let is_another = runs.any(|one| presence.is_of_another_run(one.instance));
    let commits = presence.age_at_start();
    let behind = is_another && commits < known;
    // Behind, it goes on from where it is.
    let now = if behind { commits } else { commits.max(known) };
    let update =
        "UPDATE states SET commits = ?1 WHERE endpoint_id = ?2 AND id = ?3 AND commits <> ?1";
    db.run(update, values![now, endpoint, state])?;
    if presence.asks {
        let update = "UPDATE states SET asks = ?, behind = ? WHERE endpoint_id = ? AND id = ?";
        db.run(update, values![instance.to_string(), behind, endpoint, state])?;
    }
    Ok(behind)
}

/// Records how many commits states have seen, by the messages that came from them.
pub(super) fn raise(db: &Db<'_>, commits: &BTreeMap<(EndpointId, StateId), u64>) -> Result<()> {
    let update =
        "UPDATE states SET commits = ?1 WHERE endpoint_id = ?2 AND id = ?3 AND commits < ?1";
    for ((endpoint, state), commits) in commits {
        db.run(update, values![*commits, endpoint, state])?;
    }
    Ok(())
}
