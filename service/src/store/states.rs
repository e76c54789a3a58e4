//! The states of endpoints, as their instances report them, and the decision to give one up.
//!
//! A state is a state folder of an endpoint; an instance is a daemon that runs on one. In a
//! presence message an instance says which state it runs on, and whether it is active or
//! standing by. Touches the database only; the rules are in [`clutch_common::failover`].

use super::engine::{Columns, Db, FromRow, values};
use super::unaccounted::{self, AddedEndpoints, Unaccounted};
use super::{Result, Store, commits, details, missing, overdue};
use clutch_common::failover::{self as rules, Candidate, KnownState, PresenceEffect};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::wire::{Presence, Role};
use std::collections::BTreeMap;
use std::time::Duration;

/// An endpoint and its states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointStates {
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// How long a state that another took over from may be silent.
    pub(crate) lost_after: Duration,
    /// Its states.
    pub(crate) states: Vec<KnownState>,
}

/// A presence, and the message it came in.
#[derive(Clone, Debug)]
pub(crate) struct PresenceMessage {
    /// The presence.
    pub(crate) presence: Presence,
    /// The message's id, if it has one.
    pub(crate) message: Option<String>,
    /// How many commits its state had seen, by messages that were read before and are not
    /// recorded yet.
    pub(crate) commits: Option<u64>,
    /// Whether it may have waited in the results queue for long.
    pub(crate) waited: bool,
}

/// How many messages are recognized when they come again: many times the number that the
/// broker may have under way to the service, as no more than that comes twice.
const RECOGNIZED: u64 = 1000;

/// A state as it is recorded, with its endpoint.
pub(super) struct StateRow {
    endpoint: EndpointId,
    name: String,
    lost_after_ms: u64,
    pub(super) state: KnownState,
    known_since_ms: u64,
    heard_at_ms: u64,
}

impl FromRow for StateRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            endpoint: columns.next()?,
            name: columns.next()?,
            lost_after_ms: columns.next()?,
            state: KnownState::read(columns)?,
            known_since_ms: columns.next()?,
            heard_at_ms: columns.next()?,
        })
    }
}

impl FromRow for KnownState {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            id: columns.next()?,
            instance: columns.next()?,
            role: role(&columns.next::<String>()?),
            holds: columns.next()?,
            active_since_ms: columns.next()?,
            superseded_at_ms: columns.next()?,
            given_up_at_ms: columns.next()?,
        })
    }
}

/// All states, and their endpoints; a condition and an order may follow.
const STATES: &str = "SELECT s.endpoint_id, e.name, e.lost_after_ms, s.id, s.instance, s.role, \
     s.holds, s.active_since_ms, s.superseded_at_ms, s.given_up_at_ms, s.known_since_ms, s.heard_at_ms \
     FROM states s JOIN endpoints e ON e.id = s.endpoint_id ";

/// When an endpoint was heard, and its states.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeardEndpoint {
    /// When it told last what it is; nothing if it never did.
    pub(crate) at_ms: Option<u64>,
    /// Its states.
    pub(crate) states: Vec<KnownState>,
    /// Since when the service has it drain, if it does.
    pub(crate) drained_since_ms: Option<u64>,
}

impl Store {
    /// When an endpoint was heard, its states, and whether it drains.
    pub(crate) async fn endpoint_heard(&self, endpoint: EndpointId) -> Result<HeardEndpoint> {
        self.read("reading an endpoint's states", move |db| {
            let rows = rows(db, endpoint)?;
            let at_ms = rows.iter().map(|row| row.heard_at_ms).max();
            let find = "SELECT drain_since_ms FROM endpoints WHERE id = ? AND draining = 1";
            let drained_since_ms =
                db.one::<(Option<u64>,)>(find, values![endpoint])?.and_then(|(since,)| since);
            let states = rows.into_iter().map(|row| row.state).collect();
            Ok(HeardEndpoint { at_ms, states, drained_since_ms })
        })
        .await
    }

    /// The endpoints that were ever heard, and their states.
    pub(crate) async fn endpoint_states(&self) -> Result<Vec<EndpointStates>> {
        let read = |db: &Db<'_>| db.all::<StateRow>(STATES, &[]);
        let rows = self.read("reading the endpoints' states", read).await?;
        let mut endpoints: BTreeMap<EndpointId, EndpointStates> = BTreeMap::new();
        for StateRow { endpoint, name, lost_after_ms, state, .. } in rows {
            let lost_after = Duration::from_millis(lost_after_ms);
            let new = || EndpointStates { endpoint, name, lost_after, states: Vec::new() };
            endpoints.entry(endpoint).or_insert_with(new).states.push(state);
        }
        Ok(endpoints.into_values().collect())
    }

