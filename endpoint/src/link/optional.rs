//! Waits for an outlet or a moment that may not be there: without it, for ever. Touches nothing
//! else.

use clutch_common::link::{Fault, Outlet, Settlement, Ticket};
use std::future::pending;
use tokio::time::{Instant, sleep_until};

/// The next settlements of an outlet, if there is one.
///
/// # Errors
/// The fault that ended the outlet.
pub(super) async fn settled(
    outlet: Option<&mut (dyn Outlet + 'static)>,
) -> Result<Vec<(Ticket, Settlement)>, Fault> {
    match outlet {
        Some(outlet) => outlet.settled().await,
        None => pending().await,
    }
}

/// Waits until a moment, if there is one.
pub(super) async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
