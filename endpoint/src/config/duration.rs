//! Durations in the configuration: text such as `10s` or `5m`. Pure.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The longest duration of any setting: more than a clock can count would end the daemon.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads a duration.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let custom = |why: String| serde::de::Error::custom(why);
    let duration = humantime::parse_duration(&text).map_err(|error| {
        custom(format!("'{text}' is not a duration such as 10s or 5m: {error}"))
    })?;
    if duration > LONGEST {
        return Err(custom(format!("'{text}' is more than a year")));
    }
    Ok(duration)
}
