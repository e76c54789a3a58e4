//! The endpoint's link to its service: dial, hold a session, read tasks, publish results.
//!
//! [`session`] opens one connection at a time and joins what uses it; [`clutch`] decides
//! when to dial again; [`instance`] holds the role of this endpoint among those that
//! share its ID. Speaks to a broker through `clutch_common::link` only.

mod claims;
pub(crate) mod clutch;
mod control;
pub(crate) mod events;
pub(crate) mod events_request;
pub(crate) mod instance;
mod optional;
mod post;
mod publisher;
pub(crate) mod session;
mod session_error;
pub(crate) mod status;
pub(crate) mod steering;
mod subscriber;
