//! Names as AMQP carries them. Pure.

use crate::link::Fault;
use lapin::types::ShortString;

/// The longest name that AMQP can carry, in bytes.
pub(super) const LONGEST: usize = 255;

/// A name as AMQP carries it.
pub(super) fn short(name: &str) -> Result<ShortString, Fault> {
    ShortString::try_new(name).map_err(|_| {
        let start: String = name.chars().take(40).collect();
        Fault::Protocol(format!("'{start}…' is longer than the {LONGEST} bytes of an AMQP name"))
    })
}
