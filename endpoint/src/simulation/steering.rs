//! The service in a run, as it steers its endpoint: cancels some of its tasks and marks that,
//! drains the endpoint and resumes it. Its own link is sound.

use super::oracle::name;
use super::plan::Mishap;
use super::process::ENDPOINT;
use super::service::{Service, place, place_in};
use clutch_common::link::{Fault, Message, Outlet};
use clutch_common::topology;
use clutch_common::wire::{self, Cancel, CancelMark, Drain, Resume, Steering};
use std::time::Duration;

/// How long a drain is left alone before no task may start, once nothing fails any more.
const OBEYED_WITHIN: Duration = Duration::from_secs(300);
/// How long it is watched that none does.
const WATCHED: Duration = Duration::from_secs(120);

/// The numbers of the orders of one service.
#[derive(Default)]
struct Numbers {
    /// The last one.
    last: u64,
    /// The number of the last cancel without a mark.
    unmarked: Option<u64>,
}

impl Numbers {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Service {
    /// Cancels, drains and resumes for as long as things go wrong; then shows that a drain holds,
    /// and leaves nothing in force.
    pub(super) async fn steer(&self) -> Result<(), Fault> {
        let connection = self.broker.connect("service/steering").await?;
        let mut outlet = connection.outlet().await?;
        let mut numbers = Numbers::default();
        while !self.world.faults_are_over() {
            tokio::time::sleep(self.world.millis(200..25_000)).await;
            self.cancel_some(outlet.as_mut(), &mut numbers).await?;
            if self.world.mishap(Mishap::Drained) {
                self.drain_for_a_while(outlet.as_mut(), &mut numbers).await?;
            }
            if self.world.flip() {
                self.mark(outlet.as_mut(), &mut numbers).await?;
            }
        }
        if self.world.plan.once_in(Mishap::Drained).is_some() {
            self.drain(outlet.as_mut(), &mut numbers).await?;
            tokio::time::sleep(OBEYED_WITHIN).await;
            self.world.note(format_args!("service: no task may start"));
            self.world.tell(|oracle| oracle.hold_still());
            tokio::time::sleep(WATCHED).await;
            self.resume(outlet.as_mut(), &mut numbers).await?;
        }
        self.mark(outlet.as_mut(), &mut numbers).await
    }

    /// Cancels some tasks, or none. The message may come twice.
    async fn cancel_some(
        &self,
        outlet: &mut dyn Outlet,
        numbers: &mut Numbers,
    ) -> Result<(), Fault> {
        let world = &self.world;
        if !world.mishap(Mishap::Cancelled) {
            return Ok(());
        }
        let all = world.within(0..6) == 0;
        let chosen = |_: &_| all || world.within(0..4) == 0;
        let (ended, attempts) = self.decide(|records| records.cancel(chosen));
        for attempt in ended {
            world.note(format_args!("service: cancels {}, which waits", name(attempt)));
            world.judge(|oracle| oracle.concludes(attempt));
            world.judge(|oracle| oracle.cancels(attempt));
        }
        if attempts.is_empty() {
            return Ok(());
        }
        let number = numbers.next();
        numbers.unmarked = Some(number);
        let order = Steering::Cancel(Cancel { number, attempts });
        let copies = if world.within(0..8) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            self.send_order(outlet, &order).await?;
        }
        Ok(())
    }

    async fn mark(&self, outlet: &mut dyn Outlet, numbers: &mut Numbers) -> Result<(), Fault> {
        let Some(up_to) = numbers.unmarked.take() else { return Ok(()) };
        self.world.note(format_args!("service: marks up to {up_to}"));
        self.world.tell(|oracle| oracle.orders.sends_mark(up_to));
        let body = wire::encode_mark(&CancelMark { up_to });
        place(outlet, Message { body, ..Message::default() }).await.map(drop)
    }

    /// Drains the endpoint, and cancels and marks some tasks meanwhile.
    async fn drain_for_a_while(
        &self,
        outlet: &mut dyn Outlet,
        numbers: &mut Numbers,
    ) -> Result<(), Fault> {
        for _ in 0..self.world.within(1..4) {
            self.drain(outlet, numbers).await?;
            tokio::time::sleep(self.world.millis(0..60_000)).await;
            self.cancel_some(outlet, numbers).await?;
            if self.world.flip() {
                self.mark(outlet, numbers).await?;
            }
        }
        self.resume(outlet, numbers).await
    }

    /// Drains the endpoint; what runs is stopped at once, or goes on.
    async fn drain(&self, outlet: &mut dyn Outlet, numbers: &mut Numbers) -> Result<(), Fault> {
        let deadline_ms = self.world.flip().then_some(1);
        let order = Steering::Drain(Drain { number: numbers.next(), deadline_ms });
        self.send_order(outlet, &order).await
    }

    async fn resume(&self, outlet: &mut dyn Outlet, numbers: &mut Numbers) -> Result<(), Fault> {
        let order = Steering::Resume(Resume { number: numbers.next() });
        self.send_order(outlet, &order).await
    }

    async fn send_order(&self, outlet: &mut dyn Outlet, order: &Steering) -> Result<(), Fault> {
        self.world.note(format_args!("service: sends {}", words(order)));
        self.world.tell(|oracle| oracle.orders.sends(order));
        let message = Message { body: order.encode(), ..Message::default() };
        place_in(outlet, topology::control_queue(ENDPOINT), message).await?;
        self.world.tell(|oracle| oracle.orders.has(order));
        Ok(())
    }
}

/// An order, in a trace.
pub(super) fn words(order: &Steering) -> String {
    match order {
        Steering::Cancel(cancel) => {
            let names: Vec<String> = cancel.attempts.iter().map(|one| name(*one)).collect();
            format!("cancel {} of {}", cancel.number, names.join(" "))
        }
        Steering::Drain(drain) => format!("drain {} until {:?}", drain.number, drain.deadline_ms),
        Steering::Resume(resume) => format!("resume {}", resume.number),
        Steering::Follow(_) | Steering::Report(_) | Steering::Urgent(_) | Steering::Post(_) => {
            "a request".to_owned()
        }
    }
}
