//! The one place where wall times become instants. Pure, given the rules of a zone.
//!
//! A zone that sets its clocks forward leaves wall times out (a *gap*); one that sets them back
//! has wall times twice (a *fold*). Two kinds of rules meet them differently:
//!
//! - Where the hours are a rhythm (`*`, `*/2`), each moment with a named wall time counts: a
//!   wall time of a gap has no moment, one of a fold has two. The rhythm goes on in real time.
//! - Where the hours are named, each wall time has one instant: one of a gap has it at the first
//!   moment after the gap, one of a fold at the first of its two moments. All wall times of
//!   one gap share that one instant.

use super::Zone;
use super::civil::{WallTimes, second};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// Whether the zone's clocks changed at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    /// The wall time of the instant is the named one, and comes once.
    No,
    /// The named wall time is in a gap, and the instant is the first moment after it.
    AfterGap,
    /// The wall time comes twice, and this is its first moment.
    FirstOfTwo,
    /// The wall time comes twice, and this is its second moment.
    SecondOfTwo,
}

/// The first instant after `after_ms`.
pub(super) fn next(times: &WallTimes, zone: &Zone, after_ms: i64) -> Option<i64> {
    let after = Timestamp::from_second(after_ms.div_euclid(1000)).ok()?;
    let found = if times.hours_are_rhythm {
        rhythm(times, zone.rules(), after.checked_add(second()).ok()?)
    } else {
        named(times, zone.rules(), after)
    };
    found.map(Timestamp::as_millisecond)
}

/// The first moment from `from` on with a named wall time.
fn rhythm(times: &WallTimes, zone: &TimeZone, mut from: Timestamp) -> Option<Timestamp> {
    loop {
        let offset = zone.to_offset(from);
        let mut changes = zone.following(from);
        let change = changes.find(|change| change.offset() != offset);
        let change = change.map(|change| change.timestamp());
        let found = offset.to_timestamp(times.next(offset.to_datetime(from))?).ok()?;
        match change {
            Some(change) if change <= found => from = change,
            _ => return Some(found),
        }
    }
}

/// The first instant after `after` of a wall time that is named.
fn named(times: &WallTimes, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut from = zone.to_datetime(after).checked_add(second()).ok()?;
    loop {
        let wall = times.next(from)?;
        let instant = instant(zone, wall)?;
        if instant > after {
            return Some(instant);
        }
        // A wall time of a fold: its instant was before `after`.
        from = wall.checked_add(second()).ok()?;
    }
}

/// The one instant of a wall time.
fn instant(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
        AmbiguousOffset::Gap { before, after } => change(zone, wall, before, after),
    }
}

/// The moment at which the zone went from one offset to the other, so that a wall time is in
/// a gap or in a fold.
fn change(zone: &TimeZone, wall: DateTime, before: Offset, after: Offset) -> Option<Timestamp> {
    let either = [before.to_timestamp(wall).ok()?, after.to_timestamp(wall).ok()?];
    let from = either[0].min(either[1]).checked_sub(second()).ok()?;
    let mut changes = zone.following(from);
    changes.find(|change| change.offset() == after).map(|change| change.timestamp())
}

/// How the zone's clocks changed at an instant of these wall times.
pub(super) fn shift(times: &WallTimes, zone: &Zone, instant_ms: i64) -> Shift {
    let Ok(instant) = Timestamp::from_millisecond(instant_ms) else { return Shift::No };
    let wall = zone.rules().to_datetime(instant);
    if !times.names(wall) {
        return Shift::AfterGap;
    }
    match zone.rules().to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Fold { before, .. } if zone.rules().to_offset(instant) == before => {
            Shift::FirstOfTwo
        }
        AmbiguousOffset::Fold { .. } => Shift::SecondOfTwo,
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => Shift::No,
    }
}

#[cfg(test)]
mod tests;
