//! The service's link to the broker: the results that arrive over it, which service they belong
//! to, and what is wrong at the broker.
//!
//! `session` makes the link, and runs the other parts for as long as it lasts.

pub(crate) mod anomalies;
pub(crate) mod collector;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod management;
pub(crate) mod observer;
pub(crate) mod ownership;
pub(crate) mod policy_monitor;
pub(crate) mod requests;
pub(crate) mod retire;
pub(crate) mod session;
pub(crate) mod topic_placer;
