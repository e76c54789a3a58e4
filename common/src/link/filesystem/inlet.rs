//! The near end of a consumer: takes what its thread delivers, and tells it
//! what is settled.

use super::consumer::{Consumer, ConsumerCommand};
use super::disk;
use super::session::FolderSession;
use super::sources::Sources;
use super::topology::Cached;
use super::wake::{WakeListener, Waker};
use super::{recovery, topology};
use crate::link::{Delivery, Fault, Inlet, InletOptions, Tag};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot, watch};

/// How many requests may wait for the thread.
const COMMANDS: usize = 256;

/// An [`Inlet`] of a queue in a folder.
pub(super) struct FolderInlet {
    deliveries: mpsc::Receiver<Delivery>,
    commands: mpsc::Sender<ConsumerCommand>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    failed: watch::Receiver<Option<Fault>>,
    ended: watch::Receiver<Option<Fault>>,
}

impl FolderInlet {
    /// Takes the lease, locks the queue, takes over from the dead, and starts
    /// the thread.
    pub(super) fn open(
        session: &Arc<FolderSession>,
        options: &InletOptions,
    ) -> Result<Self, Fault> {
        Self::start(session, options, false)
    }

    /// As [`FolderInlet::open`], for a thread that delivers only what it is asked
    /// for.
    pub(super) fn on_demand(
        session: &Arc<FolderSession>,
        options: &InletOptions,
    ) -> Result<Self, Fault> {
        Self::start(session, options, true)
    }

    fn start(
        session: &Arc<FolderSession>,
        options: &InletOptions,
        on_demand: bool,
    ) -> Result<Self, Fault> {
        let root = &session.root;
        session.is_open()?;
        root.is_there()?;
        let mut topology: Cached = topology::Cached::default();
        let queue = &options.queue;
        if !topology.get(root)?.has_queue(queue) {
            return Err(Fault::Missing(format!("no queue '{queue}' in {}", root.path().display())));
        }
        if let Some(lease) = &options.lease {
            session.lease(lease)?;
        }
        let exclusive = options.lease.is_some();
        let lock = root.queue(queue).join("consumer");
        let lock = session.take(&lock, &format!("the queue '{queue}'"), exclusive)?;
        let consumer = session.member();
        let claims = root.claimed(queue).join(&consumer);
        let failed =
            |error: std::io::Error| root.fault("consuming from", &root.queue(queue), &error);
        disk::make_folder(&claims, root.access()).map_err(failed)?;
        recovery::claims(session, queue).map_err(failed)?;
        recovery::sweep(session, queue).map_err(failed)?;
        let (listener, waker) = WakeListener::new(&root.ready(queue)).map_err(failed)?;
        let mut sources = Sources::new(root.ready(queue), claims.clone(), on_demand || !exclusive);
        sources.look().map_err(failed)?;
        let (commands, mut received) = mpsc::channel(COMMANDS);
        // It has room for all that may be unsettled: the thread never waits.
        let (deliver, deliveries) = mpsc::channel(usize::from(options.prefetch.max(1)));
        let (tell, failed) = watch::channel(None);
        let consumer = Consumer::new(session, options, topology, claims, sources, listener, lock);
        let consumer = if on_demand { consumer.on_demand() } else { consumer };
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, ring) = (Arc::clone(&stop), waker.clone());
        let end = move || {
            stopped.store(true, Ordering::Release);
            ring.wake();
        };
        let stopped = Arc::clone(&stop);
        session.work("consume", end, move || {
            if let Err(fault) = consumer.run(&mut received, &stopped, &deliver) {
                tell.send_replace(Some(fault));
            }
        })?;
        Ok(Self { deliveries, commands, stop, waker, failed, ended: session.watch() })
    }

    fn alive(&self) -> Result<(), Fault> {
        let failed = self.failed.borrow().clone();
        failed.or_else(|| self.ended.borrow().clone()).map_or(Ok(()), Err)
    }

    async fn tell(&self, command: ConsumerCommand) -> Result<(), Fault> {
        self.alive()?;
        let told = self.commands.send(command).await;
        self.waker.wake();
        told.map_err(|_| self.why_ended())
    }

    /// Has the thread do something that it tells the end of.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> ConsumerCommand,
    ) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        self.tell(command(answer)).await?;
        answered.await.map_err(|_| self.why_ended())
    }

    fn why_ended(&self) -> Fault {
        let unknown = || Fault::Closed("the thread that reads has ended".to_owned());
        self.alive().err().unwrap_or_else(unknown)
    }
}

impl Drop for FolderInlet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[async_trait]
impl Inlet for FolderInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, Fault> {
        let mut deliveries = Vec::new();
        loop {
            self.alive()?;
            tokio::select! {
                biased;
                _ = self.ended.changed() => {}
                changed = self.failed.changed() => if changed.is_err() {
                    return Err(self.why_ended());
                },
                count = self.deliveries.recv_many(&mut deliveries, max.max(1)) => {
                    if count == 0 {
                        return Err(self.why_ended());
                    }
                    return Ok(deliveries);
                }
            }
        }
    }

    async fn lost(&mut self) -> Fault {
        loop {
            if let Err(fault) = self.alive() {
                return fault;
            }
            tokio::select! {
                _ = self.ended.changed() => {}
                changed = self.failed.changed() => if changed.is_err() {
                    return self.why_ended();
                }
            }
        }
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), Fault> {
        self.tell(ConsumerCommand::Acknowledge(up_to)).await
    }

    async fn acknowledge_one(&mut self, tag: Tag) -> Result<(), Fault> {
        self.tell(ConsumerCommand::AcknowledgeOne(tag)).await
    }

    async fn dead_letter(&mut self, tag: Tag) -> Result<(), Fault> {
        self.tell(ConsumerCommand::Refuse(BTreeSet::from([tag]))).await
    }

    async fn secured(&mut self) -> Result<(), Fault> {
        self.ask(ConsumerCommand::Secure).await
    }
}
