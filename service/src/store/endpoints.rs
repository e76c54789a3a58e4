//! Endpoints by name and id.

use super::rows::{all, one, parsed, run};
use super::{Error, Result, Store, doubts, failed, signed};
use clutch_common::id::EndpointId;
use clutch_common::topology::QueueKind;
use rusqlite::{Connection, params};
use std::time::Duration;

/// An endpoint this service provisioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its id.
    pub(crate) id: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// How the broker keeps its queue.
    pub(crate) queue: QueueKind,
}

/// An endpoint to be known by a name.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// The name.
    pub(crate) name: String,
    /// The id, if it shall be a certain one.
    pub(crate) id: Option<EndpointId>,
    /// The kind of queue, if it shall be a certain one.
    pub(crate) queue: Option<QueueKind>,
    /// How long a state of it that another took over from may be silent before
    /// it is given up, if that shall be changed.
    pub(crate) lost_after: Option<Duration>,
    /// Now, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
}

type Row = (String, String, String, bool);

/// How many places are remembered.
const MOST_PLACES: usize = 32;

/// The endpoints of a name and of an id, that of the name first.
const LOOK_UP: &str = "SELECT id, name, queue_kind, declared FROM endpoints \
     WHERE name = ?1 OR id = ?2 ORDER BY name = ?1 DESC";

impl Store {
    /// Registers an endpoint, or finds the one of that name; tells whether it
    /// is new.
    ///
    /// # Errors
    /// A conflict when name, id or kind of queue contradict what is recorded.
    pub(crate) async fn register(&self, wanted: Registration) -> Result<(Endpoint, bool)> {
        const DOING: &str = "registering the endpoint";
        self.write(DOING, move |write| register(&write.db, &wanted, DOING)).await
    }

    /// Forgets an endpoint that the broker has no queue of, as it refused it: its name and
    /// id are free again.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn forget_undeclared(&self, id: EndpointId) -> Result<()> {
        const DOING: &str = "forgetting the endpoint";
        self.write(DOING, move |write| {
            let delete = "DELETE FROM endpoints WHERE id = ? AND declared = 0";
            run(&write.db, delete, [id.to_string()]).map(drop).map_err(failed(DOING))
        })
        .await
    }

    /// Records that the broker has the endpoint's queue, and of which kind the
    /// queues are that all endpoints share. A queue that was declared before may
    /// have been deleted with all that was in it: what the endpoint was sent and
    /// has not answered is in doubt. Says whether that is anything.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn declared(&self, id: EndpointId, shared: QueueKind) -> Result<bool> {
        const DOING: &str = "recording the endpoint's queue";
        self.write(DOING, move |write| {
            let update = "UPDATE endpoints SET declared = 1 WHERE id = ? AND declared = 0";
            let first = run(&write.db, update, [id.to_string()]).map_err(failed(DOING))?;
            insert_shared_kind(&write.db, shared).map_err(failed(DOING))?;
            Ok(first == 0 && doubts::doubt_all(&write.db, id)? > 0)
        })
        .await
    }

    /// Records of which kind the queues are that all endpoints share.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn shared_declared(&self, shared: QueueKind) -> Result<()> {
        const DOING: &str = "recording the kind of the queues";
        self.write(DOING, move |write| insert_shared_kind(&write.db, shared).map_err(failed(DOING)))
            .await
    }

    /// The kind of the queues that all endpoints share, once they are
    /// declared.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn shared_queue_kind(&self) -> Result<Option<QueueKind>> {
        const DOING: &str = "reading the kind of the queues";
        self.read(DOING, |db| {
            let found = "SELECT value FROM facts WHERE name = 'shared_queue_kind'";
            let found = one(db, found, [], |row| row.get::<_, String>(0));
            found.map_err(failed(DOING))?.map(|text| kind(&text)).transpose()
        })
        .await
    }

    /// The places that were prepared for endpoints, by what tells each from others of its
    /// kind; the newest last.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn places(&self) -> Result<Vec<String>> {
        const DOING: &str = "reading what was provisioned";
        self.read(DOING, |db| places(db).map_err(failed(DOING))).await
    }

    /// Records that a place was prepared.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn prepared(&self, place: &str) -> Result<()> {
        const DOING: &str = "recording what is provisioned";
        let place = place.to_owned();
        self.write(DOING, move |write| {
            let mut places = places(&write.db).map_err(failed(DOING))?;
            places.retain(|known| *known != place);
            places.push(place);
            let kept = places.len().saturating_sub(MOST_PLACES);
            let insert = "INSERT INTO facts (name, value) VALUES ('places', ?) \
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            run(&write.db, insert, [places[kept..].join(" ")]).map(drop).map_err(failed(DOING))
        })
        .await
    }

    /// The endpoint of that name or id.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn endpoint(&self, name_or_id: &str) -> Result<Option<Endpoint>> {
        let name_or_id = name_or_id.to_owned();
        self.read("looking up the endpoint", move |db| find(db, &name_or_id)).await
    }

    /// The names of up to `limit` endpoints, sorted.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn endpoint_names(&self, limit: u32) -> Result<Vec<String>> {
        const DOING: &str = "listing the endpoints";
        self.read(DOING, move |db| {
            let names = "SELECT name FROM endpoints ORDER BY name LIMIT ?";
            all(db, names, [limit], |row| row.get(0)).map_err(failed(DOING))
        })
        .await
    }
}

