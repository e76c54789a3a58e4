//! Time zones of the IANA database, by name. The rules are those that the system has, else the
//! ones that come with the program.

use jiff::tz::{self, TimeZone};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How many names are offered for one that is not known.
const OFFERED: usize = 3;

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// The zone without changes.
    pub(crate) fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// A moment as the zone's clocks show it, in a format of strftime.
    pub(crate) fn shown(&self, ms: i64, format: &str) -> String {
        shown(ms, &self.rules, format)
    }

    /// A moment in UTC, as RFC 3339 has it.
    pub(crate) fn utc_shown(&self, ms: i64) -> String {
        shown(ms, &TimeZone::UTC, "%Y-%m-%dT%H:%M:%S%.fZ")
    }

    pub(super) fn rules(&self) -> &TimeZone {
        &self.rules
    }
}

fn shown(ms: i64, rules: &TimeZone, format: &str) -> String {
    let instant = jiff::Timestamp::from_millisecond(ms).ok();
    let shown = instant
        .map(|instant| instant.to_zoned_datetime(rules.clone()).strftime(format).to_string());
    shown.unwrap_or_else(|| ms.to_string())
}

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("UTC") {
            return Ok(Self::utc());
        }
        let zone = TimeZone::get(text).ok();
        let named = zone.as_ref().and_then(|rules| Some((rules.iana_name()?.to_owned(), rules)));
        if let Some((name, rules)) = named {
            return Ok(Self { name, rules: rules.clone() });
        }
        let wanted = text.to_ascii_lowercase().replace(' ', "_");
        let like = tz::db().available().map(|name| name.to_string());
        let like: Vec<String> = like
            .filter(|name| wanted.len() > 2 && name.to_ascii_lowercase().contains(&wanted))
            .filter(|name| !name.starts_with("posix/") && !name.starts_with("right/"))
            .take(OFFERED)
            .collect();
        let offered =
            if like.is_empty() { "Europe/Berlin or UTC".to_owned() } else { like.join(" or ") };
        Err(format!(
            "'{text}' is no time zone: write a name of the IANA database, such as {offered}"
        ))
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
