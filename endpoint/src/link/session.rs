//! The link to the broker: one session from dial to loss, repeated.
//!
//! A session opens one connection to consume tasks and control messages and one to publish
//! results, and ends
//! with the first fault of either. All faults reach [`Link::run`], which asks the clutch
//! what to do; nothing of a session outlives it. The lease is the broker's proof that one
//! instance alone consumes. While another instance holds it, this one waits for it and
//! goes on to deliver results.

use crate::exit::{Exit, Failure};
use crate::link::claims;
use crate::link::clutch::{Clutch, Decision};
use crate::link::control::ControlReader;
use crate::link::events::EventsPublisher;
use crate::link::instance::Instance;
use crate::link::post;
use crate::link::publisher::Publisher;
use crate::link::session_error::SessionError;
use crate::link::status::LinkPhase;
use crate::link::steering::Steering;
use crate::link::subscriber::subscribe;
use crate::messages::Messages;
use crate::pending::drain::DrainedBy;
use crate::pending::ledger::{Ledger, Stored};
use crate::storage::journal::JournalError;
use clutch_common::link::{Calls, Connection, Destination, Fault, Inlet, InletOptions, Transport};
use clutch_common::wire::{self, Role, ToLeaseHolder};
use futures_util::StreamExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a waiting instance looks whether the queue still has a consumer, and asks
/// for the lease where that cannot be seen or there is none.
const POLL: Duration = Duration::from_millis(500);
/// How often it asks for the lease though the queue has a consumer.
const POLL_HELD: Duration = Duration::from_secs(600);
/// The longest pause before it asks again for a lease that was refused though the queue
/// has no consumer.
const POLL_REFUSED: Duration = Duration::from_secs(4);
/// How long tasks that an earlier run of the daemon left wait for the lease.
const FIRST_LINK: Duration = Duration::from_secs(10);
/// How long they wait for a welcome of the service, once the lease is held.
const WELCOME: Duration = Duration::from_secs(10);
/// How often a waiting instance publishes its presence.
const PRESENCE: Duration = Duration::from_secs(10);

/// The endpoint's link.
pub(crate) struct Link {
    /// The transport to the broker.
    pub(crate) transport: Arc<dyn Transport>,
    /// The pending tasks and results.
    pub(crate) ledger: Arc<Ledger>,
    /// The instance that has the link.
    pub(crate) instance: Arc<Instance>,
    /// The state that the reader of the control queue shares.
    pub(crate) steering: Steering,
    /// How to consume tasks.
    pub(crate) inlet: InletOptions,
    /// Where results go.
    pub(crate) results: Destination,
    /// Tells about running work, where that is told.
    pub(crate) events: Option<EventsPublisher>,
    /// Messages between tasks, where there are some.
    pub(crate) messages: Option<Arc<Messages>>,
    /// The broker's heartbeat.
    pub(crate) heartbeat: Duration,
    /// The share of a delay before dialling again that is random, 0 to 1.
    pub(crate) jitter: f64,
    /// Cancelled: read no more tasks.
    pub(crate) intake: CancellationToken,
    /// Cancelled: end once nothing is pending.
    pub(crate) drain: CancellationToken,
}

/// The state that one session gets and leaves to [`Link::run`].
struct SessionContext {
    /// Whether it waits for a lease that another instance holds.
    waits: bool,
    /// Resolves when it is on disk that tasks were handed back before the session.
    handed_back: Option<Stored>,
    /// Since when it has been engaged, or waiting for the lease.
    up: Option<Instant>,
}

