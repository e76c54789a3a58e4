//! The TaskQueueSubscriber: reads deliveries, hands their tasks to the ledger,
//! and settles each delivery once the disk has what it brought.
//!
//! Promises: a delivery is acknowledged only after the commit that covers it;
//! a task known already, also one finished long ago, is acknowledged and not
//! run again; a message that cannot be read goes to the dead-letter queue, and
//! if it names its task, a `rejected` result says why. While the inbox is full
//! nothing is read.

use crate::failpoint::{self, Step};
use crate::halt::Halt;
use crate::journal::JournalError;
use crate::ledger::{Ledger, Stored};
use clutch_common::id::TaskId;
use clutch_common::link::{Delivery, Fault, Inlet, Tag};
use clutch_common::task::Task;
use clutch_common::wire;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

/// Most deliveries taken as one group; a group is acknowledged as one.
const GROUP: usize = 32;
/// How many tasks a message may bring, for what fits into the inbox: the
/// service packs at most so many.
const MESSAGE_TASKS: usize = 100;
/// Most groups whose commits are waited for; prefetch bounds them further.
const OPEN_GROUPS: usize = 64;

/// What is to be settled once a group is durable.
struct Group {
    dead: Vec<Tag>,
    last: Tag,
}

type Pending = BoxFuture<'static, Result<Group, JournalError>>;

/// Reads until `intake` is cancelled, and settles what it has read.
///
/// # Errors
/// The fault that ended the link, or the disk's failure.
pub(crate) async fn subscribe(
    inlet: &mut dyn Inlet,
    ledger: &Ledger,
    intake: &CancellationToken,
) -> Result<(), Halt> {
    let mut groups: FuturesOrdered<Pending> = FuturesOrdered::new();
    loop {
        let stopped = intake.is_cancelled();
        if stopped && groups.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(group) = groups.next(), if !groups.is_empty() => settle(inlet, group?).await?,
            () = intake.cancelled(), if !stopped => (),
            deliveries = read(inlet, ledger), if !stopped && groups.len() < OPEN_GROUPS => {
                groups.push_back(accept(ledger, deliveries?).await?);
            }
        }
    }
}

/// Reads what there is room for, about: a message is taken whole. A link that
/// is lost while there is no room is noticed all the same.
async fn read(inlet: &mut dyn Inlet, ledger: &Ledger) -> Result<Vec<Delivery>, Fault> {
    // Where there is room, receiving notices a lost link as well.
    let room = tokio::select! {
        biased;
        room = ledger.inbox.room() => room,
        fault = inlet.lost() => return Err(fault),
    };
    inlet.receive((room / MESSAGE_TASKS).clamp(1, GROUP)).await
}

async fn settle(inlet: &mut dyn Inlet, group: Group) -> Result<(), Fault> {
    failpoint::reach(Step::Ack);
    for tag in group.dead {
        inlet.dead_letter(tag).await?;
    }
    inlet.acknowledge(group.last).await
}

/// Hands the tasks of some deliveries over. The future it gives resolves when
/// they may be settled.
async fn accept(ledger: &Ledger, deliveries: Vec<Delivery>) -> Result<Pending, JournalError> {
    let mut commits: Vec<Stored> = Vec::new();
    let mut fresh: HashMap<TaskId, u32> = HashMap::new();
    let mut tasks: Vec<Task> = Vec::new();
    let mut group = Group { dead: Vec::new(), last: Tag(0) };
    for delivery in deliveries {
        group.last = group.last.max(delivery.tag);
        let message = &delivery.message;
        let decoded = wire::decode_tasks(&message.body, message.correlation_id.as_deref());
        if !decoded.unreadable.is_empty() {
            group.dead.push(delivery.tag);
        }
        for unreadable in decoded.unreadable {
            let message_id = message.message_id.as_deref();
            tracing::warn!(
                message_id,
                task = unreadable.attempt.map(tracing::field::display),
                reason = unreadable.reason,
                "a message cannot be read and goes to the dead-letter queue"
            );
            if let Some(attempt) = unreadable.attempt
                && !ledger.knows(attempt)?
            {
                commits.push(ledger.reject(attempt, unreadable.reason).await?);
            }
        }
        for task in decoded.tasks {
            let attempt = task.attempt();
            let twice = fresh.get(&task.id).is_some_and(|earlier| *earlier >= task.attempt);
            if twice || ledger.knows(attempt)? {
                tracing::debug!(task = %attempt, "a task delivered before is not run again");
            } else if let Err(invalid) = task.validate() {
                commits.push(ledger.reject(attempt, invalid.to_string()).await?);
            } else {
                fresh.insert(task.id, task.attempt);
                tasks.push(task);
            }
        }
    }
    commits.push(Box::pin(ledger.accept(tasks).await?));
    failpoint::reach(Step::Accept);
    Ok(Box::pin(async move {
        for commit in commits {
            commit.await?;
        }
        Ok(group)
    }))
}

#[cfg(test)]
mod tests;
