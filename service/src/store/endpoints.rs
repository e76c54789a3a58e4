//! Endpoints by name and id.

use super::rows::parsed;
use super::{Error, Result, Store, doubts, failed, signed};
use clutch_common::id::EndpointId;
use clutch_common::topology::QueueKind;
use sqlx::sqlite::SqliteConnection;
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
pub(crate) struct Registration<'a> {
    /// The name.
    pub(crate) name: &'a str,
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

impl Store {
    /// Registers an endpoint, or finds the one of that name; tells whether it
    /// is new.
    ///
    /// # Errors
    /// A conflict when name, id or kind of queue contradict what is recorded.
    pub(crate) async fn register(&self, wanted: &Registration<'_>) -> Result<(Endpoint, bool)> {
        const DOING: &str = "registering the endpoint";
        let mut tx = self.begin(DOING).await?;
        let known: Option<Row> = sqlx::query_as(
            "SELECT id, name, queue_kind, declared FROM endpoints WHERE name = ?1 OR id = ?2 \
             ORDER BY name = ?1 DESC",
        )
        .bind(wanted.name)
        .bind(wanted.id.map(|id| id.to_string()))
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(DOING))?;
        let new = known.is_none();
        let endpoint = match known {
            Some(row) => reconciled(&row, wanted)?,
            None => Endpoint {
                id: wanted.id.unwrap_or_else(EndpointId::new),
                name: wanted.name.to_owned(),
                queue: wanted.queue.unwrap_or_default(),
            },
        };
        sqlx::query(
            "INSERT INTO endpoints (id, name, queue_kind, created_at_ms) VALUES (?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET queue_kind = excluded.queue_kind",
        )
        .bind(endpoint.id.to_string())
        .bind(&endpoint.name)
        .bind(endpoint.queue.as_str())
        .bind(signed(wanted.now_ms))
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?;
        if let Some(lost_after) = wanted.lost_after {
            let millis = u64::try_from(lost_after.as_millis()).unwrap_or(u64::MAX);
            sqlx::query("UPDATE endpoints SET lost_after_ms = ? WHERE id = ?")
                .bind(signed(millis))
                .bind(endpoint.id.to_string())
                .execute(&mut *tx)
                .await
                .map_err(failed(DOING))?;
        }
        self.commit(tx, DOING).await?;
        Ok((endpoint, new))
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
        let mut tx = self.begin(DOING).await?;
        let first = sqlx::query("UPDATE endpoints SET declared = 1 WHERE id = ? AND declared = 0")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed(DOING))?
            .rows_affected();
        insert_shared_kind(&mut tx, shared).await.map_err(failed(DOING))?;
        let in_doubt = first == 0 && doubts::doubt_all(&mut tx, id).await? > 0;
        self.commit(tx, DOING).await?;
        Ok(in_doubt)
    }

    /// Records of which kind the queues are that all endpoints share.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn shared_declared(&self, shared: QueueKind) -> Result<()> {
        const DOING: &str = "recording the kind of the queues";
        let mut tx = self.begin(DOING).await?;
        insert_shared_kind(&mut tx, shared).await.map_err(failed(DOING))?;
        self.commit(tx, DOING).await
    }

    /// The kind of the queues that all endpoints share, once they are
    /// declared.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn shared_queue_kind(&self) -> Result<Option<QueueKind>> {
        sqlx::query_scalar::<_, String>("SELECT value FROM facts WHERE name = 'shared_queue_kind'")
            .fetch_optional(&self.reader)
            .await
            .map_err(failed("reading the kind of the queues"))?
            .map(|text| kind(&text))
            .transpose()
    }

    /// The endpoint of that name or id.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn endpoint(&self, name_or_id: &str) -> Result<Option<Endpoint>> {
        let id = name_or_id.parse::<EndpointId>().ok().map(|id| id.to_string());
        sqlx::query_as::<_, Row>(
            "SELECT id, name, queue_kind, declared FROM endpoints WHERE name = ?1 OR id = ?2 \
             ORDER BY name = ?1 DESC",
        )
        .bind(name_or_id)
        .bind(id)
        .fetch_optional(&self.reader)
        .await
        .map_err(failed("looking up the endpoint"))?
        .map(|row| endpoint(&row))
        .transpose()
    }

    /// The names of up to `limit` endpoints, sorted.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn endpoint_names(&self, limit: u32) -> Result<Vec<String>> {
        sqlx::query_scalar("SELECT name FROM endpoints ORDER BY name LIMIT ?")
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(failed("listing the endpoints"))
    }
}

async fn insert_shared_kind(
    db: &mut SqliteConnection,
    shared: QueueKind,
) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO facts (name, value) VALUES ('shared_queue_kind', ?) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(shared.as_str())
    .execute(db)
    .await
    .map(|_| ())
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
fn reconciled(row: &Row, wanted: &Registration<'_>) -> Result<Endpoint> {
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
