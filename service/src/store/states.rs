//! What an endpoint's instances said of their states, and who is given up.

use super::rows::parsed;
use super::{Result, Store, doubts, failed, signed, unsigned};
use crate::failover::rules::{self, News, State};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::wire::{Presence, Role};
use sqlx::sqlite::SqliteConnection;
use std::collections::BTreeMap;
use std::time::Duration;

/// An endpoint and its states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// How long a state that another took over from may be silent.
    pub(crate) lost_after: Duration,
    /// Its states.
    pub(crate) states: Vec<State>,
}

#[derive(sqlx::FromRow)]
struct Row {
    endpoint_id: String,
    name: String,
    lost_after_ms: i64,
    id: String,
    instance: String,
    role: String,
    holds: bool,
    active_since_ms: Option<i64>,
    superseded_at_ms: Option<i64>,
    given_up_at_ms: Option<i64>,
}

impl Row {
    fn state(&self) -> Result<State> {
        Ok(State {
            id: parsed(&self.id)?,
            instance: parsed(&self.instance)?,
            role: role(&self.role),
            holds: self.holds,
            active_since_ms: self.active_since_ms.map(unsigned),
            superseded_at_ms: self.superseded_at_ms.map(unsigned),
            given_up_at_ms: self.given_up_at_ms.map(unsigned),
        })
    }
}

const COLUMNS: &str = "s.endpoint_id, e.name, e.lost_after_ms, s.id, s.instance, s.role, s.holds, \
     s.active_since_ms, s.superseded_at_ms, s.given_up_at_ms \
     FROM states s JOIN endpoints e ON e.id = s.endpoint_id ";

impl Store {
    /// The endpoints that were ever heard, and their states.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn standings(&self) -> Result<Vec<Standing>> {
        let rows: Vec<Row> = sqlx::query_as(super::assembled(&["SELECT ", COLUMNS]))
            .fetch_all(&self.reader)
            .await
            .map_err(failed("reading the endpoints' states"))?;
        let mut standings: BTreeMap<String, Standing> = BTreeMap::new();
        for row in rows {
            let state = row.state()?;
            let standing = match standings.entry(row.endpoint_id) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    let endpoint = parsed(new.key())?;
                    new.insert(Standing {
                        endpoint,
                        name: row.name,
                        lost_after: Duration::from_millis(unsigned(row.lost_after_ms)),
                        states: Vec::new(),
                    })
                }
            };
            standing.states.push(state);
        }
        Ok(standings.into_values().collect())
    }

    /// Gives up a state of an endpoint, unless it is active by now: what the
    /// endpoint was sent and has not answered is in doubt. Says how much that
    /// is.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn give_up(
        &self,
        endpoint: EndpointId,
        state: StateId,
        now_ms: u64,
    ) -> Result<Option<u64>> {
        const DOING: &str = "giving up an endpoint's state";
        let mut tx = self.begin(DOING).await?;
        let given_up = sqlx::query(
            "UPDATE states SET given_up_at_ms = ? WHERE endpoint_id = ? AND id = ? \
             AND given_up_at_ms IS NULL AND (role <> 'active' OR superseded_at_ms IS NOT NULL)",
        )
        .bind(signed(now_ms))
        .bind(endpoint.to_string())
        .bind(state.to_string())
        .execute(&mut *tx)
        .await
        .map_err(failed(DOING))?
        .rows_affected();
        let mut in_doubt = None;
        if given_up > 0 {
            in_doubt = Some(doubts::doubt_all(&mut tx, endpoint).await?);
        }
        self.commit(tx, DOING).await?;
        Ok(in_doubt)
    }
}

/// Takes in what an instance says of itself; whether that changes anything.
/// What an endpoint says that this service did not provision is not recorded.
pub(super) async fn hear(
    db: &mut SqliteConnection,
    presence: &Presence,
    now_ms: u64,
) -> Result<bool> {
    const DOING: &str = "recording an endpoint's state";
    let endpoint = presence.endpoint_id.to_string();
    let provisioned: Option<i64> = sqlx::query_scalar("SELECT 1 FROM endpoints WHERE id = ?")
        .bind(&endpoint)
        .fetch_optional(&mut *db)
        .await
        .map_err(failed(DOING))?;
    if provisioned.is_none() {
        tracing::debug!(
            endpoint,
            "an endpoint that was not provisioned here tells that it is there"
        );
        return Ok(false);
    }
    let rows: Vec<Row> = sqlx::query_as(super::assembled(&[
        "SELECT ",
        COLUMNS,
        "WHERE s.endpoint_id = ? ORDER BY s.id",
    ]))
    .bind(&endpoint)
    .fetch_all(&mut *db)
    .await
    .map_err(failed(DOING))?;
    let before: Vec<State> = rows.iter().map(Row::state).collect::<Result<_>>()?;
    let mut states = before.clone();
    let News { took_over, given_up } = rules::hear(&mut states, presence, now_ms);
    for state in states.iter().filter(|state| !before.contains(state)) {
        write(db, &endpoint, state).await?;
    }
    if took_over {
        doubts::ask_again(db, presence.endpoint_id).await?;
    }
    if !given_up.is_empty() {
        let in_doubt = doubts::doubt_all(db, presence.endpoint_id).await?;
        tracing::warn!(
            endpoint,
            state = %presence.state_id,
            in_doubt,
            "the endpoint has come back with another state folder: what the old one had accepted \
             and not answered is submitted again, or ends as interrupted"
        );
    }
    Ok(states != before)
}

async fn write(db: &mut SqliteConnection, endpoint: &str, state: &State) -> Result<()> {
    sqlx::query(
        "INSERT INTO states (endpoint_id, id, instance, role, holds, active_since_ms, \
         superseded_at_ms, given_up_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (endpoint_id, id) DO UPDATE SET instance = excluded.instance, \
         role = excluded.role, holds = excluded.holds, \
         active_since_ms = excluded.active_since_ms, \
         superseded_at_ms = excluded.superseded_at_ms, \
         given_up_at_ms = excluded.given_up_at_ms",
    )
    .bind(endpoint)
    .bind(state.id.to_string())
    .bind(state.instance.to_string())
    .bind(role_name(state.role))
    .bind(state.holds)
    .bind(state.active_since_ms.map(signed))
    .bind(state.superseded_at_ms.map(signed))
    .bind(state.given_up_at_ms.map(signed))
    .execute(db)
    .await
    .map_err(failed("recording an endpoint's state"))?;
    Ok(())
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Standby => "standby",
    }
}

fn role(name: &str) -> Role {
    if name == role_name(Role::Active) { Role::Active } else { Role::Standby }
}
