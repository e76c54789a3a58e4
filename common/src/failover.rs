//! The rules of failover, for the service and for what simulates it. Pure: no clock, no IO;
//! `design/0008-failover.md` says why they are so.
//!
//! An endpoint may have several *instances*: daemons, each on a *state* (a state folder, by
//! its id). The one that holds the endpoint's *lease* is active and takes tasks, the others
//! stand by. Instances send *presences*; the service *pings* the holder of the lease, asks
//! the active instance in a *roll call* which attempts it does not know, and *gives up* a
//! state that stays silent: what was accepted there is then submitted again, or ends.

mod losses;
mod plan;
mod retention;
mod states;

pub use losses::{Consequence, Evidence, TaskStanding, consequence};
pub use plan::{Heard, PingTimes, Plan, plan};
pub use retention::{Candidate, KEPT, to_forget};
pub use states::{
    KnownState, PresenceEffect, active, apply_presence, declare_lost, holder, misses_one, to_ask,
};