    /// Records that a roll call for these attempts is in the queue. Not if the state and the
    /// instance that it names are not the ones to ask any more: any other passes it by, so
    /// the attempts are still to be asked for. Returns whether it is recorded.
    pub(crate) async fn mark_asked(
        &self,
        endpoint: EndpointId,
        asked: &KnownState,
        attempts: Vec<Unaccounted>,
        now_ms: u64,
    ) -> Result<bool> {
        let asked = (asked.id, asked.instance);
        self.write("recording a roll call", move |write| {
            let states: Vec<KnownState> =
                rows(write.db, endpoint)?.into_iter().map(|row| row.state).collect();
            let reached =
                rules::to_ask(&states).is_some_and(|state| (state.id, state.instance) == asked);
            if reached {
                unaccounted::mark_asked(write.db, &attempts, asked.0, now_ms)?;
            }
            Ok(reached)
        })
        .await
    }

    /// Gives up a state of an endpoint, unless it is active by now: the attempts that the
    /// endpoint was sent and has not answered become unaccounted for. Returns how many these
    /// are.
    pub(crate) async fn give_up(
        &self,
        endpoint: EndpointId,
        state: StateId,
        now_ms: u64,
    ) -> Result<Option<u64>> {
        self.write("giving up an endpoint's state", move |write| {
            let update = "UPDATE states SET given_up_at_ms = ? WHERE endpoint_id = ? AND id = ? \
                 AND given_up_at_ms IS NULL \
                 AND (role <> 'active' OR superseded_at_ms IS NOT NULL)";
            match write.db.run(update, values![now_ms, endpoint, &state])? {
                0 => Ok(None),
                _ => unaccounted::add_all(write.db, endpoint).map(Some),
            }
        })
        .await
    }
}

/// The state that a roll call of an endpoint goes to, if there is one.
pub(super) fn to_ask(db: &Db<'_>, endpoint: EndpointId) -> Result<Option<StateId>> {
    let states: Vec<KnownState> = rows(db, endpoint)?.into_iter().map(|row| row.state).collect();
    Ok(rules::to_ask(&states).map(|state| state.id))
}

/// The states of an endpoint.
pub(super) fn rows(db: &Db<'_>, endpoint: EndpointId) -> Result<Vec<StateRow>> {
    let find = format!("{STATES}WHERE s.endpoint_id = ? ORDER BY s.id");
    db.all(&find, values![endpoint])
}

/// Takes in a presence message; returns whether that changes anything. Ignores the presence
/// of an endpoint that this service did not provision, and a message that comes a second
/// time: it may not be so any more. `added` is that of the transaction.
pub(super) fn take_in(
    db: &Db<'_>,
    message: &PresenceMessage,
    added: &mut AddedEndpoints,
    now_ms: u64,
) -> Result<bool> {
    let PresenceMessage { presence, commits, .. } = message;
    let endpoint = presence.endpoint_id;
    if !db.exists("SELECT 1 FROM endpoints WHERE id = ?", values![endpoint])? {
        tracing::debug!(%endpoint, "a presence of an endpoint that was not provisioned here");
        return Ok(false);
    }
    if let Some(message) = &message.message
        && !is_new(db, message)?
    {
        tracing::debug!(%endpoint, message, "a presence message came again");
        return Ok(false);
    }
    let rows = rows(db, endpoint)?;
    let before: Vec<KnownState> = rows.iter().map(|row| row.state.clone()).collect();
    let mut states = before.clone();
    let PresenceEffect { took_over, given_up } =
        rules::apply_presence(&mut states, presence, now_ms);
    for state in states.iter().filter(|state| !before.contains(state)) {
        write(db, endpoint, state)?;
    }
    details::keep(db, message, now_ms)?;
    let forgotten = forget(db, presence, added, (&mut states, &rows), now_ms)?;
    if took_over {
        unaccounted::ask_again(db, endpoint)?;
    }
    if !given_up.is_empty() {
        let unaccounted = added.add_all(db, endpoint)?;
        tracing::warn!(
            %endpoint,
            state = %presence.state_id,
            unaccounted,
            "the endpoint has come back with another state folder: tasks that the old one had \
             accepted and not answered are submitted again, or end as interrupted"
        );
    }
    let went_back = commits::compare(db, presence, &before, *commits)?;
    let missed = suspect(db, presence, added, went_back)?;
    missing::answer(db, presence, now_ms)?;
    Ok(states != before || missed || forgotten || presence.asks)
}

