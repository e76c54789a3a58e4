//! The recipient of the tasks of `submit`: an endpoint, or a topic with the terms on which they are
//! placed. Pure.

use crate::api::types::SubmitRequest;
use crate::cli::SubmitArgs;
use crate::cli::topic::ToTopicArgs;
use crate::failure::usage;
use std::time::Duration;

/// Where tasks go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recipient {
    endpoint: Option<String>,
    topic: Option<String>,
    function_version: Option<String>,
    start_within_ms: Option<u64>,
    place_within_ms: Option<u64>,
}

impl Recipient {
    /// An endpoint.
    pub(crate) fn endpoint(name: &str) -> Self {
        Self { endpoint: Some(name.to_owned()), ..Self::default() }
    }

    /// A request without tasks and options.
    pub(super) fn request<T>(&self, key: String, total: u64, first: u64) -> SubmitRequest<T> {
        let Self { endpoint, topic, function_version, start_within_ms, place_within_ms } =
            self.clone();
        SubmitRequest {
            endpoint,
            topic,
            function_version,
            start_within_ms,
            place_within_ms,
            key,
            total,
            first,
            tasks: Vec::new(),
            retry: None,
            due: None,
            wait_ms: 0,
            confirmed: false,
        }
    }
}

/// The recipient that the arguments name.
///
/// # Errors
/// When they name none or two, in words.
pub(super) fn of(args: &SubmitArgs) -> anyhow::Result<Recipient> {
    let ToTopicArgs { topic, function_version, start_within, place_within } = &args.to;
    match (&args.endpoint, topic) {
        (Some(endpoint), Some(topic)) => {
            return Err(usage(format!(
                "tasks go to an endpoint or to a topic: leave out '{endpoint}' or --topic {topic}; \
                 a program and its arguments stand after --"
            )));
        }
        (None, None) => {
            return Err(usage("say where the tasks go: name an endpoint, or pass --topic TOPIC"));
        }
        _ => (),
    }
    if topic.is_some() && args.confirmed {
        return Err(usage(
            "--confirmed is about an endpoint: the broker gets tasks of a topic when they are placed",
        ));
    }
    let millis = |span: &Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Ok(Recipient {
        endpoint: args.endpoint.clone(),
        topic: topic.clone(),
        function_version: function_version.clone(),
        start_within_ms: start_within.as_ref().map(millis),
        place_within_ms: place_within.as_ref().map(millis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn read(line: &[&str]) -> Result<Recipient, String> {
        let line = [&["c", "submit"], line].concat();
        let Command::Submit(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!("another command than submit");
        };
        of(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn tasks_go_to_the_endpoint_or_the_topic_that_is_named() {
        assert_eq!(read(&["lab", "--", "true"]), Ok(Recipient::endpoint("lab")));
        let cloud = Recipient { topic: Some("cloud".to_owned()), ..Recipient::default() };
        assert_eq!(read(&["--topic", "cloud", "--", "lab"]), Ok(cloud.clone()));
        let terms = ["--function-version", "2", "--start-within", "5s", "--place-within", "1m"];
        let call = [&["--topic", "cloud", "--call", "m.f"][..], &terms].concat();
        let (start_within_ms, place_within_ms) = (Some(5000), Some(60_000));
        let function_version = Some("2".to_owned());
        let cloud = Recipient { function_version, start_within_ms, place_within_ms, ..cloud };
        assert_eq!(read(&call), Ok(cloud));
    }

    #[test]
    fn none_and_two_are_refused_in_words() {
        let words = read(&["lab", "--topic", "cloud", "--", "true"]).unwrap_err();
        assert!(words.contains("leave out 'lab' or --topic cloud"), "{words}");
        let words = read(&["--call", "m.f"]).unwrap_err();
        assert!(words.contains("--topic TOPIC"), "{words}");
        let words = read(&["--topic", "cloud", "--confirmed", "--", "true"]).unwrap_err();
        assert!(words.contains("when they are placed"), "{words}");
        for line in [
            &["c", "submit", "lab", "--start-within", "5s", "--", "true"][..],
            &["c", "submit", "--topic", "cloud", "--function-version", "2", "--", "true"],
            &["c", "submit", "--topic", "a b", "--", "true"],
            &["c", "submit", "--topic", "cloud", "--place-within", "0s", "--", "true"],
            &["c", "submit", "--topic", "cloud"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
