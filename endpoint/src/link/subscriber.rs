//! The TaskQueueSubscriber: reads deliveries, hands their tasks to the ledger, and
//! acknowledges each delivery once its tasks are on disk.
//!
//! Promises:
//! - A delivery is acknowledged only after the commit that covers it.
//! - A task that is known, also one finished long ago, is acknowledged and not run again.
//! - A message that cannot be read goes to the dead-letter queue; if it names its task, a
//!   `rejected` result says why. A damaged one is reported to the service, which asks for
//!   the tasks that it may have brought.
//! - A roll call for this session is answered with a result for each attempt that is not
//!   known, or has a result that was delivered.
//! - A mark releases cancels once everything before it is off the queue for good.
//! - Nothing is read while the inbox is full, or the endpoint is drained; copies of urgent
//!   tasks that came ahead are accepted until as many urgent ones wait as it takes otherwise.
//! - A [fenced](Instance::is_fenced) instance starts a task only when its acknowledgement
//!   is confirmed.

use crate::failpoint::{self, Step};
use crate::link::instance::Instance;
use crate::link::session_error::SessionError;
use crate::link::steering::Steering;
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
/// The most tasks that the service packs into a message.
const MESSAGE_TASKS: usize = 100;
/// Most groups that wait for their commits; prefetch bounds them further.
const OPEN_GROUPS: usize = 64;

/// Deliveries that are settled together, once their tasks are durable.
#[derive(Default)]
struct DeliveryGroup {
    dead: Vec<Tag>,
    last: Tag,
    /// How many of its tasks wait until the acknowledgement is confirmed.
    unsecured: usize,
    /// The last mark behind cancelled tasks among them, and up to which cancel it goes.
    mark: Option<(Tag, u64)>,
}

type PendingGroup = BoxFuture<'static, Result<DeliveryGroup, JournalError>>;

/// Reads until `intake` is cancelled, and settles all deliveries that were read.
///
/// # Errors
/// See [`SessionError`].
pub(crate) async fn subscribe(
    inlet: &mut dyn Inlet,
    ledger: &Ledger,
    instance: &Instance,
    steering: &Steering,
    intake: &CancellationToken,
) -> Result<(), SessionError> {
    let mut groups: FuturesOrdered<PendingGroup> = FuturesOrdered::new();
    loop {
        let stopped = intake.is_cancelled();
        if stopped && groups.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(group) = groups.next(), if !groups.is_empty() => {
                settle_all(inlet, ledger, steering, group?, &mut groups).await?;
            }
            () = intake.cancelled(), if !stopped => (),
            copies = steering.copies(), if !stopped && groups.len() < OPEN_GROUPS => {
                groups.push_back(accept_copies(ledger, copies, instance).await?);
            }
            deliveries = read(inlet, ledger), if !stopped && groups.len() < OPEN_GROUPS => {
                groups.push_back(accept(ledger, deliveries?, instance).await?);
            }
        }
    }
}

/// Accepts copies of urgent tasks, which are in the task queue as well and are known when they
/// come from there. Where another instance may be given those, and so run them too, and where
/// there is no room, the copies are left out.
async fn accept_copies(
    ledger: &Ledger,
    copies: Vec<Task>,
    instance: &Instance,
) -> Result<PendingGroup, JournalError> {
    let room = if instance.is_fenced() { 0 } else { ledger.room_for_copies() };
    let mut tasks: Vec<Task> = Vec::new();
    for task in copies {
        let known =
            tasks.iter().any(|other| other.id == task.id) || ledger.knows(task.attempt())?;
        if !known && tasks.len() < room && task.validate().is_ok() {
            tasks.push(task);
        }
    }
    tracing::debug!(tasks = tasks.len(), "accepted copies of urgent tasks");
    let accepted = ledger.accept(tasks).await?;
    Ok(Box::pin(async move {
        accepted.await?;
        Ok(DeliveryGroup::default())
    }))
}

/// Reads as many messages as the inbox has room for, about: a message is taken whole. A
/// link that is lost while there is no room is noticed too.
async fn read(inlet: &mut dyn Inlet, ledger: &Ledger) -> Result<Vec<Delivery>, Fault> {
    // Where there is room, receiving notices a lost link as well.
    let room = tokio::select! {
        biased;
        room = ledger.room() => room,
        fault = inlet.lost() => return Err(fault),
    };
    inlet.receive((room / MESSAGE_TASKS).clamp(1, GROUP)).await
}

/// Settles a group and all others that are durable by now. Where tasks wait for the
/// acknowledgement to be confirmed, confirms it for all of them at once.
async fn settle_all(
    inlet: &mut dyn Inlet,
    ledger: &Ledger,
    steering: &Steering,
    first: DeliveryGroup,
    groups: &mut FuturesOrdered<PendingGroup>,
) -> Result<(), SessionError> {
    let mut unsecured = 0;
    let mut durable = Some(first);
    while let Some(group) = durable {
        unsecured += group.unsecured;
        settle(inlet, group, steering).await?;
        durable = groups.next().now_or_never().flatten().transpose()?;
    }
    if unsecured > 0 {
        inlet.secured().await?;
        ledger.secured(unsecured).await?;
    }
    Ok(())
}

