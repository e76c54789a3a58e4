//! Publishing: messages go to the broker, and its word on each comes back.

pub(crate) mod pack;
pub(crate) mod placing;
pub(crate) mod submitter;
