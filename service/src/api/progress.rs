//! How far tasks are and how fast they go on: of a submission, of an endpoint, or of all.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::Parameters;
use super::named_endpoint::known_endpoint;
use super::observed::count_endpoint;
use super::problem::{AnyRequest, Naming};
use super::query::known_submission;
use super::wait::{self, Target};
use crate::model::ProgressRate;
use axum::extract::State;
use clutch_common::system::clock::now_ms;
use serde::Deserialize;
use utoipa::IntoParams;

/// The tasks: those of a submission, of an endpoint, or all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ProgressQuery {
    /// The tasks of a submission.
    key: Option<String>,
    /// The tasks for an endpoint, by its name or id; not with `key`.
    endpoint: Option<String>,
}

/// Tells how far tasks are and how fast they go on: of a submission, of an endpoint, or of all.
#[utoipa::path(
    get,
    path = "/v1/progress",
    tag = "tasks",
    params(ProgressQuery),
    responses(
        (status = 200, description = "How far the tasks are", body = ProgressRate),
        AnyRequest,
        Naming,
    ),
)]
pub(super) async fn progress(
    State(api): State<Api>,
    Parameters(query): Parameters<ProgressQuery>,
) -> Result<Json<ProgressRate>, ApiError> {
    let (progress, moments) = match (&query.key, &query.endpoint) {
        (Some(key), None) => {
            let submission = known_submission(&api, key).await?;
            let progress = wait::progress(&api, &Target::Submission(submission)).await?;
            let moments = api.store.submission_moments(submission, progress.done).await?;
            (progress, moments)
        }
        (None, endpoint) => {
            let endpoint = match endpoint {
                Some(endpoint) => Some(known_endpoint(&api, endpoint).await?.id),
                None => None,
            };
            let mut progress = api.store.progress(endpoint).await?;
            count_endpoint(&api, endpoint, &mut progress);
            (progress, api.store.moments(endpoint).await?)
        }
        (Some(_), Some(_)) => return Err(ApiError::bad_request("pass either key or endpoint")),
    };
    Ok(Json(ProgressRate::of(progress, &moments.results_ms, moments.since_ms, now_ms())))
}
