//! Single values, by name: the service's id, the kind of the queues that all endpoints
//! share, and the places that were prepared for endpoints.
//!
//! The service's id is made with the database and stays with it, also in a copy or a
//! backup of it.

use super::engine::{Db, values};
use super::rows::queue_kind;
use super::{Result, Store};
use clutch_common::id::ServiceId;
use clutch_common::topology::QueueKind;

/// How many places are remembered.
const MOST_PLACES: usize = 32;

impl Store {
    /// The id of the service that these records belong to; made at the first call.
    pub(crate) async fn service_id(&self) -> Result<ServiceId> {
        const DOING: &str = "looking up the id of this service";
        if let Some(id) = self.read(DOING, service_id).await? {
            return Ok(id);
        }
        self.write(DOING, |write| {
            let insert = "INSERT INTO facts (name, value) VALUES ('service_id', ?) \
                 ON CONFLICT (name) DO UPDATE SET value = facts.value RETURNING value";
            let (kept,) = write.db.only(insert, values![ServiceId::new().to_string()])?;
            Ok(kept)
        })
        .await
    }

    /// Records the kind of the queues that all endpoints share.
    pub(crate) async fn shared_declared(&self, shared: QueueKind) -> Result<()> {
        self.write("recording the kind of the queues", move |write| {
            insert_shared_kind(write.db, shared)
        })
        .await
    }

    /// The kind of the queues that all endpoints share, once they are declared.
    pub(crate) async fn shared_queue_kind(&self) -> Result<Option<QueueKind>> {
        self.read("reading the kind of the queues", |db| {
            let find = "SELECT value FROM facts WHERE name = 'shared_queue_kind'";
            let found = db.one::<(String,)>(find, &[])?;
            found.map(|(text,)| queue_kind(&text)).transpose()
        })
        .await
    }

    /// The places that were prepared for endpoints, each named by what tells it from others
    /// of its kind; the newest last.
    pub(crate) async fn places(&self) -> Result<Vec<String>> {
        self.read("reading the places that were provisioned", places).await
    }

    /// Records that a place was prepared.
    pub(crate) async fn prepared(&self, place: &str) -> Result<()> {
        let place = place.to_owned();
        self.write("recording the place that is provisioned", move |write| {
            let mut places = places(write.db)?;
            places.retain(|known| *known != place);
            places.push(place);
            let kept = places.len().saturating_sub(MOST_PLACES);
            let insert = "INSERT INTO facts (name, value) VALUES ('places', ?) \
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            write.db.run(insert, values![places[kept..].join(" ")])?;
            Ok(())
        })
        .await
    }
}

/// The id of the service that these records belong to, once it is made.
pub(super) fn service_id(db: &Db<'_>) -> Result<Option<ServiceId>> {
    let find = "SELECT value FROM facts WHERE name = 'service_id'";
    Ok(db.one::<(ServiceId,)>(find, &[])?.map(|(id,)| id))
}

/// Records the kind of the queues that all endpoints share, if none is recorded.
pub(super) fn insert_shared_kind(db: &Db<'_>, shared: QueueKind) -> Result<()> {
    let insert = "INSERT INTO facts (name, value) VALUES ('shared_queue_kind', ?) \
         ON CONFLICT (name) DO NOTHING";
    db.run(insert, values![shared.as_str()]).map(drop)
}

fn places(db: &Db<'_>) -> Result<Vec<String>> {
    let find = "SELECT value FROM facts WHERE name = 'places'";
    let found = db.one::<(String,)>(find, &[])?;
    Ok(found.iter().flat_map(|(places,)| places.split(' ')).map(str::to_owned).collect())
}
