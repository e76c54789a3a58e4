//! The routes as they answer, beside the document: paths, methods, and the shape of errors.

use super::{Service, request, service};
use crate::api::types::Problem;
use crate::store::conformance::spec;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The status, the headers in lower case, and the body of an answer, where that is JSON.
async fn ask(service: &Service, method: &str, target: &str, body: &str) -> (u16, String, Value) {
    let mut client = UnixStream::connect(&service.socket).await.unwrap();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close");
    let sent = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    client.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or_default())
}

/// The status and the code of an error.
async fn problem(service: &Service, method: &str, target: &str, body: &str) -> (u16, String) {
    let (status, head, body) = ask(service, method, target, body).await;
    assert!(head.contains("\r\ncontent-type: application/problem+json\r\n"), "{head}");
    let problem: Problem = serde_json::from_value(body).unwrap();
    assert_eq!(problem.status, status);
    assert!(!problem.detail.is_empty() && !problem.title.is_empty());
    (status, problem.code)
}

#[tokio::test]
async fn a_path_takes_the_methods_that_the_document_has_and_no_others() {
    let service = service(false).await;
    let (_, _, document) = ask(&service, "GET", "/v1/openapi.json", "").await;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let target = path.replace("{name}", "none").replace("{id}", "none");
        // Events come until they end.
        let target = if path == "/v1/events" { format!("{target}?for_ms=1") } else { target };
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let (status, head, body) = ask(&service, method, &target, "{").await;
            let name = format!("{method} {path}: {status}");
            if operations[method.to_lowercase()].is_object() {
                assert!(status != 405, "{name}");
                let nothing = format!("there is nothing at {path}");
                assert!(body["detail"] != nothing.as_str(), "{name}");
                let described = &operations[method.to_lowercase()]["responses"];
                assert!(described[status.to_string()].is_object(), "{name} is not described");
            } else {
                assert_eq!(body["code"], "method_not_allowed", "{name}");
                assert!(head.contains("\r\nallow: "), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let service = service(false).await;
    let long = "x".repeat(1024 * 1024 + 1);
    for (method, target, body, status, code) in [
        ("GET", "/v1/nothing", "", 404, "not_found"),
        ("GET", "/", "", 404, "not_found"),
        ("DELETE", "/v1/tasks", "", 405, "method_not_allowed"),
        ("GET", "/v1/tasks?limit=many", "", 400, "bad_request"),
        ("GET", "/v1/tasks?limit=1&limit=2", "", 400, "bad_request"),
        ("GET", "/v1/tasks/%ff", "", 400, "bad_request"),
        ("GET", "/v1/endpoints/%ff", "", 400, "bad_request"),
        ("GET", "/v1/endpoints/none", "", 404, "not_found"),
        ("POST", "/v1/tasks", "{", 400, "bad_request"),
        ("POST", "/v1/wait", "\"\u{e4}", 400, "bad_request"),
        ("POST", "/v1/wait", long.as_str(), 413, "body_too_large"),
        ("POST", "/v1/forget", long.as_str(), 413, "body_too_large"),
        ("POST", "/v1/endpoints/lab/drain", long.as_str(), 413, "body_too_large"),
        ("POST", "/v1/endpoints/lab/remove", "", 503, "disengaged"),
    ] {
        let found = problem(&service, method, target, body).await;
        assert_eq!(found, (status, code.to_owned()), "{method} {target}");
    }
    service.submit(&request("k", vec![spec(&["a"])])).await.unwrap();
    let other = json!({"endpoint": "lab", "key": "k", "total": 1, "tasks": [{"argv": ["b"]}]});
    let found = problem(&service, "POST", "/v1/tasks", &other.to_string()).await;
    assert_eq!(found, (409, "conflict".to_owned()));
}
