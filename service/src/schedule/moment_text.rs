//! A moment as people write it: with an offset, or as the wall time of a zone. Pure.

use super::Zone;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset};
use std::str::FromStr;

/// A moment, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MomentText {
    /// With its offset: `2026-11-30T08:00:00Z`.
    Instant(i64),
    /// A wall time of a zone that is given apart from it: `2026-11-30 08:00`, `2026-11-30`.
    Wall(DateTime),
}

impl FromStr for MomentText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Ok(Self::Instant(instant.as_millisecond()));
        }
        let zoned = text.contains(['[', '+', 'Z', 'z']);
        match text.parse() {
            Ok(wall) if !zoned => Ok(Self::Wall(wall)),
            _ => Err(format!(
                "'{text}' is no moment: write 2026-11-30, 2026-11-30T08:00, or 2026-11-30T08:00:00Z"
            )),
        }
    }
}

impl MomentText {
    /// The moment in milliseconds since the Unix epoch. A wall time that its zone leaves out, or
    /// has twice, is refused.
    pub(crate) fn ms(&self, zone: &Zone) -> Result<i64, String> {
        let wall = match self {
            Self::Instant(ms) => return Ok(*ms),
            Self::Wall(wall) => *wall,
        };
        let with = |offset: Offset| format!("{wall}{offset}");
        let offset = match zone.rules().to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Gap { before, after } => {
                return Err(format!(
                    "{wall} does not exist in {zone}, whose clocks are set forward over it: write \
                     {} or {}",
                    with(before),
                    with(after)
                ));
            }
            AmbiguousOffset::Fold { before, after } => {
                return Err(format!(
                    "{wall} comes twice in {zone}, whose clocks are set back: write {} or {}",
                    with(before),
                    with(after)
                ));
            }
        };
        let instant = offset.to_timestamp(wall);
        Ok(instant.map_err(|_| format!("{wall} is too far away"))?.as_millisecond())
    }
}
