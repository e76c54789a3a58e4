//! The service's side of the broker, while a link to it lasts: what results arrive, whose they
//! are, and what is wrong there.
//!
//! `session` holds the link and runs the rest for as long as it lasts.

pub(crate) mod anomalies;
pub(crate) mod collector;
pub(crate) mod health;
pub(crate) mod management;
pub(crate) mod ownership;
pub(crate) mod policy_monitor;
pub(crate) mod session;
