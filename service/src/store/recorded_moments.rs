//! Reads how fast tasks end: the moments at which the newest results were recorded. Touches the
//! database only.

use super::engine::{Db, values};
use super::stored_state::StoredState;
use super::{Result, Store};
use crate::model::Progress;
use clutch_common::id::EndpointId;

/// How many results the rate is taken from.
const RESULTS: u64 = 1000;
/// How many of the newest are looked through for those of one endpoint.
const LOOKED_THROUGH: u64 = 20_000;

/// The moments of the newest results, and when the first task was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordedMoments {
    /// In milliseconds since the Unix epoch, in no order.
    pub(crate) results_ms: Vec<u64>,
    /// When the submission was recorded, if it is one.
    pub(crate) since_ms: Option<u64>,
}

impl Store {
    /// The moments of a submission's results: of those about as far in it as `done` tasks are, as
    /// tasks are run in its order.
    pub(crate) async fn submission_moments(
        &self,
        submission: i64,
        done: u64,
    ) -> Result<RecordedMoments> {
        self.read("reading when results came", move |db| {
            let find = "SELECT created_at_ms FROM submissions WHERE id = ?";
            let since_ms = db.one::<(u64,)>(find, values![submission])?.map(|(ms,)| ms);
            let find = format!(
                "SELECT r.received_at_ms FROM tasks t JOIN results r ON {} \
                 WHERE t.submission = ? AND t.idx >= ? AND t.idx < ? ORDER BY t.idx DESC LIMIT ?",
                db.dialect().is_decisive_result
            );
            let (from, below) = (done.saturating_sub(2 * RESULTS), done.saturating_add(RESULTS));
            let results_ms = moments(db, &find, values![submission, from, below, RESULTS])?;
            Ok(RecordedMoments { results_ms, since_ms })
        })
        .await
    }

    /// The moments of the newest tasks' results, of all or of one endpoint.
    pub(crate) async fn moments(&self, endpoint: Option<EndpointId>) -> Result<RecordedMoments> {
        self.read("reading when results came", move |db| {
            let newest = db.dialect().result_key.join(" DESC, ");
            let results_ms = match endpoint {
                None => {
                    let find =
                        format!("SELECT received_at_ms FROM results ORDER BY {newest} DESC LIMIT ?");
                    moments(db, &find, values![RESULTS])?
                }
                Some(endpoint) => {
                    let find = format!(
                        "SELECT x.received_at_ms FROM (SELECT received_at_ms, endpoint FROM results \
                         ORDER BY {newest} DESC LIMIT ?) x JOIN interned_ids n ON n.n = x.endpoint \
                         WHERE n.id = ? LIMIT ?"
                    );
                    moments(db, &find, values![LOOKED_THROUGH, endpoint, RESULTS])?
                }
            };
            Ok(RecordedMoments { results_ms, since_ms: None })
        })
        .await
    }

    /// The progress of all submissions, or of those of one endpoint.
    pub(crate) async fn progress(&self, endpoint: Option<EndpointId>) -> Result<Progress> {
        self.read("counting tasks", move |db| {
            let count = "SELECT c.state, CAST(sum(c.tasks) AS BIGINT) FROM counts c";
            let states: Vec<(StoredState, u64)> = match endpoint {
                None => db.all(&format!("{count} GROUP BY c.state"), &[])?,
                Some(endpoint) => {
                    let join = "JOIN submissions s ON s.id = c.submission WHERE s.endpoint_id = ?";
                    db.all(&format!("{count} {join} GROUP BY c.state"), values![endpoint])?
                }
            };
            let states: Vec<_> = states.into_iter().filter(|(_, tasks)| *tasks > 0).collect();
            let total = states.iter().map(|(_, tasks)| tasks).sum();
            let shown = states.into_iter().map(|(state, tasks)| (state.shown(), tasks));
            Ok(Progress::of(total, shown))
        })
        .await
    }
}

fn moments(db: &Db<'_>, find: &str, values: &[super::engine::Value<'_>]) -> Result<Vec<u64>> {
    Ok(db.all::<(u64,)>(find, values)?.into_iter().map(|(ms,)| ms).collect())
}
