//! The priority of a task: one of five levels. Pure.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How early a task starts among those that wait: one of a higher level before one of a lower
/// level, though not for ever.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Priority {
    /// After all others.
    Lowest,
    /// After normal ones.
    Low,
    /// The level of a task that names none.
    #[default]
    Normal,
    /// Before normal ones.
    High,
    /// Before all others.
    Highest,
}

impl Priority {
    /// All levels, the lowest first.
    pub const ALL: [Self; 5] = [Self::Lowest, Self::Low, Self::Normal, Self::High, Self::Highest];

    /// The level as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lowest => "lowest",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Highest => "highest",
        }
    }

    /// The level as a number: 0 is normal, and a higher level has a larger number.
    #[must_use]
    pub const fn rank(self) -> i64 {
        match self {
            Self::Lowest => -2,
            Self::Low => -1,
            Self::Normal => 0,
            Self::High => 1,
            Self::Highest => 2,
        }
    }

    /// The level with this number.
    #[must_use]
    pub fn of_rank(rank: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.rank() == rank)
    }

    /// The level as an index of a table of five, the lowest first.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Lowest => 0,
            Self::Low => 1,
            Self::Normal => 2,
            Self::High => 3,
            Self::Highest => 4,
        }
    }

    /// Whether it is the level of a task that names none.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or_else(|| {
            let levels = Self::ALL.map(Self::as_str).join(", ");
            format!("'{text}' is no priority: it is one of {levels}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_written_read_counted_and_ordered() {
        for (index, level) in Priority::ALL.into_iter().enumerate() {
            assert_eq!(level.as_str().parse(), Ok(level));
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{level}\""));
            assert_eq!(Priority::of_rank(level.rank()), Some(level));
            assert_eq!(level.index(), index);
        }
        assert!(Priority::ALL.is_sorted());
        assert_eq!(Priority::default().rank(), 0);
        assert!("urgent".parse::<Priority>().unwrap_err().contains("lowest, low, normal"));
    }
}
