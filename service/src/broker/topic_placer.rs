//! Places tasks of topics while there is a link: has the board decide, publishes what it placed,
//! and ends placements that their members will not finish.
//!
//! Touches the records, the link, and the queues of members by the [`Observer`]. It runs when
//! something may be placed by news, and at the earliest deadline; without topics it sleeps.
//! Promises: nothing is published that is not on disk as given to its member; no attempt is fenced
//! before all that was sent to the service until long after its moment is read, which a *barrier*,
//! a message of the service to itself through the results queue, shows.

use crate::broker::observer::{Observer, Sought};
use crate::failover::{Liveness, barrier};
use crate::model::QueueState;
use crate::publishing::{Placements, Publisher, publish_placed};
use crate::store::{Error, PlacedPage, Store};
use crate::topics::{After, QueueReader};
use clutch_common::id::EndpointId;
use clutch_common::link::Fault;
use clutch_common::system::clock::now_ms;
use clutch_common::topology;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most tasks that are placed in one transaction.
const PAGE: usize = 512;
/// The most placements that end in one transaction.
const ENDED_AT_ONCE: usize = 1000;
/// How often members that hold work and are silent are looked at.
const SUSPECT_EVERY: Duration = Duration::from_secs(10);
/// A barrier that has not come by then was lost, with the queue's content.
const BARRIER_LASTS: Duration = Duration::from_secs(300);
/// The pause after the records could not be read or written.
const PAUSE: Duration = Duration::from_secs(5);

/// The parts of a session that placing needs.
pub(crate) struct Placing<'a> {
    /// The records.
    pub(crate) store: &'a Store,
    /// The handle to publish by.
    pub(crate) publisher: Publisher,
    /// The obstacles of tasks.
    pub(crate) placements: &'a Placements,
    /// Looks at the queues of members.
    pub(crate) observer: &'a Observer,
    /// How far the results queue is read.
    pub(crate) liveness: &'a Liveness,
    /// Bumped when outcomes were recorded.
    pub(crate) commits: &'a watch::Sender<u64>,
    /// Where pages run, so that the broker's answers are recorded although the link is lost.
    pub(crate) tasks: &'a TaskTracker,
}

/// Places tasks of topics until told to stop.
///
/// # Errors
/// Never: what it cannot do it tries again. The session ends it.
pub(crate) async fn place_topics(
    parts: Placing<'_>,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut placer = TopicPlacer { parts, barrier_sent_ms: None, suspected_ms: 0 };
    tokio::select! {
        biased;
        () = stop.cancelled() => (),
        () = placer.work() => stop.cancelled().await,
    }
    Ok(())
}

struct TopicPlacer<'a> {
    parts: Placing<'a>,
    /// When the barrier was sent that is under way.
    barrier_sent_ms: Option<u64>,
    /// When silent members were looked for last.
    suspected_ms: u64,
}

