//! The host's resources: descriptors, room on disk, and the meaning of the system's errors.

pub(crate) mod descriptors;
pub(crate) mod disk_space;
pub(crate) mod os_error;
