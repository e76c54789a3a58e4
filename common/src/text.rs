//! Text that people read: numbers with their nouns, foreign text made harmless, and
//! passwords left out. Pure.

pub mod counted;
pub mod printable;
pub mod secret;
