//! The treatment of instants that were missed, and of those that come while the task of an
//! earlier one has no outcome. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How late an instant that was missed is made up for, unless it is said otherwise: one year.
pub(crate) const WINDOW_MS: i64 = 366 * 24 * 60 * 60 * 1000;

/// Which missed instants are made up for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CatchUp {
    /// The last one
    #[default]
    Last,
    /// Each
    All,
    /// None
    None,
}

/// The treatment of an instant while the task of an earlier one has no outcome.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Overlap {
    /// The instant is skipped
    #[default]
    Skip,
    /// One instant waits for the end of the earlier task, further ones are skipped
    QueueOne,
    /// The instant becomes a task all the same
    Allow,
    /// The earlier task is cancelled, and the instant becomes a task
    CancelPrevious,
}

/// How the instants of a schedule that are due end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Policy {
    /// Which missed instants are made up for.
    pub(crate) catch_up: CatchUp,
    /// How late an instant may be made up for, in milliseconds. Not for [`CatchUp::None`].
    #[schema(minimum = 1000, maximum = 9_223_372_036_854_775_807_i64)]
    pub(crate) window_ms: i64,
    /// The treatment of an instant while an earlier task has no outcome.
    pub(crate) overlap: Overlap,
    /// After so many failures in a row the schedule is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub(crate) pause_after: Option<u32>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            catch_up: CatchUp::default(),
            window_ms: WINDOW_MS,
            overlap: Overlap::default(),
            pause_after: None,
        }
    }
}

impl Policy {
    /// Checks the bounds of its values.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.window_ms < 1000 {
            return Err("the window must be at least 1s".to_owned());
        }
        if self.pause_after == Some(0) {
            return Err("a schedule can be paused after 1 failure at the earliest".to_owned());
        }
        Ok(())
    }
}
