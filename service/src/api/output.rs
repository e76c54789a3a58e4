//! The output of one task: of a running task as its endpoint publishes it while it is
//! followed, by long poll; of a finished one as it is recorded.

use super::Api;
use super::error::{ApiError, Json};
use super::extract::{Named, Parameters};
use super::problem::{AnyRequest, AskingBroker, Kind, Naming};
use super::query::known_task;
use super::types::{OutputAnswer, OutputPiece};
use crate::model::{Recorded, TaskDetail, TaskState};
use crate::overlay::{NewOutput, Piece, ReadUpTo, recorded};
use axum::extract::State;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::wire::{Phase, StreamName};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::IntoParams;

/// The longest a request is held.
const LONGEST: Duration = Duration::from_secs(30);
/// The pause between two looks at the records.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last output of a task may come after its result.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// How far the client has read a stream, and how long to wait for more.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OutputQuery {
    /// The stream; `stdout` unless given.
    #[serde(default = "stdout")]
    stream: StreamName,
    /// The `attempt` of the answer before; 0 at first.
    #[serde(default)]
    attempt: u32,
    /// The `run` of the answer before; 0 at first.
    #[serde(default)]
    run: u64,
    /// The position behind the last byte that was read.
    #[serde(default)]
    from: u64,
    /// How long to wait for more, in milliseconds; at most 30 s.
    #[serde(default)]
    timeout_ms: u64,
}

fn stdout() -> StreamName {
    StreamName::Stdout
}

impl OutputQuery {
    fn read(&self) -> ReadUpTo {
        let Self { stream, attempt, run, from, .. } = *self;
        ReadUpTo { stream, attempt, run, from }
    }
}

/// Reads the output of a task, also while it runs.
///
/// A long poll: answers when there are bytes from the position on, when the output begins anew,
/// or when the task has its outcome.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/output",
    tag = "tasks",
    params(("id" = TaskId, Path, description = "The task"), OutputQuery),
    responses(
        (status = 200, description = "The output from there on, as far as it is known", body = OutputAnswer),
        AnyRequest,
        Naming,
        AskingBroker,
    ),
)]
pub(super) async fn output(
    State(api): State<Api>,
    Named(id): Named,
    Parameters(query): Parameters<OutputQuery>,
) -> Result<Json<OutputAnswer>, ApiError> {
    let until = Instant::now() + Duration::from_millis(query.timeout_ms).min(LONGEST);
    let mut task = known_task(&api, &id).await?;
    let (mut changes, mut commits) = (api.told.overlay.output_changes(), api.commits.clone());
    loop {
        if let Some(result) = decisive(&task) {
            return Ok(Json(last(&api, &task, result, query.read()).await));
        }
        let attempt = attempt(&api, task.summary.id).await?;
        if !api.told.overlay.follow(attempt, query.read()) {
            return Err(ApiError::new(
                Kind::TooMany,
                "the output of too many tasks is followed at once: end one, or try again later",
            ));
        }
        let new = api.told.overlay.output(attempt.task_id, query.read());
        let begins_anew =
            query.attempt != 0 && (query.attempt, query.run) != (attempt.attempt, new.run);
        if !new.pieces.is_empty() || begins_anew || Instant::now() >= until {
            return Ok(Json(answer(&api, &task, attempt, new)));
        }
        let committed = tokio::select! {
            () = api.stop.cancelled() => {
                return Err(ApiError::stopping());
            }
            () = tokio::time::sleep_until(until) => false,
            _ = changes.changed() => false,
            _ = commits.changed() => true,
        };
        if committed {
            // On a busy service there are many commits, and few of them of this task.
            tokio::time::sleep(LOOK).await;
        }
        task = known_task(&api, &id).await?;
    }
}

/// The result that decided the task's outcome.
fn decisive(task: &TaskDetail) -> Option<&Recorded> {
    task.results.iter().find(|one| Some(one.result.attempt) == task.summary.attempt)
}

async fn attempt(api: &Api, task_id: TaskId) -> Result<Attempt, ApiError> {
    let places = api.store.task_places(vec![task_id]).await?;
    let attempt = places.get(&task_id).map_or(1, |place| place.attempt);
    Ok(Attempt { task_id, attempt })
}

