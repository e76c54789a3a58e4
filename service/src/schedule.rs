//! Schedules, as rules: which instants a schedule has, and how each of them ends. Pure.
//!
//! An *instant* is a moment that a schedule's rule names, in milliseconds since the Unix epoch.
//! An *occurrence* is the one record of an instant: it became a task, or it was skipped for a
//! reason. [`Rule::next_after`] gives the instants, for all that need them; [`step()`] decides what
//! becomes of those that are due. Neither has a clock, a database or chance.

mod calendar;
#[cfg(test)]
pub(crate) mod choices;
mod civil;
mod cron;
mod identity;
mod instants;
mod moment_text;
#[cfg(test)]
mod oracle;
mod policy;
mod recurrence;
mod rule;
#[cfg(test)]
mod simulation;
mod state;
mod step;
mod zone;

pub(crate) use calendar::Calendar;
pub(crate) use cron::Cron;
pub(crate) use identity::ScheduleId;
pub(crate) use instants::Shift;
pub(crate) use moment_text::MomentText;
pub(crate) use policy::{CatchUp, Overlap, Policy};
pub(crate) use recurrence::Recurrence;
pub(crate) use rule::Rule;
pub(crate) use state::{Decision, End, PauseCause, ScheduleState, SkipReason};
pub(crate) use step::{Next, step};
pub(crate) use zone::Zone;
