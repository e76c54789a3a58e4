//! Claims: an endpoint tells which attempts of topics it will start. Pure.
//!
//! An endpoint starts such an attempt only after the broker has confirmed its claim, at or before
//! the moment in its terms. So an attempt without a claim in the results queue, read far enough
//! after that moment, never starts there (`design/0021-topics.md`).

use super::envelope::enveloped;
use crate::id::{Attempt, EndpointId, StateId};
use serde::{Deserialize, Serialize};

/// The AMQP `type` of claims.
pub const CLAIMS_TYPE: &str = "clutch.claims";

/// The most attempts in one message of claims.
pub const CLAIMS_MAX: usize = 1000;

/// An endpoint claims attempts of topics.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The endpoint.
    pub endpoint_id: EndpointId,
    /// Its state folder.
    pub state_id: StateId,
    /// The attempts; at most [`CLAIMS_MAX`].
    pub attempts: Vec<Attempt>,
}

/// Encodes claims into a body.
#[must_use]
pub fn encode_claims(claims: &Claims) -> Vec<u8> {
    enveloped(CLAIMS_TYPE, claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TaskId;
    use crate::wire::{ToService, decode_to_service};

    #[test]
    fn claims_come_back_as_they_were_written() {
        let attempts = (1..=3).map(|attempt| Attempt { task_id: TaskId::new(), attempt }).collect();
        let claims = Claims { endpoint_id: EndpointId::new(), state_id: StateId::new(), attempts };
        assert_eq!(decode_to_service(&encode_claims(&claims)), ToService::Claims(claims));
    }
}
