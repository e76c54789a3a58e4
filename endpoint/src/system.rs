//! The host's resources: descriptors, room on disk, the meaning of the system's errors, and
//! the troubles that they make.

pub(crate) mod descriptors;
pub(crate) mod disk_space;
pub(crate) mod os_error;
pub(crate) mod troubles;
