//! The recipient of a submission: an endpoint, or a topic with the terms on which its tasks are
//! placed. Pure, but for the names that an error lists.

use super::Api;
use super::error::ApiError;
use super::named_endpoint::unknown_endpoint;
use super::types::SubmitRequest;
use crate::model::{Destination, TopicOrder};
use clutch_common::task::topic::{DEFAULT_START_WITHIN, MAX_VERSION, check_topic};

/// Where the tasks of a request go.
pub(super) fn of<T>(request: &SubmitRequest<T>) -> Result<Destination, ApiError> {
    let refused = |words: &str| Err(ApiError::bad_request(words));
    let topic = match (&request.endpoint, &request.topic) {
        (Some(_), Some(_)) => {
            return refused(
                "tasks go to an endpoint or to a topic: pass one of endpoint and topic",
            );
        }
        (None, None) => return refused("say where the tasks go: pass endpoint or topic"),
        (Some(endpoint), None) => {
            let terms = [request.start_within_ms, request.place_within_ms];
            if request.function_version.is_some() || terms.iter().any(Option::is_some) {
                return refused(
                    "function_version, start_within_ms and place_within_ms are about a topic: pass \
                     topic instead of endpoint",
                );
            }
            return Ok(Destination::Endpoint(endpoint.clone()));
        }
        (None, Some(topic)) => topic.clone(),
    };
    check_topic(&topic).map_err(|invalid| ApiError::bad_request(invalid.to_string()))?;
    if request.confirmed {
        return refused(
            "the broker gets tasks of a topic when they are placed: leave out confirmed",
        );
    }
    let version = request.function_version.clone();
    if version.as_ref().is_some_and(|name| !(1..=MAX_VERSION).contains(&name.chars().count())) {
        return Err(ApiError::bad_request(format!(
            "function_version must have from 1 to {MAX_VERSION} characters"
        )));
    }
    if request.start_within_ms == Some(0) || request.place_within_ms == Some(0) {
        return refused("start_within_ms and place_within_ms must be more than 0");
    }
    let default = u64::try_from(DEFAULT_START_WITHIN.as_millis()).unwrap_or(u64::MAX);
    Ok(Destination::Topic(TopicOrder {
        topic,
        version,
        start_within_ms: request.start_within_ms.unwrap_or(default),
        place_within_ms: request.place_within_ms,
    }))
}

/// The error for a recipient that is not known.
pub(super) async fn unknown(api: &Api, to: &Destination) -> ApiError {
    match to {
        Destination::Endpoint(name) => unknown_endpoint(api, name).await,
        Destination::Topic(order) => {
            ApiError::not_found(format!("the topic '{}' is not recorded", order.topic))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(recipient: Value) -> Result<Destination, String> {
        let mut request = json!({ "key": "k", "total": 1, "tasks": [{ "argv": ["true"] }] });
        request.as_object_mut().unwrap().extend(recipient.as_object().unwrap().clone());
        let request: SubmitRequest = serde_json::from_value(request).unwrap();
        of(&request).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn tasks_go_to_an_endpoint_or_to_a_topic_with_its_terms() {
        let endpoint = read(json!({ "endpoint": "lab" }));
        assert_eq!(endpoint, Ok(Destination::Endpoint("lab".to_owned())));
        let order = TopicOrder {
            topic: "cloud".to_owned(),
            version: None,
            start_within_ms: 60_000,
            place_within_ms: None,
        };
        assert_eq!(read(json!({ "topic": "cloud" })), Ok(Destination::Topic(order.clone())));
        let terms = json!({ "topic": "cloud", "function_version": "2", "start_within_ms": 9,
                            "place_within_ms": 8 });
        let (version, place_within_ms) = (Some("2".to_owned()), Some(8));
        let order = TopicOrder { version, start_within_ms: 9, place_within_ms, ..order };
        assert_eq!(read(terms), Ok(Destination::Topic(order)));
    }

    #[test]
    fn a_recipient_that_cannot_be_meant_is_refused_in_words() {
        for (recipient, words) in [
            (json!({}), "say where the tasks go"),
            (json!({ "endpoint": "lab", "topic": "cloud" }), "an endpoint or to a topic"),
            (json!({ "endpoint": "lab", "start_within_ms": 1 }), "are about a topic"),
            (json!({ "endpoint": "lab", "function_version": "1" }), "are about a topic"),
            (json!({ "topic": "a b" }), "cannot be the name of a topic"),
            (json!({ "topic": "cloud", "confirmed": true }), "when they are placed"),
            (json!({ "topic": "cloud", "start_within_ms": 0 }), "more than 0"),
            (json!({ "topic": "cloud", "function_version": "" }), "from 1 to 64"),
        ] {
            let error = read(recipient.clone()).unwrap_err();
            assert!(error.contains(words), "{recipient}: {error}");
        }
    }
}