/// The endpoint of that name or id.
pub(super) fn find(db: &Connection, name_or_id: &str) -> Result<Option<Endpoint>> {
    let id = name_or_id.parse::<EndpointId>().ok().map(|id| id.to_string());
    let found = one(db, LOOK_UP, params![name_or_id, id], row);
    found.map_err(failed("looking up the endpoint"))?.map(|row| endpoint(&row)).transpose()
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn register(
    db: &Connection,
    wanted: &Registration,
    doing: &'static str,
) -> Result<(Endpoint, bool)> {
    let id = wanted.id.map(|id| id.to_string());
    let known = one(db, LOOK_UP, params![wanted.name, id], row).map_err(failed(doing))?;
    let new = known.is_none();
    let endpoint = match known {
        Some(row) => reconciled(&row, wanted)?,
        None => Endpoint {
            id: wanted.id.unwrap_or_else(EndpointId::new),
            name: wanted.name.clone(),
            queue: wanted.queue.unwrap_or_default(),
        },
    };
    let insert = "INSERT INTO endpoints (id, name, queue_kind, created_at_ms) \
         VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET queue_kind = excluded.queue_kind";
    let (id, queue) = (endpoint.id.to_string(), endpoint.queue.as_str());
    run(db, insert, params![id, endpoint.name, queue, signed(wanted.now_ms)])
        .map_err(failed(doing))?;
    if let Some(lost_after) = wanted.lost_after {
        let millis = u64::try_from(lost_after.as_millis()).unwrap_or(u64::MAX);
        let update = "UPDATE endpoints SET lost_after_ms = ? WHERE id = ?";
        run(db, update, params![signed(millis), id]).map_err(failed(doing))?;
    }
    Ok((endpoint, new))
}

fn places(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let find = "SELECT value FROM facts WHERE name = 'places'";
    let found = one(db, find, [], |row| row.get::<_, String>(0))?;
    Ok(found.iter().flat_map(|places| places.split(' ')).map(str::to_owned).collect())
}

fn insert_shared_kind(db: &Connection, shared: QueueKind) -> rusqlite::Result<()> {
    let insert = "INSERT INTO facts (name, value) VALUES ('shared_queue_kind', ?) \
         ON CONFLICT (name) DO NOTHING";
    run(db, insert, [shared.as_str()]).map(|_| ())
}

fn endpoint((id, name, queue, _): &Row) -> Result<Endpoint> {
    Ok(Endpoint { id: parsed(id)?, name: name.clone(), queue: kind(queue)? })
}

fn kind(text: &str) -> Result<QueueKind> {
    [QueueKind::Classic, QueueKind::Quorum, QueueKind::Expiring]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| Error::Unreadable(format!("'{text}' is not a kind of queue")))
}

/// What is recorded, if it is what is wanted.
fn reconciled(row: &Row, wanted: &Registration) -> Result<Endpoint> {
    let mut known = endpoint(row)?;
    let declared = row.3;
    if known.name != wanted.name {
        return Err(Error::Conflict(format!(
            "the id {} is that of the endpoint '{}': use that name, or another id",
            known.id, known.name
        )));
    }
    if let Some(id) = wanted.id.filter(|id| *id != known.id) {
        return Err(Error::Conflict(format!(
            "the endpoint '{}' is known by the id {}, not {id}: leave --id out, or choose another \
             name",
            known.name, known.id
        )));
    }
    match wanted.queue {
        Some(queue) if queue != known.queue && declared => Err(Error::Conflict(format!(
            "the endpoint '{}' has a {} queue, and a queue's kind cannot be changed: leave --queue \
             {} out, or provision an endpoint under another name",
            known.name,
            known.queue.as_str(),
            queue.as_str()
        ))),
        _ if declared => Ok(known),
        queue => {
            known.queue = queue.unwrap_or_default();
            Ok(known)
        }
    }
}
