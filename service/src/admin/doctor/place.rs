//! The checks of `doctor` at a broker or folder that can be used: which service the results
//! belong to, whether there are dead letters, and whether policies take messages from the queues.
//!
//! Works through `clutch_common::link`. Declares and changes nothing.

use crate::broker::ownership;
use crate::config::Settings;
use crate::model::QueueHazard;
use crate::store::service_in;
use clutch_common::id::ServiceId;
use clutch_common::link::ownership::{Claim, claim};
use clutch_common::link::{Check, Connection, Fault, Transport};
use clutch_common::text::counted::counted;
use clutch_common::topology::{self, QueueKind};

const OWNED: &str = "the results are collected by this service";
const LETTERS: &str = "no dead letters wait";
const POLICIES: &str = "nothing else takes messages from the queues";

/// Looks at a place. Nothing is told where it has just been found unusable.
pub(super) async fn look(settings: &Settings, transport: &dyn Transport) -> Vec<Check> {
    let Ok(connection) = transport.connect("clutch/service/doctor").await else {
        return Vec::new();
    };
    let checks =
        vec![owned(settings, connection.as_ref()).await, letters(connection.as_ref()).await];
    connection.close().await;
    checks
}

async fn owned(settings: &Settings, connection: &dyn Connection) -> Check {
    match connection.waiting(topology::OWNER_QUEUE).await {
        Ok(_) => {}
        Err(Fault::Missing(_)) => {
            return Check::passed(OWNED).with("no service has claimed them yet");
        }
        Err(fault) => return Check::faulty(OWNED, fault),
    }
    let ours = service_in(settings.state.database()).unwrap_or_default();
    // Where this service has no id yet, an id that no service has will not be taken for the owner.
    match claim(connection, ours.unwrap_or_else(ServiceId::new), QueueKind::Classic).await {
        Ok(Claim::Ours) => Check::passed(OWNED).with(&format!("it is {}", ownership::name(ours))),
        Ok(Claim::Theirs { words, .. }) => {
            let words = ownership::refused(ours, &settings.state, &words);
            Check::faulty(OWNED, Fault::Mismatch(words))
        }
        Err(fault) => Check::faulty(OWNED, fault),
    }
}

async fn letters(connection: &dyn Connection) -> Check {
    match connection.waiting(topology::DEAD_LETTER_QUEUE).await {
        Ok(0) => Check::passed(LETTERS),
        Ok(waiting) => Check::warning(
            LETTERS,
            &format!(
                "{}: messages that could not be read or delivered. `clutch-service \
                 dead-letters list` tells which and why; `requeue` puts them back, `drop` removes \
                 them",
                counted(waiting, "letter")
            ),
        ),
        Err(Fault::Missing(_)) => Check::passed(LETTERS).with("nothing was provisioned yet"),
        Err(fault) => Check::faulty(LETTERS, fault),
    }
}

/// A check for each policy that takes messages from a queue.
pub(super) fn policies(found: Result<Vec<QueueHazard>, String>) -> Vec<Check> {
    match found {
        Ok(found) if found.is_empty() => vec![Check::passed(POLICIES)],
        Ok(found) => found.iter().map(|hazard| Check::warning(POLICIES, &hazard.words)).collect(),
        Err(reason) => vec![Check::warning(
            POLICIES,
            &format!(
                "policies there could not be looked at: {reason}; --management URL says where the \
                 management API is"
            ),
        )],
    }
}