/// The answer to a client of a task without an outcome.
fn answer(api: &Api, task: &TaskDetail, attempt: Attempt, new: NewOutput) -> OutputAnswer {
    let live = api.told.overlay.task(task.summary.id);
    let live = live.filter(|live| live.attempt == attempt.attempt);
    let state = match live.map(|live| live.phase) {
        Some(Phase::Running) => TaskState::Running,
        Some(Phase::Accepted) => TaskState::Accepted,
        None => task.summary.state,
    };
    OutputAnswer {
        state,
        attempt: attempt.attempt,
        run: new.run,
        engaged: api.told.overlay.unlinked_since_ms().is_none(),
        pieces: pieces(new.pieces),
        exit_code: None,
        signal: None,
        ended: false,
    }
}

/// The rest of the output of a task with an outcome: what was published, and then what is
/// recorded.
async fn last(api: &Api, task: &TaskDetail, result: &Recorded, read: ReadUpTo) -> OutputAnswer {
    let (result, overlay) = (&result.result, &api.told.overlay);
    let kept = match read.stream {
        StreamName::Stdout => (&*result.stdout.0, result.stdout_omitted),
        StreamName::Stderr => (&*result.stderr.0, result.stderr_omitted),
    };
    let follows = read.attempt == result.attempt;
    let (patience, mut changes) = (Instant::now() + LAST_OUTPUT, overlay.output_changes());
    let mut new = overlay.output(task.summary.id, read);
    while follows && is_missing(kept, &new.pieces, read.from) && Instant::now() < patience {
        tokio::select! {
            () = tokio::time::sleep_until(patience) => (),
            () = api.stop.cancelled() => break,
            _ = changes.changed() => (),
        }
        new = overlay.output(task.summary.id, read);
    }
    // Where the task is not followed any more, its last run is the one that was read.
    let run = if new.run == 0 { read.run } else { new.run };
    let from = if follows && run == read.run { read.from } else { 0 };
    let published = if follows { new.pieces } else { Vec::new() };
    OutputAnswer {
        state: task.summary.state,
        attempt: result.attempt,
        run,
        engaged: overlay.unlinked_since_ms().is_none(),
        pieces: pieces(completed(kept, published, from)),
        exit_code: result.exit_code,
        signal: result.signal,
        ended: true,
    }
}

/// The end of a stream, in bytes.
fn length((kept, omitted): (&[u8], u64)) -> u64 {
    recorded(kept, omitted, 0).last().map_or(0, Piece::end)
}

/// Whether bytes are not recorded that may still be published.
fn is_missing(stream: (&[u8], u64), published: &[Piece], read: u64) -> bool {
    let end = published.last().map_or(read, Piece::end);
    stream.1 > 0 && end < length(stream)
}

/// The output from a position on: all that is recorded, or where that left bytes out, what
/// was published and then the recorded end.
fn completed((kept, omitted): (&[u8], u64), published: Vec<Piece>, read: u64) -> Vec<Piece> {
    if omitted == 0 || published.is_empty() {
        return recorded(kept, omitted, read);
    }
    let end = published.last().map_or(read, Piece::end);
    published.into_iter().chain(recorded(kept, omitted, end)).collect()
}

fn pieces(pieces: Vec<Piece>) -> Vec<OutputPiece> {
    let piece = |Piece { from, bytes }| OutputPiece { from, bytes: bytes.into() };
    pieces.into_iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(from: u64, text: &str) -> Piece {
        Piece { from, bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn the_end_of_an_output_is_what_was_published_and_then_what_is_recorded() {
        let whole = (&b"abcdef"[..], 0);
        assert_eq!(completed(whole, vec![piece(2, "cd")], 2), [piece(2, "cdef")]);
        assert_eq!(completed(whole, vec![], 6), []);
        assert!(!is_missing(whole, &[], 0));
        let cut = (&b"abc\n[... 94 bytes omitted ...]\nxyz"[..], 94);
        assert_eq!(length(cut), 100);
        assert_eq!(completed(cut, vec![piece(50, "..")], 50), [piece(50, ".."), piece(97, "xyz")]);
        assert!(is_missing(cut, &[piece(50, "..")], 50));
        let to_the_end = vec![piece(90, "........yz")];
        assert!(!is_missing(cut, &to_the_end, 90));
        assert_eq!(completed(cut, to_the_end.clone(), 90), to_the_end);
        assert_eq!(completed(cut, vec![], 0), [piece(0, "abc"), piece(97, "xyz")]);
    }
}
