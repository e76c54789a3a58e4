//! Whether the results at a broker, or in a folder, are this service's; and what a person
//! is told where they are another's. The place itself remembers
//! ([`clutch_common::link::ownership`]).

use crate::state_folder::StateFolder;
use clutch_common::id::ServiceId;

/// The service that claims the results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant {
    /// This service.
    pub(crate) service: ServiceId,
    /// Whether it takes them over where they are another's: a person said so.
    pub(crate) take_over: bool,
}

/// The words for results that are another service's.
pub(crate) fn refused(ours: Option<ServiceId>, state: &StateFolder, words: &str) -> String {
    let state = state.records().display();
    let who = match ours {
        Some(ours) => format!("the one in {state} is {ours}"),
        None => format!("there is none in {state} yet"),
    };
    format!(
        "the results there belong to another clutch-service, and {who}: it would take results of \
         tasks that it does not know. Is --state (or CLUTCH_STATE) right? If the records of that \
         service are lost or out of use, `clutch-service serve --take-over` takes the results over \
         ({words})"
    )
}

/// The service that results belong to, in words.
pub(crate) fn name(service: Option<ServiceId>) -> String {
    service.map_or_else(|| "another one".to_owned(), |service| service.to_string())
}
