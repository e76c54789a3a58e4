//! The kinds of the API's errors: the word, the status and the title of each, and which of them
//! each kind of request can meet, for the document. Pure.

use super::types::Problem;
use axum::http::StatusCode;
use std::collections::BTreeMap;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa::{IntoResponses, ToSchema};

/// The media type of an error: problem details, as RFC 9457 describes them.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// A kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request cannot be understood, or its values cannot be acted upon.
    BadRequest,
    /// The request names something that does not exist.
    NotFound,
    /// There is no such method at the path.
    MethodNotAllowed,
    /// The body stood still.
    TooSlow,
    /// The request contradicts what is recorded.
    Conflict,
    /// The body is longer than the API takes.
    BodyTooLarge,
    /// The service failed.
    Internal,
    /// The broker has no queue for the endpoint.
    Returned,
    /// The queue is full.
    Refused,
    /// The broker takes no message as large.
    TooLarge,
    /// The broker did not confirm.
    Unconfirmed,
    /// There is no link to the broker.
    Disengaged,
    /// The service is stopping.
    Stopping,
    /// Too much of this is going on at once.
    TooMany,
}

impl Kind {
    /// Every kind, by status.
    const ALL: [Self; 14] = [
        Self::BadRequest,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooSlow,
        Self::Conflict,
        Self::BodyTooLarge,
        Self::Internal,
        Self::Returned,
        Self::Refused,
        Self::TooLarge,
        Self::Unconfirmed,
        Self::Disengaged,
        Self::Stopping,
        Self::TooMany,
    ];

    /// The word for programs, the status, and the title for people.
    fn facts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::BadRequest => {
                let title = "The request cannot be understood or acted upon";
                ("bad_request", StatusCode::BAD_REQUEST, title)
            }
            Self::NotFound => {
                ("not_found", StatusCode::NOT_FOUND, "The request names something unknown")
            }
            Self::MethodNotAllowed => {
                let title = "The path does not take this method";
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, title)
            }
            Self::TooSlow => {
                ("too_slow", StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive")
            }
            Self::Conflict => {
                ("conflict", StatusCode::CONFLICT, "The request contradicts what is there")
            }
            Self::BodyTooLarge => {
                ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too long")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "The service failed"),
            Self::Returned => {
                ("returned", StatusCode::BAD_GATEWAY, "The broker has no queue for the endpoint")
            }
            Self::Refused => ("refused", StatusCode::BAD_GATEWAY, "The broker refused tasks"),
            Self::TooLarge => {
                ("too_large", StatusCode::BAD_GATEWAY, "The broker takes no message as large")
            }
            Self::Unconfirmed => {
                ("unconfirmed", StatusCode::BAD_GATEWAY, "The broker did not confirm tasks")
            }
            Self::Disengaged => {
                let title = "The service has no link to the broker";
                ("disengaged", StatusCode::SERVICE_UNAVAILABLE, title)
            }
            Self::Stopping => {
                ("stopping", StatusCode::SERVICE_UNAVAILABLE, "The service is stopping")
            }
            Self::TooMany => {
                let title = "Too many requests of this kind are held";
                ("too_many", StatusCode::SERVICE_UNAVAILABLE, title)
            }
        }
    }

    /// The word for programs.
    pub(super) fn code(self) -> &'static str {
        self.facts().0
    }

    /// The status.
    pub(super) fn status(self) -> StatusCode {
        self.facts().1
    }

    /// The problem of this kind with these words.
    pub(super) fn problem(self, detail: String) -> Problem {
        let (code, status, title) = self.facts();
        Problem {
            kind: format!("urn:clutch:problem:{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            code: code.to_owned(),
        }
    }
}

/// The errors that any request can meet.
pub(super) struct AnyRequest;

/// The errors of a request that names something.
pub(super) struct Naming;

/// The errors of a request with a body.
pub(super) struct WithBody;

/// The errors of a request that changes what others may have changed.
pub(super) struct Changing;

/// The errors of a request that the broker has to answer.
pub(super) struct AskingBroker;

/// The errors of a request that publishes tasks.
pub(super) struct Publishing;

/// The responses for these statuses: which words of programs each has.
fn responses(statuses: &[StatusCode]) -> BTreeMap<String, RefOr<Response>> {
    let response = |status: StatusCode| {
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.status() == status);
        let words: Vec<String> =
            kinds.map(|kind| format!("`{}`: {}", kind.code(), kind.facts().2)).collect();
        let content = ContentBuilder::new()
            .schema(Some(RefOr::Ref(Ref::from_schema_name(Problem::name()))))
            .build();
        let response = ResponseBuilder::new()
            .description(format!("{}.", words.join("; ")))
            .content(MEDIA_TYPE, content)
            .build();
        (status.as_u16().to_string(), RefOr::T(response))
    };
    statuses.iter().copied().map(response).collect()
}

macro_rules! responses {
    ($($name:ident: $($status:ident)+;)+) => {$(
        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                responses(&[$(StatusCode::$status),+])
            }
        }
    )+};
}

responses! {
    AnyRequest: BAD_REQUEST INTERNAL_SERVER_ERROR;
    Naming: NOT_FOUND;
    WithBody: REQUEST_TIMEOUT PAYLOAD_TOO_LARGE;
    Changing: CONFLICT;
    AskingBroker: SERVICE_UNAVAILABLE;
    Publishing: BAD_GATEWAY SERVICE_UNAVAILABLE;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_has_a_word_of_its_own_and_an_error_status() {
        let codes: BTreeSet<&str> = Kind::ALL.into_iter().map(Kind::code).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let problem = kind.problem("x".into());
            assert!((400..600).contains(&problem.status), "{problem:?}");
            assert_eq!(problem.kind, format!("urn:clutch:problem:{}", problem.code));
        }
    }
}
