//! The TaskQueueSubscriber: reads deliveries, hands their tasks to the ledger,
//! and settles each delivery once the disk has what it brought.
//!
//! Promises: a delivery is acknowledged only after the commit that covers it;
//! a task known already, also one finished long ago, is acknowledged and not
//! run again; a message that cannot be read goes to the dead-letter queue, and
//! if it names its task, a `rejected` result says why; of one that is damaged the
//! service is told, which asks for what it may have brought; a roll call gets a result
//! for each attempt that is not known or whose result was delivered, if it is meant for this session. While the
//! inbox is full nothing is read. A careful instance starts a task only when its acknowledgement is secured.

use crate::failpoint::{self, Step};
use crate::link::instance::Instance;
use crate::link::session_error::SessionError;
use crate::pending::ledger::{Ledger, Stored};
use crate::storage::journal::JournalError;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::link::{Delivery, Fault, Inlet, Tag};
use clutch_common::task::Task;
use clutch_common::wire::{self, RollCall, ToEndpoint, Unreadable};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use std::collections::{HashMap, HashSet};
use tokio_util::sync::CancellationToken;

/// Most deliveries taken as one group; a group is acknowledged as one.
const GROUP: usize = 32;
/// How many tasks a message may bring, for what fits into the inbox: the
/// service packs at most so many.
const MESSAGE_TASKS: usize = 100;
/// Most groups whose commits are waited for; prefetch bounds them further.
const OPEN_GROUPS: usize = 64;

/// What is to be settled once a group is durable.
#[derive(Default)]
struct Group {
    dead: Vec<Tag>,
    last: Tag,
    /// How many of its tasks wait until that is secured.
    unsecured: usize,
}

type Pending = BoxFuture<'static, Result<Group, JournalError>>;

