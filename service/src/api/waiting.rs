//! The link to the broker, for a request that needs it.

use super::Api;
use crate::broker::session::LinkState;
use crate::publishing::Publisher;

/// The publisher of the link to the broker, or why there is none.
pub(super) fn link(api: &Api) -> Result<Publisher, String> {
    match &*api.link.borrow() {
        LinkState::Engaged(publisher) => Ok(publisher.clone()),
        LinkState::Disengaged(fault) => {
            Err(format!("the service has no link to the broker: {fault}"))
        }
    }
}
