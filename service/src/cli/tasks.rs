//! The arguments of `tasks`, and how a moment is written.

use super::values;
use clap::Args;
use clutch_common::task::priority::Priority;
use std::time::{Duration, SystemTime};

#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    /// Only tasks of this endpoint (name or id)
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    /// Only tasks that were submitted to this topic
    #[arg(long, value_parser = values::topic_name)]
    pub(crate) topic: Option<String>,
    /// Only tasks in one of these states, with commas between them: waiting, submitted, accepted,
    /// running, or an outcome such as failed
    #[arg(long, value_name = "STATE,…", value_delimiter = ',')]
    pub(crate) status: Vec<String>,
    /// Only tasks submitted under this key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only tasks of this name; * stands for any text
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only tasks of this level: lowest, low, normal, high or highest
    #[arg(long, value_name = "LEVEL")]
    pub(crate) priority: Option<Priority>,
    /// Only tasks recorded at this moment or later: 2h (ago), 2026-11-30, or 2026-11-30T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Moment>,
    /// Only tasks recorded before this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<Moment>,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u64,
    /// Show how many tasks are in each state, how fast they go on and how long the rest takes, of a
    /// --key, of an --endpoint or of all; on a terminal it is redrawn every second. Ends with the
    /// last task of a --key, or with Ctrl-C
    #[arg(long, conflicts_with_all = ["topic", "status", "name", "priority", "since", "until", "limit"])]
    pub(crate) watch: bool,
}

/// A moment, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long before the present.
    Ago(Duration),
    /// A date and a time.
    At(SystemTime),
}

impl Moment {
    /// It in milliseconds since the Unix epoch, where `now_ms` is the present.
    pub(crate) fn ms(self, now_ms: u64) -> u64 {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Ago(time) => now_ms.saturating_sub(ms(time)),
            Self::At(at) => at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, ms),
        }
    }
}

/// A span before the present, or a moment as RFC 3339 has it; a date alone is its beginning.
fn moment(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if let Ok(span) = values::duration(text) {
        return Ok(Moment::Ago(span));
    }
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let (utc, later, offset) = in_utc(&whole);
    let at = humantime::parse_rfc3339_weak(&utc).ok();
    let at = at.and_then(|at| if later { at.checked_add(offset) } else { at.checked_sub(offset) });
    at.map(Moment::At).ok_or_else(|| {
        "write how long ago (90s, 2h, 7days), a date such as 2026-11-30, or a date and a time such \
         as 2026-11-30T08:00:00Z or 2026-11-30T08:00:00+01:00"
            .to_owned()
    })
}

/// A time with an offset from UTC: the time without it, whether UTC is later, and by how much.
fn in_utc(text: &str) -> (String, bool, Duration) {
    let plain = (text.to_owned(), true, Duration::ZERO);
    let Some((time, offset)) = text.len().checked_sub(6).and_then(|at| text.split_at_checked(at))
    else {
        return plain;
    };
    let number = |range| offset.get(range).and_then(|digits: &str| digits.parse::<u64>().ok());
    let is_offset = time.contains([':']) && offset.as_bytes().get(3) == Some(&b':');
    match (offset.as_bytes().first(), number(1..3), number(4..6)) {
        (Some(sign @ (b'+' | b'-')), Some(hours), Some(minutes)) if is_offset => {
            let offset = Duration::from_secs(hours * 3600 + minutes * 60);
            (format!("{time}Z"), *sign == b'-', offset)
        }
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_span_ago_or_a_time_with_its_offset() {
        let now = 1_800_000_000_000;
        let ms = |text: &str| moment(text).map(|moment| moment.ms(now));
        assert_eq!(ms("2h"), Ok(now - 7_200_000));
        assert_eq!(ms("1:00:00"), Ok(now - 3_600_000));
        let eight = 1_796_025_600_000;
        assert_eq!(ms("2026-11-30T08:00:00Z"), Ok(eight));
        assert_eq!(ms("2026-11-30 08:00:00"), Ok(eight));
        assert_eq!(ms("2026-11-30T09:30:00+01:30"), Ok(eight));
        assert_eq!(ms("2026-11-30T07:00:00.000-01:00"), Ok(eight));
        assert_eq!(ms("2026-11-30"), Ok(eight - 8 * 3_600_000));
        for wrong in ["yesterday", "2026-13-01", "30", "2026-11-30T08:00:00+0100", "é-11-30T+01:00"]
        {
            assert!(moment(wrong).unwrap_err().contains("2h"), "{wrong}");
        }
    }
}