/// Reads until `intake` is cancelled, and settles what it has read.
///
/// # Errors
/// The fault that ended the link, or the disk's failure.
pub(crate) async fn subscribe(
    inlet: &mut dyn Inlet,
    ledger: &Ledger,
    instance: &Instance,
    intake: &CancellationToken,
) -> Result<(), SessionError> {
    let mut groups: FuturesOrdered<Pending> = FuturesOrdered::new();
    loop {
        let stopped = intake.is_cancelled();
        if stopped && groups.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(group) = groups.next(), if !groups.is_empty() => {
                settle_all(inlet, ledger, group?, &mut groups).await?;
            }
            () = intake.cancelled(), if !stopped => (),
            deliveries = read(inlet, ledger), if !stopped && groups.len() < OPEN_GROUPS => {
                groups.push_back(accept(ledger, deliveries?, instance).await?);
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
        room = ledger.room() => room,
        fault = inlet.lost() => return Err(fault),
    };
    inlet.receive((room / MESSAGE_TASKS).clamp(1, GROUP)).await
}

/// Settles a group and those that are durable by now, and has the tasks that wait
/// for it secured, all at once.
async fn settle_all(
    inlet: &mut dyn Inlet,
    ledger: &Ledger,
    first: Group,
    groups: &mut FuturesOrdered<Pending>,
) -> Result<(), SessionError> {
    let mut unsecured = 0;
    let mut durable = Some(first);
    while let Some(group) = durable {
        unsecured += group.unsecured;
        settle(inlet, group).await?;
        durable = groups.next().now_or_never().flatten().transpose()?;
    }
    if unsecured > 0 {
        inlet.secured().await?;
        ledger.secured(unsecured).await?;
    }
    Ok(())
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
async fn accept(
    ledger: &Ledger,
    deliveries: Vec<Delivery>,
    instance: &Instance,
) -> Result<Pending, JournalError> {
    let careful = instance.is_fenced();
    let mut reading = Reading::of(ledger, instance);
    for delivery in deliveries {
        reading.read(delivery).await?;
    }
    let Reading { mut commits, tasks, mut group, .. } = reading;
    group.unsecured = if careful { tasks.len() } else { 0 };
    let accepted =
        if careful { ledger.accept_unsecured(tasks).await? } else { ledger.accept(tasks).await? };
    commits.push(Box::pin(accepted));
    failpoint::reach(Step::Accept);
    Ok(Box::pin(async move {
        for commit in commits {
            commit.await?;
        }
        Ok(group)
    }))
}

/// Deliveries, read into what is to be done about them.
struct Reading<'a> {
    ledger: &'a Ledger,
    instance: &'a Instance,
    tasks: Vec<Task>,
    /// The attempts among `tasks`, which the ledger does not know yet.
    fresh: HashMap<TaskId, u32>,
    commits: Vec<Stored>,
    group: Group,
}

impl<'a> Reading<'a> {
    fn of(ledger: &'a Ledger, instance: &'a Instance) -> Self {
        let (tasks, commits) = (Vec::new(), Vec::new());
        Self { ledger, instance, tasks, fresh: HashMap::new(), commits, group: Group::default() }
    }

    async fn read(&mut self, delivery: Delivery) -> Result<(), JournalError> {
        self.group.last = self.group.last.max(delivery.tag);
        let message = &delivery.message;
        if let Some(damage) = &message.damage {
            self.miss(delivery.tag, damage, message.message_id.as_deref());
            return Ok(());
        }
        match wire::decode_to_endpoint(&message.body, message.correlation_id.as_deref()) {
            ToEndpoint::RollCall(roll_call) => self.answer(roll_call).await,
            ToEndpoint::Unknown(message) => {
                self.instance.pass_by(&message);
                Ok(())
            }
            ToEndpoint::Tasks(tasks) => {
                if !tasks.unreadable.is_empty() {
                    self.group.dead.push(delivery.tag);
                }
                for unreadable in tasks.unreadable {
                    self.refuse(unreadable, message.message_id.as_deref()).await?;
                }
                for task in tasks.tasks {
                    self.take(task).await?;
                }
                Ok(())
            }
        }
    }

    /// Has the service told that something was damaged or is missing: it asks which
    /// tasks are not known here. Refused once it is told, or found again.
    fn miss(&mut self, tag: Tag, damage: &str, message_id: Option<&str>) {
        tracing::warn!(
            message_id,
            reason = damage,
            "messages in the task queue are damaged or missing: the service is told, and asks \
             which tasks are not known here"
        );
        self.group.dead.push(tag);
        let told = self.instance.lose();
        self.commits.push(Box::pin(async move {
            told.await;
            Ok(())
        }));
    }

    async fn refuse(
        &mut self,
        unreadable: Unreadable,
        message_id: Option<&str>,
    ) -> Result<(), JournalError> {
        tracing::warn!(
            message_id,
            task = unreadable.attempt.map(tracing::field::display),
            reason = %unreadable.reason,
            "a message cannot be read and goes to the dead-letter queue"
        );
        if let Some(attempt) = unreadable.attempt
            && !self.ledger.knows(attempt)?
        {
            self.commits.push(self.ledger.reject(attempt, unreadable.reason.into()).await?);
        }
        Ok(())
    }

    async fn take(&mut self, task: Task) -> Result<(), JournalError> {
        let attempt = task.attempt();
        if self.knows(attempt)? {
            tracing::debug!(task = %attempt, "a task delivered before is not run again");
        } else if let Err(invalid) = task.validate() {
            self.commits.push(self.ledger.reject(attempt, invalid.to_string()).await?);
        } else {
            self.fresh.insert(task.id, task.attempt);
            self.tasks.push(task);
        }
        Ok(())
    }

    /// Answers a roll call: an attempt that is not known is disowned, one whose result
    /// was delivered has it sent again. A roll call for another disk, or for an earlier
    /// session of this one, gets no answer, as another instance may have read what came
    /// before it; the service is told who reads.
    async fn answer(&mut self, roll_call: RollCall) -> Result<(), JournalError> {
        let RollCall { state_id, instance, attempts } = roll_call;
        if (state_id, instance) != (self.ledger.state_id, self.instance.id()) {
            tracing::debug!(state = %state_id, %instance, "a roll call is for somebody else");
            self.instance.tell();
            return Ok(());
        }
        let (mut unknown, mut known) = (0, HashSet::new());
        for attempt in attempts {
            if !self.knows(attempt)? {
                unknown += 1;
                self.commits.push(self.ledger.disown(attempt).await?);
            } else if !self.fresh.contains_key(&attempt.task_id) {
                known.insert(attempt);
            }
        }
        let (sent_again, commits) = self.ledger.send_again(known).await?;
        self.commits.extend(commits);
        tracing::info!(unknown, sent_again, "the service asked what became of tasks");
        self.instance.answer();
        Ok(())
    }

    fn knows(&self, attempt: Attempt) -> Result<bool, JournalError> {
        let here = self.fresh.get(&attempt.task_id).is_some_and(|fresh| *fresh >= attempt.attempt);
        Ok(here || self.ledger.knows(attempt)?)
    }
}

#[cfg(test)]
mod tests;
