//! Facts that an endpoint told in its events: how far a task is there, and how loaded it is.
//! They are not recorded. Pure.

use clutch_common::wire::{Load, MessageWait, Phase, TaskProgress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A task as its endpoint told of it last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LiveTask {
    /// The attempt.
    pub(crate) attempt: u32,
    /// How far it is.
    pub(crate) phase: Phase,
    /// Since when, in milliseconds since the Unix epoch, by the endpoint's clock.
    pub(crate) since_ms: u64,
    /// When the endpoint accepted it, by the endpoint's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accepted_at_ms: Option<u64>,
    /// Its last progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<TaskProgress>,
    /// The thing that it waits for other than a slot, in the endpoint's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waits_for: Option<String>,
    /// Its sends and receives that have been open for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) waits: Vec<MessageWait>,
    /// When the endpoint told of anything last, by the service's clock.
    pub(crate) heard_at_ms: u64,
    /// Whether that is so long ago that it may be otherwise.
    #[serde(default)]
    pub(crate) stale: bool,
}

/// The load of an endpoint as it told it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LiveLoad {
    /// The load.
    #[serde(flatten)]
    pub(crate) load: Load,
    /// When it was told, by the service's clock.
    pub(crate) heard_at_ms: u64,
    /// How far the endpoint's clock is ahead of the service's, in milliseconds, give or take
    /// the time that the message was under way.
    pub(crate) clock_ahead_ms: i64,
    /// Whether that is so long ago that it may be otherwise.
    #[serde(default)]
    pub(crate) stale: bool,
}

/// The progress of a task in a few words: how much is done, and the message.
#[must_use]
pub(crate) fn progress_words(progress: &TaskProgress) -> String {
    let fraction = progress.fraction.filter(|fraction| fraction.is_finite());
    let share = fraction.map(|fraction| format!("{:.0} %", fraction.clamp(0.0, 1.0) * 100.0));
    let parts: Vec<String> = share.into_iter().chain(progress.message.clone()).collect();
    match (parts.is_empty(), &progress.data) {
        (true, Some(data)) => data.text().to_owned(),
        _ => parts.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_by_its_share_and_its_message_or_else_its_data() {
        let told = |fraction, message: Option<&str>, data: Option<&str>| {
            progress_words(&TaskProgress {
                fraction,
                message: message.map(str::to_owned),
                data: data.map(|text| text.parse().unwrap()),
                at_ms: 1,
            })
        };
        assert_eq!(told(Some(0.421), Some("epoch 3"), Some("[1]")), "42 % epoch 3");
        assert_eq!(told(Some(7.0), None, None), "100 %");
        assert_eq!(told(Some(f64::NAN), Some("epoch 3"), None), "epoch 3");
        assert_eq!(told(None, None, Some("[1]")), "[1]");
    }
}