impl TopicPlacer<'_> {
    async fn work(&mut self) {
        let mut news = self.parts.store.topic_board().news();
        let mut fences = self.parts.liveness.fences();
        loop {
            news.mark_unchanged();
            fences.mark_unchanged();
            let next = match self.turn().await {
                Ok(next) => next,
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(error, "tasks of topics cannot be placed for now; trying again");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let asleep = async {
                match next {
                    Some(next) => {
                        let left = next.saturating_sub(now_ms());
                        tokio::time::sleep(Duration::from_millis(left)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                changed = fences.changed() => if changed.is_err() { return },
                () = asleep => (),
            }
        }
    }

    /// Does what is due, and says when to do so again if there is no news.
    async fn turn(&mut self) -> Result<Option<u64>, Error> {
        let mut deadlines = vec![self.end_placements().await?];
        let expired = self.parts.store.expire_unplaced(now_ms()).await?;
        if expired > 0 {
            tracing::info!(tasks = expired, "expired: no member of their topics took them in time");
            self.parts.commits.send_modify(|count| *count += 1);
        }
        let stuck = self.place().await?;
        let board = self.parts.store.topic_board();
        let now = now_ms();
        let (looks, next_look) = board.with(|catalogue| catalogue.sought(stuck, now));
        self.look(looks, now);
        deadlines.extend([next_look, self.suspect(now)]);
        deadlines.push(board.with(|catalogue| catalogue.unblock(now)));
        deadlines.push(board.with(|catalogue| catalogue.next_expiry()));
        Ok(deadlines.into_iter().flatten().min())
    }

    /// Places what can be, and returns the kinds of which tasks wait that found no member.
    async fn place(&self) -> Result<BTreeSet<i64>, Error> {
        while !self.parts.tasks.is_closed() {
            let page = self.parts.store.place_topic_tasks(PAGE, now_ms()).await?;
            let PlacedPage { by_member, tasks, stuck } = page;
            for (member, page) in by_member {
                let (store, publisher) = (self.parts.store.clone(), self.parts.publisher.clone());
                let placements = self.parts.placements.clone();
                self.parts.tasks.spawn(async move {
                    publish_placed(&store, &publisher, &placements, member, &page).await;
                });
            }
            if tasks == 0 {
                return Ok(stuck);
            }
        }
        Ok(BTreeSet::new())
    }

    /// Has the broker say whether the queues of members are read.
    fn look(&self, members: Vec<EndpointId>, now_ms: u64) {
        if members.is_empty() {
            return;
        }
        let board = self.parts.store.topic_board().clone();
        board.with(|catalogue| catalogue.looking(&members, now_ms));
        let observer = self.parts.observer.clone();
        self.parts.tasks.spawn(async move {
            let sought =
                members.iter().map(|endpoint| Sought { endpoint: *endpoint, drains: false });
            let states = observer.look(sought.collect()).await;
            for (member, state) in members.into_iter().zip(states) {
                let seen = match state {
                    QueueState::There { consumed: Some(false), .. } | QueueState::Missing => {
                        QueueReader::Away
                    }
                    // Where it cannot be told, what is not claimed is placed elsewhere in time.
                    QueueState::There { consumed: Some(true) | None, .. } => QueueReader::There,
                    QueueState::Unknown => QueueReader::Unknown,
                };
                board.seen(member, seen, clutch_common::system::clock::now_ms());
            }
        });
    }

    /// Looks at silent members that hold claimed work, now and then while anything is placed; says
    /// when to do so again.
    fn suspect(&mut self, now_ms: u64) -> Option<u64> {
        let board = self.parts.store.topic_board();
        if !board.with(|catalogue| catalogue.holds_any()) {
            return None;
        }
        let every = millis(SUSPECT_EVERY);
        if now_ms.saturating_sub(self.suspected_ms) >= every {
            self.suspected_ms = now_ms;
            self.look(board.with(|catalogue| catalogue.suspects(now_ms)), now_ms);
        }
        Some(self.suspected_ms.saturating_add(every))
    }

    /// Ends placements that were not claimed in time, and those of members that are lost; says
    /// when the next may have to.
    async fn end_placements(&mut self) -> Result<Option<u64>, Error> {
        let Placing { store, liveness, commits, .. } = &self.parts;
        let board = store.topic_board();
        if let Some(read_ms) = self.barrier_sent_ms.take_if(|_| liveness.fence_was_read()) {
            let fenced = board.with(|catalogue| catalogue.fenced(read_ms, ENDED_AT_ONCE));
            if !fenced.is_empty() {
                let ended = store.end_placements(fenced, After::Fenced, now_ms()).await?;
                tracing::warn!(?ended, "placed tasks were not claimed in time: placed elsewhere");
                commits.send_modify(|count| *count += 1);
            }
            for member in board.with(|catalogue| catalogue.lost(read_ms)) {
                let attempts = store.lose_member(member, now_ms()).await?;
                board.with(|catalogue| catalogue.given_up(member, read_ms));
                tracing::warn!(
                    %member,
                    attempts,
                    "a member of topics is silent and away for too long: what it claimed is placed \
                     elsewhere, or ends as interrupted"
                );
                commits.send_modify(|count| *count += 1);
            }
        }
        let now = now_ms();
        let next = board.with(|catalogue| catalogue.next_end());
        let Some(due) = next.filter(|due| *due <= now) else { return Ok(next) };
        tracing::debug!(due, "placements are to end");
        let lost = self.barrier_sent_ms.map(|sent| sent.saturating_add(millis(BARRIER_LASTS)));
        match lost {
            Some(lost) if lost > now => Ok(Some(lost)),
            _ => Ok(Some(self.send_barrier(now).await)),
        }
    }

    /// Sends a barrier through the results queue; says when to look again at the latest.
    async fn send_barrier(&mut self, now_ms: u64) -> u64 {
        let message = barrier();
        let id = message.message_id.clone().unwrap_or_default();
        self.parts.liveness.await_fence(id);
        let sent = self.parts.publisher.message(topology::RESULTS_QUEUE.to_owned(), message).await;
        let pause = if sent.is_ok() { BARRIER_LASTS } else { PAUSE };
        self.barrier_sent_ms = sent.is_ok().then_some(now_ms);
        now_ms.saturating_add(millis(pause))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
