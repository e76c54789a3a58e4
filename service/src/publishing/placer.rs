//! The placer: hands tasks that wait to the link, by priority and in order, while there is one.
//!
//! It works for each endpoint on its own, so that none waits for another's queue: a page from
//! the records, its confirms, the next page. What is in doubt goes first. Touches the records
//! and the link, through the [`Publisher`]. Promises: a task is recorded as `submitting` before
//! it is published; the pages under way are bounded; what the broker does not take is published
//! again after a growing pause.

use super::{Outgoing, Placements, PublishError, Publisher};
use crate::store::{Error, Handed, Positions, Store};
use clutch_common::id::EndpointId;
use clutch_common::link::Fault;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most tasks in a page.
const PAGE: usize = 2000;
/// The most tasks of an endpoint that took none when it was tried last.
const PROBE: usize = 100;
/// How many endpoints have a page under way at most.
const ENDPOINTS_AT_ONCE: usize = 8;
/// The pause after the records could not be read or written.
const PAUSE: Duration = Duration::from_secs(5);

/// Places tasks until told to stop, and looks for some whenever there is news. Pages under way
/// run among `tasks`, so that the broker's answers are recorded although the link is lost
/// meanwhile; once `tasks` is closed no page is begun.
///
/// # Errors
/// Never: what it cannot do it tries again. The session ends it.
pub(crate) async fn place(
    store: &Store,
    publisher: Publisher,
    placements: &Placements,
    news: watch::Receiver<u64>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    placements.begin();
    let placer = Placer { store, publisher, placements, tasks };
    let placing = placer.work(news);
    tokio::select! {
        biased;
        () = stop.cancelled() => (),
        () = placing => stop.cancelled().await,
    }
    Ok(())
}

struct Placer<'a> {
    store: &'a Store,
    publisher: Publisher,
    placements: &'a Placements,
    tasks: &'a TaskTracker,
}

/// A step of placing an endpoint's tasks.
enum Step {
    /// The page was taken; up to where that was.
    Taken(Positions),
    /// There is nothing to place, or it was not taken.
    Over,
}

impl Placer<'_> {
    async fn work(&self, mut lost: watch::Receiver<u64>) {
        let mut news = self.placements.news();
        let (mut working, mut busy) = (FuturesUnordered::new(), BTreeSet::new());
        loop {
            news.mark_unchanged();
            lost.mark_unchanged();
            let (due, wake) = self.due(&busy).await;
            for endpoint in due.into_iter().take(ENDPOINTS_AT_ONCE - busy.len()) {
                busy.insert(endpoint);
                working.push(async move {
                    self.place_all_of(endpoint).await;
                    endpoint
                });
            }
            let asleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(endpoint) = working.next() => drop(busy.remove(&endpoint)),
                changed = news.changed() => if changed.is_err() { return },
                changed = lost.changed() => if changed.is_err() { return },
                () = asleep => (),
            }
        }
    }

    /// The endpoints with tasks that can be placed, and when to look again at the latest.
    async fn due(&self, busy: &BTreeSet<EndpointId>) -> (Vec<EndpointId>, Option<Instant>) {
        let mut endpoints: BTreeSet<EndpointId> =
            self.placements.endpoints_in_doubt().into_iter().collect();
        let mut wake = None;
        match self.store.endpoints_with_waiting().await {
            Ok(found) => endpoints.extend(found),
            Err(error) => {
                tell(error);
                wake = Some(Instant::now() + PAUSE);
            }
        }
        let mut due = Vec::new();
        for endpoint in endpoints.difference(busy) {
            match self.placements.paused_until(*endpoint) {
                None => due.push(*endpoint),
                Some(until) => wake = Some(wake.map_or(until, |wake: Instant| wake.min(until))),
            }
        }
        (due, wake)
    }

    /// Places an endpoint's tasks, until there are no more or they are not taken.
    async fn place_all_of(&self, endpoint: EndpointId) {
        let mut limit = if self.placements.held(endpoint).is_some() { PROBE } else { PAGE };
        let mut after = Positions::default();
        while !self.tasks.is_closed() {
            let (store, publisher) = (self.store.clone(), self.publisher.clone());
            let placements = self.placements.clone();
            // On its own: this future ends with the link, and the answers are recorded.
            let step = self.tasks.spawn(async move {
                step(&store, &publisher, &placements, endpoint, after, limit).await
            });
            match step.await {
                Ok(Ok(Step::Taken(reached))) => after = reached,
                Ok(Ok(Step::Over)) => return,
                Ok(Err(error)) => {
                    tell(error);
                    return tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(%error, "placing tasks was cut off");
                    return tokio::time::sleep(PAUSE).await;
                }
            }
            limit = PAGE;
        }
    }
}

/// Places one page: of those in doubt, or else of those that wait.
async fn step(
    store: &Store,
    publisher: &Publisher,
    placements: &Placements,
    endpoint: EndpointId,
    after: Positions,
    limit: usize,
) -> Result<Step, Error> {
    let in_doubt = placements.in_doubt(endpoint, limit);
    let (page, reached) = if in_doubt.is_empty() {
        let page = store.hand_over(endpoint, after, limit).await?;
        let mut reached = after;
        reached.pass(&page);
        (page, reached)
    } else {
        let page = store.still_submitting(endpoint, in_doubt.clone()).await?;
        let open: BTreeSet<i64> = page.iter().map(|one| one.seq).collect();
        placements.clear(endpoint, in_doubt.into_iter().filter(|task| !open.contains(task)));
        if page.is_empty() {
            return Ok(Step::Taken(after));
        }
        (page, after)
    };
    if page.is_empty() {
        return Ok(Step::Over);
    }
    let tasks: Vec<Outgoing<'_>> = page.iter().map(Outgoing::from).collect();
    let outcomes = publisher.tasks(endpoint, true, &tasks).await?;
    let (mut confirmed, mut again, mut not_taken) = (0, 0, None);
    for (one, outcome) in page.iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                confirmed += 1;
                again += u64::from(is_new_attempt(one));
            }
            Err(PublishError::TooLarge(_)) => (),
            Err(why) => not_taken = Some(why),
        }
    }
    if confirmed > 0 {
        tracing::info!(%endpoint, tasks = confirmed, new_attempts = again, "placed at the broker");
    }
    match not_taken {
        None => Ok(Step::Taken(reached)),
        Some(reason) => {
            tracing::debug!(%endpoint, %reason, "tasks wait: the broker did not take them");
            Ok(Step::Over)
        }
    }
}

fn is_new_attempt(task: &Handed) -> bool {
    task.task.attempt > 1
}

fn tell(error: Error) {
    let error = format!("{:#}", anyhow::Error::from(error));
    tracing::warn!(error, "tasks that wait cannot be placed for now; trying again");
}
