//! The OpenAPI document of the API: what frames the routes' own parts, and the kept file.
//!
//! Each route is registered with its part, so that none is without one. The file
//! `service/openapi.json` is made from all parts by `cargo xtask openapi`; it is what is served,
//! and a test fails while it is not what the routes say.

#[cfg(test)]
mod refine;

use super::types::Problem;
use crate::model::{FeedEvent, FeedKind, TaskSpec};
use axum::http::header;
use axum::response::IntoResponse;
use clutch_common::wire::StreamName;
use utoipa::OpenApi;

/// The document as it is kept.
const KEPT: &str = include_str!("../../openapi.json");

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Clutch service",
        description = "The API of `clutch-service serve`, on the Unix socket `clutch.sock` in its \
                       state folder. Paths begin with the version of the API. Members may be \
                       added to answers; a request with an unknown member is refused. Times end \
                       in `_ms` and are milliseconds since the Unix epoch, or lengths of time. \
                       Errors are problem details (RFC 9457).",
    ),
    tags(
        (name = "tasks", description = "Tasks and their results"),
        (name = "schedules", description = "Schedules and their occurrences"),
        (name = "endpoints", description = "Endpoints and their instances"),
        (name = "topics", description = "Topics and their members"),
        (name = "service", description = "The service itself"),
    ),
    components(schemas(FeedEvent, FeedKind, Problem, StreamName, TaskSpec)),
)]
struct Frame;

/// The document without any route.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// Reads this document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "service",
    responses((status = 200, description = "The document", body = serde_json::Value)),
)]
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], KEPT)
}

#[cfg(test)]
mod tests {
    use super::super::routes;
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The document that the routes make.
    fn made() -> Value {
        let (_, document) = routes().split_for_parts();
        super::refine::refined(serde_json::to_value(document).unwrap())
    }

    #[test]
    fn the_kept_document_is_what_the_routes_say() {
        let text = format!("{:#}\n", made());
        if std::env::var_os("CLUTCH_KEEP_OPENAPI").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
            std::fs::write(path, text).unwrap();
            return;
        }
        assert!(text == KEPT, "service/openapi.json is stale: run `cargo xtask openapi`");
    }

    /// The paths of the routes: its text for debugging has them.
    fn registered() -> BTreeSet<String> {
        let (router, _) = routes().split_for_parts();
        let shown = format!("{router:?}");
        let paths = shown.split('"').filter(|text| text.starts_with("/v1/"));
        paths.map(str::to_owned).collect()
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document = made();
        let described = document["paths"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(registered(), described);
        assert!(registered().len() >= 18);
    }

    #[test]
    fn every_operation_is_described_and_has_its_errors() {
        let document = made();
        let paths = document["paths"].as_object().unwrap();
        let mut ids = BTreeSet::new();
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().unwrap() {
                let name = format!("{method} {path}");
                assert!(
                    operation["summary"].as_str().is_some_and(|text| !text.is_empty()),
                    "{name}"
                );
                assert!(ids.insert(operation["operationId"].to_string()), "{name}");
                assert!(operation["tags"].is_array(), "{name}");
                let responses = operation["responses"].as_object().unwrap();
                let answer = &responses["200"]["content"];
                assert!(answer.is_object(), "{name}");
                for (status, response) in responses.iter().filter(|(status, _)| *status != "200") {
                    let problem = &response["content"]["application/problem+json"];
                    assert!(problem.is_object(), "{name} {status}");
                }
            }
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|member| references(member, found));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
            }
        }
        let document = made();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let target = document.pointer(reference.trim_start_matches('#'));
            assert!(target.is_some(), "{reference}");
        }
    }
}
