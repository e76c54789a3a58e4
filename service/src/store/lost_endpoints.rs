//! Endpoints that a person declares lost. Touches the database only; the rule is in
//! [`clutch_common::failover`].

use super::states::{rows, write};
use super::{Result, Store, topic_placer, unaccounted};
use clutch_common::failover::{self as rules, KnownState};
use clutch_common::id::{EndpointId, StateId};

/// The states that were declared lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeclaredLost {
    /// The states.
    pub(crate) states: Vec<StateId>,
    /// How many attempts are unaccounted for by that, or of topics and lost.
    pub(crate) tasks: u64,
}

impl Store {
    /// Gives up one state of an endpoint, or every one that may have tasks: the attempts that
    /// it was sent and has not answered become unaccounted for, and those of topics that it claimed
    /// are lost. Nothing if its states are not as
    /// `known` any more: an instance was heard.
    pub(crate) async fn declare_lost(
        &self,
        endpoint: EndpointId,
        (which, known): (Option<StateId>, Vec<KnownState>),
        now_ms: u64,
    ) -> Result<Option<DeclaredLost>> {
        self.write("declaring an endpoint lost", move |write_to| {
            let db = write_to.db;
            let before: Vec<KnownState> =
                rows(db, endpoint)?.into_iter().map(|row| row.state).collect();
            let same = before.len() == known.len() && known.iter().all(|one| before.contains(one));
            if !same {
                return Ok(None);
            }
            let mut after = before.clone();
            let states = rules::declare_lost(&mut after, which, now_ms);
            for state in after.iter().filter(|state| !before.contains(state)) {
                write(db, endpoint, state)?;
            }
            let mut tasks = 0;
            if !states.is_empty() {
                tasks = topic_placer::lose(write_to, endpoint, now_ms)?;
                tasks += unaccounted::add_all(db, endpoint)?;
            }
            Ok(Some(DeclaredLost { states, tasks }))
        })
        .await
    }
}