impl Link {
    /// Keeps the link up until `drain` is cancelled and all is delivered.
    ///
    /// # Errors
    /// The clutch gave up, or the disk failed.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut clutch = Clutch::new(self.heartbeat, self.instance.is_standby(), self.jitter);
        // An earlier run may have left tasks with an unconfirmed acknowledgement.
        let mut handed_back = Some(self.hand_back().await?);
        loop {
            let mut context =
                SessionContext { waits: clutch.waits_for_lease(), handed_back, up: None };
            let session = Box::pin(self.session(&mut context));
            let ended = self.with_grace_for_the_lease(session).await;
            self.instance.clear_role();
            self.steering.set_reading(false);
            let fault = match ended {
                Ok(()) => return Ok(()),
                Err(SessionError::Link(fault)) => fault,
                Err(SessionError::Disk(error)) => return Err(disk_failure(&error)),
            };
            if let Fault::Locked(_) = &fault {
                self.instance.found_lease_held();
            }
            self.open_inbox_without_lease();
            handed_back = Some(self.hand_back().await?);
            let address = self.transport.address();
            if self.drain.is_cancelled() && self.ledger.undelivered() == 0 {
                return Ok(());
            }
            match clutch.disengage(&fault, context.up.map(|since| since.elapsed())) {
                Decision::Wait { delay, advice } => {
                    let delay = whole_ms(delay);
                    let retry_in = humantime::format_duration(delay).to_string();
                    tracing::warn!(%fault, %address, retry_in, advice, "disengaged");
                    self.instance.link.down(fault.to_string(), advice, delay);
                    self.pause(delay).await;
                }
                Decision::GiveUp { exit, advice } => {
                    let message = format!(
                        "the link to {address} cannot be brought up: {fault}; {advice}. \
                         What is pending stays on disk"
                    );
                    return Err(Failure::new(exit, message));
                }
            }
        }
    }

    /// Runs a session. Tasks that an earlier run of the daemon left wait for its lease, but
    /// only for [`FIRST_LINK`]: a link that does not come up holds up no task. Where it is up,
    /// what waits in the control queue is obeyed first.
    async fn with_grace_for_the_lease<T>(&self, session: impl Future<Output = T>) -> T {
        let mut session = pin!(session);
        let late = async {
            tokio::time::sleep(FIRST_LINK).await;
            self.steering.until_read().await;
        };
        tokio::select! {
            biased;
            ended = &mut session => return ended,
            () = late => self.open_inbox_without_lease(),
        }
        session.await
    }

    /// Lets tasks that an earlier run of the daemon left start without the lease, unless it
    /// was found held: its holder may be running the same tasks.
    fn open_inbox_without_lease(&self) {
        if !self.instance.has_found_lease_held() {
            self.ledger.open();
        }
    }

    async fn hand_back(&self) -> Result<Stored, Failure> {
        self.ledger.hand_back().await.map_err(|error| disk_failure(&error))
    }

    /// Waits out a delay, or until shutdown begins: then pending results are tried once
    /// more.
    async fn pause(&self, delay: Duration) {
        let draining = self.drain.is_cancelled();
        tokio::select! {
            biased;
            () = tokio::time::sleep(delay) => (),
            () = self.drain.cancelled(), if !draining => (),
        }
    }

    async fn session(&self, context: &mut SessionContext) -> Result<(), SessionError> {
        self.instance.begin_session();
        let name = format!("clutch/{}/{}", self.ledger.endpoint_id, self.instance.id());
        let results_name = format!("{name}/results");
        let (tasks, results) =
            tokio::try_join!(self.transport.connect(&name), self.transport.connect(&results_name))?;
        let outcome = async {
            let mut outlet = results.outlet().await?;
            let publisher =
                Publisher::new(outlet.as_mut(), &self.ledger, &self.results, &self.instance);
            let consuming = self.consume(tasks.as_ref(), context);
            let working =
                async { tokio::try_join!(consuming, publisher.publish(&self.drain)).map(|_| ()) };
            let telling = async {
                if let Some(events) = &self.events {
                    let messages = self.messages.as_deref();
                    let told =
                        events.publish(results.as_ref(), &self.ledger, &self.instance, messages);
                    Box::pin(told).await;
                }
                std::future::pending().await
            };
            let posting = async {
                if let Some(messages) = &self.messages {
                    Box::pin(post::publish(results.as_ref(), &self.results, messages)).await;
                }
                std::future::pending().await
            };
            let claiming = async {
                let claimed =
                    claims::publish(results.as_ref(), &self.results, &self.ledger, &self.intake);
                Box::pin(claimed).await.map(|never| match never {}).map_err(SessionError::from)
            };
            tokio::select! {
                biased;
                ended = working => ended,
                ended = claiming => ended,
                ended = telling => ended,
                ended = posting => ended,
            }
        }
        .await;
        tokio::join!(tasks.close(), results.close());
        outcome
    }

    /// Takes tasks while it has the lease, and releases it when the intake ends, though
    /// results may still be delivered.
    async fn consume(
        &self,
        tasks: &dyn Connection,
        context: &mut SessionContext,
    ) -> Result<(), SessionError> {
        if let Some(handed_back) = context.handed_back.take() {
            handed_back.await?;
        }
        let Some(mut inlet) = self.acquire_lease(tasks, context).await? else { return Ok(()) };
        self.steering.set_reading(true);
        context.up.get_or_insert_with(Instant::now);
        self.instance.ask_for_welcome(self.ledger.holds_back());
        self.instance.set_role(Role::Active);
        self.instance.link.up(LinkPhase::Engaged);
        tracing::info!(address = self.transport.address(), "engaged");
        let calls = inlet.calls();
        let taking = self.take_tasks(tasks, inlet.as_mut());
        tokio::select! {
            biased;
            taken = taking => taken?,
            fault = answer_calls(calls, &self.instance) => return Err(fault.into()),
        }
        self.instance.clear_role();
        drop(inlet);
        tasks.close().await;
        Ok(())
    }

    /// Obeys what waits in the control queue, and then takes tasks, and obeys what comes, until
    /// the intake ends.
    async fn take_tasks(
        &self,
        tasks: &dyn Connection,
        inlet: &mut dyn Inlet,
    ) -> Result<(), SessionError> {
        let messages = self.messages.as_deref();
        let reading = ControlReader::read_waiting(
            tasks,
            &self.ledger,
            &self.instance,
            &self.steering,
            messages,
        );
        let mut control = tokio::select! {
            biased;
            control = reading => control?,
            () = self.intake.cancelled() => return Ok(()),
        };
        self.steering.set_reading(false);
        // Answers come by the control queue.
        let _linked = messages.map(Messages::linked);
        let taking = async {
            self.until_introduced(inlet).await?;
            self.settle_restored(inlet).await?;
            subscribe(inlet, &self.ledger, &self.instance, &self.steering, &self.intake).await
        };
        tokio::select! {
            biased;
            error = control.run() => Err(error),
            taken = taking => taken,
        }
    }

    /// Waits until the service is certain to know this instance as the active one:
    /// otherwise it would not notice the loss of this disk. Where other instances may
    /// take tasks between two sessions, it has to know each session: it must not believe
    /// another instance that a task is unknown.
    async fn until_introduced(&self, inlet: &mut dyn Inlet) -> Result<(), Fault> {
        if self.instance.is_introduced() && !self.instance.is_fenced() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.instance.until_known() => Ok(()),
            fault = inlet.lost() => Err(fault),
            () = self.intake.cancelled() => Ok(()),
        }
    }

    /// Lets tasks that an earlier run left start, once the service has welcomed the
    /// session or says nothing for [`WELCOME`]. If the welcome says that the disk is
    /// behind what the service has seen of it, the tasks are handed back instead.
    async fn settle_restored(&self, inlet: &mut dyn Inlet) -> Result<(), SessionError> {
        if self.ledger.holds_back() {
            let behind = tokio::select! {
                biased;
                behind = self.instance.disk_is_behind() => behind,
                fault = inlet.lost() => return Err(fault.into()),
                () = self.intake.cancelled() => return Ok(()),
                () = tokio::time::sleep(WELCOME) => false,
            };
            if behind {
                tracing::warn!(
                    tasks = self.ledger.tasks(),
                    "the state folder went back in time: the service knows that it had seen more. \
                     The tasks in it are not run but handed back, as they may have run meanwhile. \
                     The service submits again what is not answered, or ends it as interrupted \
                     where it must not run again"
                );
                self.ledger.hand_back_all().await?.await?;
            }
        }
        self.instance.ask_for_welcome(false);
        self.ledger.open();
        Ok(())
    }

    /// Takes the lease, and waits while another instance holds it where this one may;
    /// `None` if the intake ends before.
    async fn acquire_lease(
        &self,
        tasks: &dyn Connection,
        context: &mut SessionContext,
    ) -> Result<Option<Box<dyn Inlet>>, Fault> {
        let mut announced: Option<Instant> = None;
        let mut pause = POLL;
        while !self.intake.is_cancelled() {
            let fault = match tasks.inlet(&self.inlet).await {
                Err(fault @ Fault::Locked(_)) if context.waits => fault,
                asked => return asked.map(Some),
            };
            context.up.get_or_insert_with(Instant::now);
            if announced.is_none_or(|announced| announced.elapsed() >= PRESENCE) {
                match announced.replace(Instant::now()) {
                    None => self.stand_by(&fault),
                    Some(_) => self.instance.request_presence(),
                }
            }
            self.until_lease_seems_free(tasks, &mut announced, &mut pause).await?;
        }
        self.instance.clear_role();
        Ok(None)
    }

    /// Waits until the lease is worth asking for again, or the intake ends. `pause` grows
    /// with each refusal while the queue has no consumer.
    async fn until_lease_seems_free(
        &self,
        tasks: &dyn Connection,
        announced: &mut Option<Instant>,
        pause: &mut Duration,
    ) -> Result<(), Fault> {
        let since = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep(POLL) => (),
                () = self.intake.cancelled() => return Ok(()),
            }
            let consumers = tasks.consumers(&self.inlet.queue).await?;
            if since.elapsed() >= poll_after(consumers, *pause) {
                let grown = (*pause * 2).min(POLL_REFUSED);
                *pause = if consumers == Some(0) { grown } else { POLL };
                return Ok(());
            }
            if announced.is_none_or(|announced| announced.elapsed() >= PRESENCE) {
                *announced = Some(Instant::now());
                self.instance.request_presence();
            }
        }
    }

    /// Begins to wait for the lease. A drain of the service binds the active instance: this one
    /// would not hear of its end.
    fn stand_by(&self, fault: &Fault) {
        self.ledger.drain(DrainedBy::Service, None);
        self.ledger.open();
        self.instance.link.up(LinkPhase::StandingBy);
        let (address, pending) = (self.transport.address(), self.ledger.pending());
        if self.instance.set_role(Role::Standby) == Some(Role::Active) {
            tracing::warn!(
                %fault,
                address,
                pending,
                "another instance has taken over, or the broker still holds the lease for the \
                 connection that was lost: this one finishes and delivers what it has accepted"
            );
        }
        tracing::info!(%fault, address, pending, "standing by");
    }
}

/// Returns how long after a refusal the lease is worth asking for again: a queue with a
/// consumer has a holder. Each refusal is an error in a broker's log.
fn poll_after(consumers: Option<u32>, pause: Duration) -> Duration {
    match consumers {
        None => POLL,
        Some(0) => pause,
        Some(_) => POLL_HELD,
    }
}

/// Answers messages to the holder of the lease until it is lost.
async fn answer_calls(mut calls: Calls, instance: &Instance) -> Fault {
    loop {
        match calls.next().await {
            Some(Ok(call)) => match wire::decode_to_lease_holder(&call.body) {
                ToLeaseHolder::Ping => instance.take_ping(),
                ToLeaseHolder::Welcome(welcome) => instance.take_welcome(welcome),
                ToLeaseHolder::Unknown(message) => instance.pass_by(&message),
            },
            Some(Err(fault)) => return fault,
            None => return Fault::Closed("the queue of the lease is closed".to_owned()),
        }
    }
}

fn disk_failure(error: &JournalError) -> Failure {
    Failure::new(Exit::Internal, error.to_string())
}

fn whole_ms(delay: Duration) -> Duration {
    Duration::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
