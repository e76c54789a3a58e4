//! The endpoint's pending work: tasks that wait or run, and results to be delivered.
//!
//! [`ledger`] keeps the inbox, the outbox and the journal on disk in step; [`poison`]
//! judges tasks with which the endpoint died. Touches the disk through `storage` only.

pub(crate) mod inbox;
pub(crate) mod ledger;
pub(crate) mod outbox;
pub(crate) mod poison;
