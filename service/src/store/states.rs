//! What an endpoint's instances said of their states, and who is given up.

use super::doubts::Once;
use super::rows::{all, one, parsed, run};
use super::{Result, Store, ages, doubts, failed, missing, overdue, signed, unsigned};
use crate::failover::retention::{self, Candidate};
use crate::failover::rules::{self, News, State};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::wire::{Presence, Role};
use rusqlite::{Connection, params};
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

/// What an instance said of itself.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    /// That.
    pub(crate) presence: Presence,
    /// The message it said that in, if that had an id.
    pub(crate) message: Option<String>,
    /// How many commits its state had seen by what was read before, and not recorded yet.
    pub(crate) age: Option<u64>,
}

/// How many messages are known again: many times what the broker may have under way to
/// the service, as no more than that comes twice.
const KNOWN_AGAIN: i64 = 1000;

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
    known_since_ms: i64,
    heard_at_ms: i64,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            endpoint_id: row.get("endpoint_id")?,
            name: row.get("name")?,
            lost_after_ms: row.get("lost_after_ms")?,
            id: row.get("id")?,
            instance: row.get("instance")?,
            role: row.get("role")?,
            holds: row.get("holds")?,
            active_since_ms: row.get("active_since_ms")?,
            superseded_at_ms: row.get("superseded_at_ms")?,
            given_up_at_ms: row.get("given_up_at_ms")?,
            known_since_ms: row.get("known_since_ms")?,
            heard_at_ms: row.get("heard_at_ms")?,
        })
    }

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

/// All states, and their endpoints; a condition and an order may follow.
const STATES: &str = "SELECT s.endpoint_id, e.name, e.lost_after_ms, s.id, s.instance, s.role, \
     s.holds, s.active_since_ms, s.superseded_at_ms, s.given_up_at_ms, s.known_since_ms, s.heard_at_ms \
     FROM states s JOIN endpoints e ON e.id = s.endpoint_id ";

impl Store {
    /// The endpoints that were ever heard, and their states.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn standings(&self) -> Result<Vec<Standing>> {
        const DOING: &str = "reading the endpoints' states";
        let read = |db: &Connection| all(db, STATES, [], Row::read).map_err(failed(DOING));
        let rows = self.read(DOING, read).await?;
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
        self.write(DOING, move |write| {
            let update = "UPDATE states SET given_up_at_ms = ? WHERE endpoint_id = ? AND id = ? \
                 AND given_up_at_ms IS NULL \
                 AND (role <> 'active' OR superseded_at_ms IS NOT NULL)";
            let values = params![signed(now_ms), endpoint.to_string(), state.to_string()];
            match run(&write.db, update, values).map_err(failed(DOING))? {
                0 => Ok(None),
                _ => doubts::doubt_all(&write.db, endpoint).map(Some),
            }
        })
        .await
    }
}

/// Takes in what an instance says of itself; whether that changes anything.
/// What an endpoint says that this service did not provision is not recorded, and what
/// comes a second time is not so any more: another may have spoken in between. `once` is
/// that of the transaction.
pub(super) fn hear(db: &Connection, word: &Word, once: &mut Once, now_ms: u64) -> Result<bool> {
    const DOING: &str = "recording an endpoint's state";
    let Word { presence, message, age } = word;
    let endpoint = presence.endpoint_id.to_string();
    let provisioned = one(db, "SELECT 1 FROM endpoints WHERE id = ?", [&endpoint], |_| Ok(()));
    if provisioned.map_err(failed(DOING))?.is_none() {
        tracing::debug!(
            endpoint,
            "an endpoint that was not provisioned here tells that it is there"
        );
        return Ok(false);
    }
    if let Some(message) = message
        && !is_new(db, message).map_err(failed(DOING))?
    {
        tracing::debug!(endpoint, message, "what an instance said of itself comes again");
        return Ok(false);
    }
    let of_endpoint = format!("{STATES}WHERE s.endpoint_id = ? ORDER BY s.id");
    let rows = all(db, &of_endpoint, [&endpoint], Row::read).map_err(failed(DOING))?;
    let before: Vec<State> = rows.iter().map(Row::state).collect::<Result<_>>()?;
    let mut states = before.clone();
    let News { took_over, given_up } = rules::hear(&mut states, presence, now_ms);
    for state in states.iter().filter(|state| !before.contains(state)) {
        write(db, &endpoint, state)?;
    }
    let forgotten = forget(db, presence, once, (&mut states, &rows), now_ms)?;
    if took_over {
        doubts::ask_again(db, presence.endpoint_id)?;
    }
    if !given_up.is_empty() {
        let in_doubt = once.all(db, presence.endpoint_id)?;
        tracing::warn!(
            endpoint,
            state = %presence.state_id,
            in_doubt,
            "the endpoint has come back with another state folder: what the old one had accepted \
             and not answered is submitted again, or ends as interrupted"
        );
    }
    let went_back = ages::hear(db, presence, &before, *age).map_err(failed(DOING))?;
    let missed = suspect(db, presence, once, went_back)?;
    missing::answer(db, presence, now_ms).map_err(failed(DOING))?;
    Ok(states != before || missed || forgotten || presence.asks)
}

