//! Runs work that may block on a thread for it, within a time limit.

use crate::link::Fault;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How many pieces of work may be stuck at once in a file system that does not answer. More
/// are not begun, so that threads do not pile up while a server is gone.
static STUCK: Semaphore = Semaphore::const_new(32);

/// Runs `work` on a thread that may block, for `limit` at most: a network file system
/// blocks for as long as its server is gone.
pub(super) async fn blocking<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = async {
        let permit = STUCK.acquire().await;
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await
    };
    match tokio::time::timeout(limit, done).await {
        Ok(Ok(done)) => done,
        Ok(Err(panicked)) => Err(Fault::Closed(format!("work on the folder ended: {panicked}"))),
        Err(_) => Err(Fault::Unreachable(format!(
            "the folder's file system did not answer within {}",
            humantime::format_duration(limit)
        ))),
    }
}
