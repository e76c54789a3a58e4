//! How many commits each state of an endpoint is known to have seen. One that comes with
//! fewer went back in time: it is told so before it runs what it holds
//! (`design/0014`).
//!
//! Touches the database only.

use super::rows::{all, one, parsed, run};
use super::{Result, Store, failed, signed, unsigned};
use crate::failover::rules::State;
use clutch_common::id::{EndpointId, StateId};
use clutch_common::wire::{Presence, Role, Welcome};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

/// An instance that waits to be told whether its disk went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asking {
    /// Whose it is.
    pub(crate) endpoint: EndpointId,
    /// What it is to be told.
    pub(crate) welcome: Welcome,
}

impl Store {
    /// The instances that wait to be told.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn asking(&self) -> Result<Vec<Asking>> {
        const DOING: &str = "looking for instances that ask";
        let find = "SELECT endpoint_id, asks, behind FROM states WHERE asks IS NOT NULL";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        self.read(DOING, move |db| {
            let rows: Vec<(String, String, bool)> =
                all(db, find, [], read).map_err(failed(DOING))?;
            let asking = |(endpoint, instance, behind): (String, String, bool)| {
                let welcome = Welcome { instance: parsed(&instance)?, behind };
                Ok(Asking { endpoint: parsed(&endpoint)?, welcome })
            };
            rows.into_iter().map(asking).collect()
        })
        .await
    }

    /// Records that an instance was told, or is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn welcomed(&self, told: Asking) -> Result<()> {
        const DOING: &str = "recording that an instance was told";
        self.write(DOING, move |write| {
            let update = "UPDATE states SET asks = NULL WHERE endpoint_id = ? AND asks = ?";
            let values = params![told.endpoint.to_string(), told.welcome.instance.to_string()];
            run(&write.db, update, values).map_err(failed(DOING))?;
            Ok(())
        })
        .await
    }
}

/// Takes in how old a disk says it is, of an instance whose states were `before`; `read`
/// is how old what was read before says it was. Whether it went back: then it is as old
/// as it says.
pub(super) fn hear(
    db: &Connection,
    presence: &Presence,
    before: &[State],
    read: Option<u64>,
) -> rusqlite::Result<bool> {
    let Presence { endpoint_id, state_id, instance, .. } = presence;
    let (endpoint, state) = (endpoint_id.to_string(), state_id.to_string());
    if presence.role != Role::Active {
        return Ok(false);
    }
    let find = "SELECT age FROM states WHERE endpoint_id = ? AND id = ?";
    let known = one(db, find, [&endpoint, &state], |row| row.get::<_, i64>(0))?;
    let known = known.map_or(0, unsigned).max(read.unwrap_or(0));
    let mut runs = before.iter().filter(|one| one.id == *state_id);
    let is_another = runs.any(|one| presence.is_of_another_run(one.instance));
    let age = presence.age_at_start();
    let behind = is_another && age < known;
    let now = if behind { age } else { age.max(known) };
    let update = "UPDATE states SET age = ?1 WHERE endpoint_id = ?2 AND id = ?3 AND age <> ?1";
    run(db, update, params![signed(now), endpoint, state])?;
    if presence.asks {
        let update = "UPDATE states SET asks = ?, behind = ? WHERE endpoint_id = ? AND id = ?";
        run(db, update, params![instance.to_string(), behind, endpoint, state])?;
    }
    Ok(behind)
}

/// Takes in how old disks are by what came from them.
pub(super) fn grow(db: &Connection, ages: &BTreeMap<(EndpointId, StateId), u64>) -> Result<()> {
    let update = "UPDATE states SET age = ?1 WHERE endpoint_id = ?2 AND id = ?3 AND age < ?1";
    for ((endpoint, state), age) in ages {
        run(db, update, params![signed(*age), endpoint.to_string(), state.to_string()])
            .map_err(failed("recording the age of an endpoint's state"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::store::tests::{record, store};
    use crate::store::{Batch, Registration, Word};
    use clutch_common::wire;
    use std::sync::Arc;

    async fn registered(store: &Store) -> EndpointId {
        let name = "lab".to_owned();
        let wanted = Registration { name, id: None, queue: None, lost_after: None, now_ms: 1 };
        store.register(wanted).await.unwrap().0.id
    }

    /// What the `chance`th run says first, which found a disk of this age.
    fn presence(endpoint_id: EndpointId, chance: u64, age: u64) -> Presence {
        let state_id = StateId(uuid::Uuid::from_u128(1));
        let active = fake::active(endpoint_id, state_id, wire::session_name(chance, age, 1));
        Presence { asks: true, pending: 1, ..active }
    }

    /// Whether an instance that says this is told that its disk went back.
    async fn is_behind(store: &Store, word: Word) -> bool {
        let instance = word.presence.instance;
        let batch = Arc::new(Batch { words: vec![word], ..Batch::default() });
        store.record(batch, 5, |_| ()).await.unwrap();
        let asking = store.asking().await.unwrap();
        let [one] = asking.as_slice() else { panic!("{asking:?}") };
        assert_eq!(one.welcome.instance, instance);
        store.welcomed(*one).await.unwrap();
        assert_eq!(store.asking().await.unwrap(), []);
        one.welcome.behind
    }

    #[tokio::test]
    async fn a_disk_that_has_seen_less_than_is_known_is_told_so_once() {
        let (_temp, store) = store().await;
        let endpoint = registered(&store).await;
        let word = |chance, age| {
            let presence = presence(endpoint, chance, age);
            Word { presence, message: None, age: None }
        };
        assert!(!is_behind(&store, word(1, 10)).await);
        let ages = BTreeMap::from([((endpoint, presence(endpoint, 1, 10).state_id), 30)]);
        let batch = Arc::new(Batch { ages, ..Batch::default() });
        store.record(batch, 5, |_| ()).await.unwrap();
        assert!(!is_behind(&store, word(1, 10)).await, "another session of the run");
        assert!(!is_behind(&store, word(2, 30)).await, "a restart");
        assert!(is_behind(&store, word(3, 29)).await, "a snapshot");
        assert!(!is_behind(&store, word(4, 29)).await, "it goes on from there");
        let read = Word { age: Some(31), ..word(5, 30) };
        assert!(is_behind(&store, read).await, "what it had sent was read just now");
        let stranger = presence(EndpointId::new(), 1, 1);
        record(&store, &[], &[stranger], 5).await.unwrap();
        assert_eq!(store.asking().await.unwrap(), []);
    }
}
