//! The commands that need no running service: they work on the state folder and at the
//! broker themselves.

pub(crate) mod dead_letters;
pub(crate) mod deprovision;
pub(crate) mod doctor;
pub(crate) mod endpoint_file;
pub(crate) mod provision;
pub(crate) mod schedule_preview;
