//! Reads the filter in `CLUTCH_LOG`. Pure.

use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The filter for `CLUTCH_LOG`, over that which is in force without it; and, where the
/// variable cannot be used, why: the filter is the default one then.
pub(super) fn chosen(default_level: &str, asked: Option<&str>) -> (EnvFilter, Option<String>) {
    let default = format!("{default_level},lapin=off");
    let Some(asked) = asked.map(str::trim).filter(|asked| !asked.is_empty()) else {
        return (EnvFilter::new(default), None);
    };
    let refused = |why: String| {
        let told = format!(
            "CLUTCH_LOG={asked} is not used: {why}; it takes a level (off, error, warn, info, \
             debug or trace), and levels of modules such as clutch_common=debug, with commas"
        );
        (EnvFilter::new(&default), Some(told))
    };
    match asked.split(',').map(directive).collect::<Result<Vec<_>, _>>() {
        Err(why) => refused(why),
        // What comes later wins: what is asked for says what it changes, and no more.
        Ok(directives) => match EnvFilter::try_new(format!("{default},{}", directives.join(","))) {
            Ok(filter) => (filter, None),
            Err(error) => refused(error.to_string()),
        },
    }
}

/// One part of the variable as the filter reads it. By itself the filter takes a word
/// that is no level for the name of a module, and shows nothing but that module.
fn directive(text: &str) -> Result<String, String> {
    let text = text.trim();
    let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    let level = |word: &str| {
        let word = word.trim().to_ascii_lowercase();
        let word = if word == "warning" { "warn" } else { &word };
        LEVELS.iter().find(|level| **level == word).copied()
    };
    if let Some(level) = level(text) {
        return Ok(level.to_owned());
    }
    match text.rsplit_once('=') {
        Some((module, _)) if !module.bytes().all(of_a_name) => {
            Err(format!("'{module}' is not the name of a module"))
        }
        Some((module, word)) => level(word)
            .map(|level| format!("{module}={level}"))
            .ok_or_else(|| format!("'{word}' is not a level")),
        None if text.starts_with("clutch_") && text.bytes().all(of_a_name) => Ok(text.to_owned()),
        None => Err(format!("'{text}' is not a level")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(asked: &str) -> (String, bool) {
        let (filter, told) = chosen("info", Some(asked));
        let mut parts: Vec<String> = filter.to_string().split(',').map(str::to_owned).collect();
        parts.sort();
        (parts.join(","), told.is_some())
    }

    #[test]
    fn levels_are_understood_and_what_is_not_named_keeps_its_own() {
        assert_eq!(shown("warning"), ("lapin=off,warn".to_owned(), false));
        assert_eq!(shown(" Debug "), ("debug,lapin=off".to_owned(), false));
        assert_eq!(shown(""), ("info,lapin=off".to_owned(), false));
        assert_eq!(shown("error,lapin=warning"), ("error,lapin=warn".to_owned(), false));
        let module = "clutch_common=debug,info,lapin=off".to_owned();
        assert_eq!(shown("clutch_common=debug"), (module, false));
    }

    #[test]
    fn what_is_no_filter_is_told_and_silences_nothing() {
        for wrong in ["verbose", "info,loud", "clutch_common=loud", "warn;lapin=debug", "5 stars"] {
            assert_eq!(shown(wrong), ("info,lapin=off".to_owned(), true), "{wrong}");
        }
    }
}