/// Records that a state was heard, and forgets states that are too many or too old by then;
/// returns whether attempts may be with a forgotten one. `rows` are the states as they were.
fn forget(
    db: &Db<'_>,
    presence: &Presence,
    added: &mut AddedEndpoints,
    (states, rows): (&mut Vec<KnownState>, &[StateRow]),
    now_ms: u64,
) -> Result<bool> {
    let (endpoint, speaker) = (presence.endpoint_id, presence.state_id);
    let update = "UPDATE states SET heard_at_ms = ?1, known_since_ms = \
         CASE known_since_ms WHEN 0 THEN ?1 ELSE known_since_ms END \
         WHERE endpoint_id = ?2 AND id = ?3";
    db.run(update, values![now_ms, endpoint, &speaker])?;
    let known: BTreeMap<StateId, &StateRow> = rows.iter().map(|row| (row.state.id, row)).collect();
    let mut candidates = Vec::with_capacity(states.len());
    for state in &*states {
        let row = known.get(&state.id);
        candidates.push(Candidate {
            state,
            proven: db.exists("SELECT 1 FROM interned_ids WHERE id = ?", values![&state.id])?,
            known_since_ms: row.map_or(now_ms, |row| row.known_since_ms),
            heard_at_ms: row.map_or(now_ms, |row| row.heard_at_ms),
        });
    }
    let forgotten = rules::to_forget(&candidates, speaker, now_ms);
    for id in &forgotten {
        db.run("DELETE FROM states WHERE endpoint_id = ? AND id = ?", values![endpoint, id])?;
    }
    let may_hold = |state: &&KnownState| state.counts() && state.active_since_ms.is_some();
    let lost = states.iter().filter(may_hold).any(|state| forgotten.contains(&state.id));
    states.retain(|state| !forgotten.contains(&state.id));
    if lost {
        // As if it were given up: no task will wait for what it may have.
        added.add_all(db, endpoint)?;
    }
    Ok(lost)
}

/// Has attempts asked for that may be lost by a presence; returns whether there are such.
fn suspect(
    db: &Db<'_>,
    presence: &Presence,
    added: &mut AddedEndpoints,
    went_back: bool,
) -> Result<bool> {
    let endpoint = presence.endpoint_id;
    if went_back {
        let unaccounted = added.add_all(db, endpoint)?;
        tracing::warn!(
            %endpoint,
            state = %presence.state_id,
            unaccounted,
            "the endpoint's state folder has seen less than it had when it was used last: it was \
             put back from a snapshot. The endpoint is asked for everything that is not answered"
        );
    }
    let mut missed = went_back || presence.lost;
    if let Some(attempt) = presence.delivered
        && overdue::is_missing(db, attempt)?
        && overdue::record_missing(db, (endpoint, presence.state_id), attempt)?
    {
        missed = true;
        let unaccounted = added.add_all(db, endpoint)?;
        tracing::warn!(
            %endpoint,
            %attempt,
            unaccounted,
            "the endpoint has delivered a result that is not recorded here: the database was \
             restored from a backup, or results were taken from their queue. The endpoint is asked \
             for everything that is not answered"
        );
    }
    if presence.lost {
        let unaccounted = added.add_all(db, endpoint)?;
        tracing::warn!(
            %endpoint,
            unaccounted,
            "messages in the endpoint's task queue were damaged or are missing: it is asked which \
             tasks it does not know, and they are submitted again, or end as interrupted"
        );
    }
    Ok(missed)
}

/// Whether this message did not come before; from now on it did.
fn is_new(db: &Db<'_>, message: &str) -> Result<bool> {
    let insert =
        "INSERT INTO presence_messages (message) VALUES (?) ON CONFLICT (message) DO NOTHING";
    if db.run(insert, values![message])? == 0 {
        return Ok(false);
    }
    let delete = "DELETE FROM presence_messages \
         WHERE n <= (SELECT max(n) FROM presence_messages) - ?";
    db.run(delete, values![RECOGNIZED])?;
    Ok(true)
}

/// Writes a state as it is from now on.
pub(super) fn write(db: &Db<'_>, endpoint: EndpointId, state: &KnownState) -> Result<()> {
    let insert = "INSERT INTO states (endpoint_id, id, instance, role, holds, active_since_ms, \
         superseded_at_ms, given_up_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (endpoint_id, id) DO UPDATE SET instance = excluded.instance, \
         role = excluded.role, holds = excluded.holds, \
         active_since_ms = excluded.active_since_ms, \
         superseded_at_ms = excluded.superseded_at_ms, \
         given_up_at_ms = excluded.given_up_at_ms";
    let values = values![
        endpoint,
        &state.id,
        state.instance.to_string(),
        role_name(state.role),
        state.holds,
        state.active_since_ms,
        state.superseded_at_ms,
        state.given_up_at_ms,
    ];
    db.run(insert, values).map(drop)
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
