//! The offer of an endpoint: the topics that it is a member of, and its functions with their
//! versions. Pure. The endpoint's file is the judge of what runs here, whatever the service
//! believed when it placed a task.

use clutch_common::task::topic::TOPICS_MAX;
use clutch_common::wire::{FUNCTIONS_MAX, FunctionOffer};
use std::collections::{BTreeMap, BTreeSet};

/// The topics and functions of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Offer {
    /// The topics of which it is a member.
    pub(crate) topics: BTreeSet<String>,
    /// The functions, each with its version where it has one.
    pub(crate) functions: BTreeMap<String, Option<String>>,
}

impl Offer {
    /// The topics, as they are told to the service.
    pub(crate) fn told_topics(&self) -> Vec<String> {
        self.topics.iter().take(TOPICS_MAX).cloned().collect()
    }

    /// The functions, as they are told to the service.
    pub(crate) fn told_functions(&self) -> Vec<FunctionOffer> {
        let functions = self.functions.iter().take(FUNCTIONS_MAX);
        let offer = |(name, version): (&String, &Option<String>)| FunctionOffer {
            name: name.clone(),
            version: version.clone(),
        };
        functions.map(offer).collect()
    }
}
