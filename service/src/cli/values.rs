//! Reads the values of arguments, and says how to write those that cannot be read.
//! Pure.

use clutch_common::id::{TaskId, check_endpoint_name};
use clutch_common::link::Terms;
use clutch_common::task::byte_string::ByteString;
use clutch_common::task::json::Json;
use clutch_common::task::topic::check_topic;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

/// How long a silent instance's tasks may be waited for.
const LOST_AFTER: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(30 * 24 * 60 * 60);
/// How long a task may be without a result until its endpoint is asked for it.
const ASK_AFTER: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);

/// A span as people write it, or as batch systems do: `90s`, `1h 30m`, `1:30:00`, `2-00:00:00`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Some(duration) = clock(text) {
        return Ok(duration);
    }
    humantime::parse_duration(text).map_err(|_| {
        let unit = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("; {text} of what? {text}s are seconds, {text}m minutes")
        } else {
            String::new()
        };
        format!("write 90s, 5m, 1h 30m, 2days, or hours:minutes:seconds such as 1:30:00{unit}")
    })
}

/// `[days-]hours:minutes:seconds`. Two numbers alone mean either, so they mean nothing.
fn clock(text: &str) -> Option<Duration> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (days, time) = match text.split_once('-') {
        Some((days, time)) => (number(days)?, time),
        None => (0, text),
    };
    let [hours, minutes, seconds] = time.split(':').map(number).collect::<Vec<_>>()[..] else {
        return None;
    };
    let (minutes, seconds) = (minutes.filter(|m| *m < 60)?, seconds.filter(|s| *s < 60)?);
    let hours = days.checked_mul(24)?.checked_add(hours?)?;
    Some(Duration::from_secs(hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?))
}

pub(super) fn positive(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.as_millis() == 0 {
        return Err("it must be longer than 0".to_owned());
    }
    Ok(duration)
}

/// The first and the longest pause before a task is run again: `1s..1m`, or one for both.
pub(super) fn backoff(text: &str) -> Result<(Duration, Duration), String> {
    let (first, longest) = text.split_once("..").unwrap_or((text, text));
    let pauses = (duration(first)?, duration(longest)?);
    if pauses.0 > pauses.1 {
        return Err("the first pause is longer than the longest: write 1s..1m".to_owned());
    }
    Ok(pauses)
}

pub(super) fn lost_after(text: &str) -> Result<Duration, String> {
    within(text, &LOST_AFTER)
}

pub(super) fn ask_after(text: &str) -> Result<Duration, String> {
    within(text, &ASK_AFTER)
}

pub(super) fn heartbeat(text: &str) -> Result<Duration, String> {
    within(text, &Terms::HEARTBEAT)
}

pub(super) fn blocked_timeout(text: &str) -> Result<Duration, String> {
    within(text, &Terms::BLOCKED_TIMEOUT)
}

fn within(text: &str, bounds: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = duration(text)?;
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let shown = |bound: &Duration| humantime::format_duration(*bound).to_string();
    Err(format!("it must be from {} to {}", shown(bounds.start()), shown(bounds.end())))
}

pub(super) fn endpoint_name(text: &str) -> Result<String, String> {
    check_endpoint_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn topic_name(text: &str) -> Result<String, String> {
    check_topic(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn json_kwarg(text: &str) -> Result<(String, Json), String> {
    let (name, value) = key_value(text)?;
    Ok((name, value.parse()?))
}

pub(super) fn task_id(text: &str) -> Result<TaskId, String> {
    text.parse().map_err(|_| format!("'{text}' is not a task id"))
}

/// A variable of the environment; its value may be any bytes.
pub(super) fn variable(text: OsString) -> Result<(String, ByteString), String> {
    let bytes = text.into_vec();
    let expected = || "expected NAME=VALUE".to_owned();
    let end = bytes.iter().position(|byte| *byte == b'=').filter(|end| *end > 0);
    let (name, value) = bytes.split_at(end.ok_or_else(expected)?);
    let name = std::str::from_utf8(name).map_err(|_| "the name is not UTF-8".to_owned())?;
    Ok((name.to_owned(), value[1..].to_vec().into()))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_may_be_written_as_batch_systems_do() {
        for (text, seconds) in [
            ("90s", 90),
            ("1h 30m", 5400),
            ("1:00:00", 3600),
            ("100:01:02", 360_062),
            ("2-00:00:01", 172_801),
            (" 5m ", 300),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "60", "1:30", "1:60:00", "1:00:60", "-1:00:00", "1:0:0:0", "::", "soon", "", "1-2",
            "٣:00:00",
        ] {
            assert!(duration(text).unwrap_err().contains("1:30:00"), "{text}");
        }
        let huge = format!("{}:00:00", u64::MAX);
        assert!(duration(&huge).is_err());
        assert!(duration("60").unwrap_err().contains("60s"));
    }

    #[test]
    fn a_variable_may_hold_any_bytes() {
        let read = |bytes: &[u8]| variable(OsString::from_vec(bytes.to_vec()));
        assert_eq!(read(b"A=b=\xff").unwrap(), ("A".into(), b"b=\xff".to_vec().into()));
        assert_eq!(read(b"A=").unwrap(), ("A".into(), "".into()));
        for bad in [&b"A"[..], b"=b", b"", b"\xff=b"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_told_with_the_bounds() {
        assert_eq!(heartbeat("65535s"), Ok(Duration::from_secs(65_535)));
        for wrong in ["0s", "500ms", "99999s"] {
            assert!(heartbeat(wrong).unwrap_err().contains("18h 12m 15s"), "{wrong}");
        }
        assert!(blocked_timeout("2days").unwrap_err().contains("from 1s to 1day"));
        assert!(lost_after("9s").unwrap_err().contains("from 10s to 30days"));
        assert!(positive("0s").is_err());
    }
}
