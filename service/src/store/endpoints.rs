//! Endpoints by name and id.

use super::engine::{Columns, Db, FromRow, values};
use super::rows::queue_kind;
use super::{Error, Result, Store, cancel_requests, facts, steering, unaccounted};
use clutch_common::id::EndpointId;
use clutch_common::topology::QueueKind;
use std::time::Duration;

/// An endpoint that this service provisioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its id.
    pub(crate) id: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// The kind of its queue.
    pub(crate) queue: QueueKind,
    /// Whether a person has it drain.
    pub(crate) draining: bool,
}

/// An endpoint to be registered under a name.
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
    /// The present, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
}

/// An endpoint as it is recorded.
struct EndpointRow {
    endpoint: Endpoint,
    /// Whether the broker has its queue.
    declared: bool,
}

impl FromRow for EndpointRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let (id, name) = (columns.next()?, columns.next()?);
        let queue = queue_kind(&columns.next::<String>()?)?;
        let (draining, declared) = (columns.next()?, columns.next()?);
        Ok(Self { endpoint: Endpoint { id, name, queue, draining }, declared })
    }
}

/// The endpoints of a name and of an id, that of the name first.
const LOOK_UP: &str = "SELECT id, name, queue_kind, draining, declared FROM endpoints \
     WHERE name = ?1 OR id = ?2 ORDER BY name = ?1 DESC";

impl Store {
    /// Registers an endpoint, or finds the one of that name; returns whether it is new. A
    /// conflict when name, id or kind of queue contradict the records.
    pub(crate) async fn register(&self, wanted: Registration) -> Result<(Endpoint, bool)> {
        self.write("registering the endpoint", move |write| register(write.db, &wanted)).await
    }

    /// Removes an endpoint that the broker refused a queue for: its name and id are free again.
    pub(crate) async fn forget_undeclared(&self, id: EndpointId) -> Result<()> {
        self.write("forgetting the endpoint", move |write| {
            let delete = "DELETE FROM endpoints WHERE id = ? AND declared = 0";
            write.db.run(delete, values![id]).map(drop)
        })
        .await
    }

    /// Records that the broker has the endpoint's queue, and the kind of the queues that all
    /// endpoints share. A queue that was declared before may have been deleted with its
    /// messages: the attempts that the endpoint was sent and has not answered become
    /// unaccounted for. Returns whether there are such.
    pub(crate) async fn declared(&self, id: EndpointId, shared: QueueKind) -> Result<bool> {
        self.write("recording the endpoint's queue", move |write| {
            let update = "UPDATE endpoints SET declared = 1 WHERE id = ? AND declared = 0";
            let first = write.db.run(update, values![id])?;
            facts::insert_shared_kind(write.db, shared)?;
            if first == 0 {
                steering::send_again(write.db, id)?;
                cancel_requests::send_again(write.db, id)?;
            }
            Ok(first == 0 && unaccounted::add_all(write.db, id)? > 0)
        })
        .await
    }

    /// The endpoint of that name or id.
    pub(crate) async fn endpoint(&self, name_or_id: &str) -> Result<Option<Endpoint>> {
        let name_or_id = name_or_id.to_owned();
        self.read("looking up the endpoint", move |db| find(db, &name_or_id)).await
    }

    /// The names of up to `limit` endpoints, sorted.
    pub(crate) async fn endpoint_names(&self, limit: u32) -> Result<Vec<String>> {
        self.read("listing the endpoints", move |db| {
            let names = "SELECT name FROM endpoints ORDER BY name LIMIT ?";
            Ok(db.all(names, values![limit])?.into_iter().map(|(name,)| name).collect())
        })
        .await
    }
}

/// The endpoint of that name or id.
pub(super) fn find(db: &Db<'_>, name_or_id: &str) -> Result<Option<Endpoint>> {
    let id = name_or_id.parse::<EndpointId>().ok();
    let found = db.one::<EndpointRow>(LOOK_UP, values![name_or_id, id])?;
    Ok(found.map(|row| row.endpoint))
}

fn register(db: &Db<'_>, wanted: &Registration) -> Result<(Endpoint, bool)> {
    let known = db.one::<EndpointRow>(LOOK_UP, values![&wanted.name, wanted.id])?;
    let new = known.is_none();
    let endpoint = match known {
        Some(row) => reconciled(row, wanted)?,
        None => Endpoint {
            id: wanted.id.unwrap_or_else(EndpointId::new),
            name: wanted.name.clone(),
            queue: wanted.queue.unwrap_or_default(),
            draining: false,
        },
    };
    let insert = "INSERT INTO endpoints (id, name, queue_kind, created_at_ms) \
         VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET queue_kind = excluded.queue_kind";
    let (id, queue) = (endpoint.id, endpoint.queue.as_str());
    db.run(insert, values![id, &endpoint.name, queue, wanted.now_ms])?;
    if let Some(lost_after) = wanted.lost_after {
        let millis = u64::try_from(lost_after.as_millis()).unwrap_or(u64::MAX);
        let update = "UPDATE endpoints SET lost_after_ms = ? WHERE id = ?";
        db.run(update, values![millis, id])?;
    }
    Ok((endpoint, new))
}

/// The recorded endpoint, if it agrees with the wanted one.
fn reconciled(
    EndpointRow { endpoint: mut known, declared }: EndpointRow,
    wanted: &Registration,
) -> Result<Endpoint> {
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