/// Notes that a state was heard, and forgets those that are too many or too old by then;
/// whether something is in doubt by that. `rows` are those there were before.
fn forget(
    db: &Connection,
    presence: &Presence,
    once: &mut Once,
    (states, rows): (&mut Vec<State>, &[Row]),
    now_ms: u64,
) -> Result<bool> {
    const DOING: &str = "forgetting an endpoint's states";
    let (endpoint, speaker) = (presence.endpoint_id.to_string(), presence.state_id);
    let update = "UPDATE states SET heard_at_ms = ?1, known_since_ms = iif(known_since_ms = 0, ?1, \
         known_since_ms) WHERE endpoint_id = ?2 AND id = ?3";
    run(db, update, params![signed(now_ms), endpoint, speaker.to_string()])
        .map_err(failed(DOING))?;
    let known: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    let mut candidates = Vec::with_capacity(states.len());
    for state in &*states {
        let id = state.id.to_string();
        let proven = one(db, "SELECT 1 FROM names WHERE id = ?", [&id], |_| Ok(()));
        let row = known.get(id.as_str());
        candidates.push(Candidate {
            state,
            proven: proven.map_err(failed(DOING))?.is_some(),
            known_since_ms: row.map_or(now_ms, |row| unsigned(row.known_since_ms)),
            heard_at_ms: row.map_or(now_ms, |row| unsigned(row.heard_at_ms)),
        });
    }
    let forgotten = retention::to_forget(&candidates, speaker, now_ms);
    for id in &forgotten {
        let delete = "DELETE FROM states WHERE endpoint_id = ? AND id = ?";
        run(db, delete, params![endpoint, id.to_string()]).map_err(failed(DOING))?;
    }
    let lost = |state: &&State| state.counts() && state.active_since_ms.is_some();
    let in_doubt = states.iter().filter(lost).any(|state| forgotten.contains(&state.id));
    states.retain(|state| !forgotten.contains(&state.id));
    if in_doubt {
        // As if it were given up: no task will wait for what it may have.
        once.all(db, presence.endpoint_id)?;
    }
    Ok(in_doubt)
}

/// Puts in doubt what may be lost by what an instance says; whether there is such.
fn suspect(db: &Connection, presence: &Presence, once: &mut Once, went_back: bool) -> Result<bool> {
    const DOING: &str = "recording an endpoint's state";
    let endpoint = presence.endpoint_id.to_string();
    if went_back {
        let in_doubt = once.all(db, presence.endpoint_id)?;
        tracing::warn!(
            endpoint,
            state = %presence.state_id,
            in_doubt,
            "the endpoint's state folder has seen less than it had when it was used last: it was \
             put back from a snapshot. The endpoint is asked for everything that is not answered"
        );
    }
    let mut missed = went_back || presence.lost;
    if let Some(attempt) = presence.delivered
        && overdue::is_missing(db, attempt).map_err(failed(DOING))?
        && overdue::miss(db, &endpoint, &presence.state_id.to_string(), &attempt.to_string())
            .map_err(failed(DOING))?
    {
        missed = true;
        let in_doubt = once.all(db, presence.endpoint_id)?;
        tracing::warn!(
            endpoint,
            %attempt,
            in_doubt,
            "the endpoint has delivered a result that is not recorded here: the database was \
             restored from a backup, or results were taken from their queue. The endpoint is asked \
             for everything that is not answered"
        );
    }
    if presence.lost {
        let in_doubt = once.all(db, presence.endpoint_id)?;
        tracing::warn!(
            endpoint,
            in_doubt,
            "messages in the endpoint's task queue were damaged or are missing: it is asked which \
             tasks it does not know, and they are submitted again, or end as interrupted"
        );
    }
    Ok(missed)
}

/// Whether this message was not heard before; from now on it was.
fn is_new(db: &Connection, message: &str) -> rusqlite::Result<bool> {
    let insert = "INSERT INTO heard (message) VALUES (?) ON CONFLICT (message) DO NOTHING";
    if run(db, insert, [message])? == 0 {
        return Ok(false);
    }
    run(db, "DELETE FROM heard WHERE n <= (SELECT max(n) FROM heard) - ?", [KNOWN_AGAIN])?;
    Ok(true)
}

fn write(db: &Connection, endpoint: &str, state: &State) -> Result<()> {
    let insert = "INSERT INTO states (endpoint_id, id, instance, role, holds, active_since_ms, \
         superseded_at_ms, given_up_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (endpoint_id, id) DO UPDATE SET instance = excluded.instance, \
         role = excluded.role, holds = excluded.holds, \
         active_since_ms = excluded.active_since_ms, \
         superseded_at_ms = excluded.superseded_at_ms, \
         given_up_at_ms = excluded.given_up_at_ms";
    let values = params![
        endpoint,
        state.id.to_string(),
        state.instance.to_string(),
        role_name(state.role),
        state.holds,
        state.active_since_ms.map(signed),
        state.superseded_at_ms.map(signed),
        state.given_up_at_ms.map(signed),
    ];
    run(db, insert, values).map_err(failed("recording an endpoint's state"))?;
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

#[cfg(test)]
mod tests;
