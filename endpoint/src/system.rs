//! The host's resources: descriptors, room on disk, and the meaning of the system's errors.

pub(crate) mod descriptors;
pub(crate) mod host;
pub(crate) mod room;
