//! Records which service owns the results at a broker, and keeps others from taking them.
//!
//! Works through the seam alone, so it is the same on every transport. The place itself
//! compares: the claim is a queue with the service's id among its arguments
//! ([`topology::owner`]), and declaring it with another one is refused:
//! the first claim counts, whether or not its service is running.

use super::{Connection, Fault};
use crate::id::ServiceId;
use crate::topology::{self, QueueKind};

/// Which service owns the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// They are this service's, from then on if no service had claimed them.
    Ours,
    /// They are another service's.
    Theirs {
        /// Its id, where the place tells that.
        service: Option<ServiceId>,
        /// Which service it is, or what the place says.
        words: String,
    },
}

/// Claims the results for a service, unless they are another's. `kind` is that of the
/// queues that all endpoints share.
///
/// # Errors
/// When the place cannot be asked; then nothing is known.
pub async fn claim(
    connection: &dyn Connection,
    service: ServiceId,
    kind: QueueKind,
) -> Result<Claim, Fault> {
    let other = match kind {
        QueueKind::Quorum => QueueKind::Classic,
        QueueKind::Classic => QueueKind::Quorum,
    };
    let mut theirs = None;
    // For a queue of the other kind, the mismatch would name the kind and not the owner.
    for kind in [kind, other] {
        match connection.declare(&topology::owner(service, kind)).await {
            Ok(()) => return Ok(Claim::Ours),
            Err(Fault::Mismatch(words)) => {
                let service = holder(&words);
                let words = match service {
                    Some(service) => format!("they belong to the service {service}"),
                    None => words,
                };
                if theirs.is_none() || service.is_some() {
                    theirs = Some(Claim::Theirs { service, words });
                }
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(theirs.unwrap_or(Claim::Ours))
}

/// Makes the results those of a service, also where another one has claimed them. To be called by a service
/// that holds [`topology::SERVICE_LEASE`]: another one does not collect meanwhile.
///
/// # Errors
/// When that cannot be done; then no service may have claimed them.
pub async fn take_over(
    connection: &dyn Connection,
    service: ServiceId,
    kind: QueueKind,
) -> Result<(), Fault> {
    connection.remove_queue(topology::OWNER_QUEUE).await?;
    connection.declare(&topology::owner(service, kind)).await
}

/// The service that a place says has claimed the results: each transport tells of an
/// argument that differs what was received and what is current.
fn holder(words: &str) -> Option<ServiceId> {
    let (_, current) = words.rsplit_once("current is")?;
    current.split(|c: char| c != '-' && !c.is_ascii_hexdigit()).find_map(|word| {
        let whole = word.len() == uuid::fmt::Hyphenated::LENGTH;
        word.parse().ok().filter(|_| whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_read_from_what_the_place_says_if_it_says_so() {
        let (ours, theirs) = (ServiceId::new(), ServiceId::new());
        let words = format!("received '{ours}' but current is '{theirs}'); delete it");
        assert_eq!(holder(&words), Some(theirs));
        for words in ["", "current is none", "received 'quorum' but current is 'classic'"] {
            assert_eq!(holder(words), None, "{words}");
        }
    }
}
