//! The service's side of the broker, while a link to it lasts: what results arrive, whose they
//! are, and what is wrong there.
//!
//! `session` holds the link and runs the rest for as long as it lasts.

pub(crate) mod collector;
pub(crate) mod counts;
pub(crate) mod management;
pub(crate) mod ownership;
pub(crate) mod policies;
pub(crate) mod session;
pub(crate) mod told;