/// Settles a group. A mark in it releases the cancels that it covers, once it is certain that no
/// task before it comes again; then it is acknowledged itself, so that it comes again if any
/// of that fails.
async fn settle(
    inlet: &mut dyn Inlet,
    group: DeliveryGroup,
    steering: &Steering,
) -> Result<(), Fault> {
    failpoint::reach(Step::Ack);
    for tag in group.dead {
        inlet.dead_letter(tag).await?;
    }
    if let Some((mark, up_to)) = group.mark {
        inlet.acknowledge(Tag(mark.0 - 1)).await?;
        inlet.secured().await?;
        steering.release(up_to).await;
    }
    if group.last == Tag::default() {
        // It has no delivery, but copies.
        return Ok(());
    }
    inlet.acknowledge(group.last).await
}

/// Hands the tasks of deliveries to the ledger. The future that it returns resolves when
/// they may be settled.
async fn accept(
    ledger: &Ledger,
    deliveries: Vec<Delivery>,
    instance: &Instance,
) -> Result<PendingGroup, JournalError> {
    let fenced = instance.is_fenced();
    let mut reader = GroupReader::of(ledger, instance);
    for delivery in deliveries {
        reader.read(delivery).await?;
    }
    let GroupReader { mut commits, tasks, mut group, .. } = reader;
    group.unsecured = if fenced { tasks.len() } else { 0 };
    let accepted =
        if fenced { ledger.accept_unsecured(tasks).await? } else { ledger.accept(tasks).await? };
    commits.push(accepted);
    failpoint::reach(Step::Accept);
    Ok(Box::pin(async move {
        for commit in commits {
            commit.await?;
        }
        Ok(group)
    }))
}

/// Reads deliveries, and collects their tasks and the commits that they wait for.
struct GroupReader<'a> {
    ledger: &'a Ledger,
    instance: &'a Instance,
    tasks: Vec<Task>,
    /// The attempts among `tasks`, which the ledger does not know yet.
    fresh: HashMap<TaskId, u32>,
    commits: Vec<Stored>,
    group: DeliveryGroup,
}

impl<'a> GroupReader<'a> {
    fn of(ledger: &'a Ledger, instance: &'a Instance) -> Self {
        let (tasks, commits) = (Vec::new(), Vec::new());
        Self {
            ledger,
            instance,
            tasks,
            fresh: HashMap::new(),
            commits,
            group: DeliveryGroup::default(),
        }
    }

    async fn read(&mut self, delivery: Delivery) -> Result<(), JournalError> {
        self.group.last = self.group.last.max(delivery.tag);
        let message = &delivery.message;
        if let Some(damage) = &message.damage {
            self.report_damage(delivery.tag, damage, message.message_id.as_deref());
            return Ok(());
        }
        match wire::decode_to_endpoint(&message.body, message.correlation_id.as_deref()) {
            ToEndpoint::RollCall(roll_call) => self.answer_roll_call(roll_call).await,
            ToEndpoint::CancelMark(mark) => {
                let up_to = self.group.mark.map_or(mark.up_to, |(_, up_to)| up_to.max(mark.up_to));
                self.group.mark = Some((delivery.tag, up_to));
                Ok(())
            }
            ToEndpoint::Unknown(message) => {
                self.instance.pass_by(&message);
                Ok(())
            }
            ToEndpoint::Tasks(tasks) => {
                if !tasks.unreadable.is_empty() {
                    self.group.dead.push(delivery.tag);
                }
                for unreadable in tasks.unreadable {
                    self.reject(unreadable, message.message_id.as_deref()).await?;
                }
                for task in tasks.tasks {
                    self.accept_task(task).await?;
                }
                Ok(())
            }
        }
    }

    /// Reports a message that is damaged or missing to the service, which asks which tasks
    /// are not known here. Dead-letters the message once the report is confirmed.
    fn report_damage(&mut self, tag: Tag, damage: &str, message_id: Option<&str>) {
        tracing::warn!(
            message_id,
            reason = damage,
            "messages in the task queue are damaged or missing: the service is told, and asks \
             which tasks are not known here"
        );
        self.group.dead.push(tag);
        let told = self.instance.report_loss();
        self.commits.push(Box::pin(async move {
            told.await;
            Ok(())
        }));
    }

    async fn reject(
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

    async fn accept_task(&mut self, task: Task) -> Result<(), JournalError> {
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

    /// Answers a roll call: disowns an attempt that is not known, and sends a result that
    /// was delivered again. A roll call for another disk or an earlier session gets no
    /// answer, as another instance may have read the messages before it; a presence
    /// message tells the service the present session.
    async fn answer_roll_call(&mut self, roll_call: RollCall) -> Result<(), JournalError> {
        let RollCall { state_id, instance, attempts } = roll_call;
        if (state_id, instance) != (self.ledger.state_id, self.instance.id()) {
            tracing::debug!(state = %state_id, %instance, "a roll call is for another instance or session");
            self.instance.request_presence();
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
        self.instance.roll_call_answered();
        Ok(())
    }

    fn knows(&self, attempt: Attempt) -> Result<bool, JournalError> {
        let here = self.fresh.get(&attempt.task_id).is_some_and(|fresh| *fresh >= attempt.attempt);
        Ok(here || self.ledger.knows(attempt)?)
    }
}

#[cfg(test)]
mod tests;
