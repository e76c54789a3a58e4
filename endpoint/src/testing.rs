//! Fakes for unit tests: a ledger on a disk of its own, and a link with the test as its
//! broker.

use crate::pending::Limits;
use crate::pending::inbox::Bounds;
use crate::pending::ledger::Ledger;
use crate::storage::journal::{self, Finished, JournalConfig, OutSeq};
use crate::system::troubles::Troubles;
use async_trait::async_trait;
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::link::{
    Delivery, Destination, Fault, Inlet, Message, Outlet, Settlement, Tag, Ticket,
};
use clutch_common::task::result::TaskResult;
use clutch_common::task::{Process, Task};
use clutch_common::wire::{self, ToService};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};

/// A ledger on an empty disk.
pub(crate) fn ledger(max_tasks: usize) -> (TempDir, Arc<Ledger>) {
    let disk = tempfile::tempdir().unwrap();
    let ledger = ledger_on(&disk, max_tasks);
    (disk, ledger)
}

/// A ledger on a disk that may hold something.
pub(crate) fn ledger_on(disk: &TempDir, max_tasks: usize) -> Arc<Ledger> {
    let endpoint_id = EndpointId(uuid::Uuid::nil());
    let config = JournalConfig {
        path: disk.path().join("state"),
        endpoint_id,
        reserve_bytes: 0,
        seen_max: 1000,
        troubles: Troubles::default(),
    };
    let (journal, recovered) = journal::open(config).unwrap();
    let bounds = Bounds { max_tasks, max_bytes: 1 << 20 };
    Arc::new(Ledger::new(journal, recovered, endpoint_id, Limits { bounds, poison_after: 3 }))
}

/// A task that can be run.
pub(crate) fn task() -> Task {
    Task::new(TaskId::new(), Process { argv: vec!["true".into()], ..Process::default() })
}

/// The results on disk that wait for delivery, in order.
pub(crate) async fn results_on_disk(ledger: &Ledger) -> Vec<TaskResult> {
    let records = ledger.backlog(OutSeq(0), 10_000, usize::MAX).await.unwrap();
    records.iter().map(|(_, finished)| decode(finished)).collect()
}

fn decode(finished: &Finished) -> TaskResult {
    wire::decode_result(&finished.bytes).unwrap()
}

/// A message with these tasks in it.
pub(crate) fn message(tasks: &[&Task]) -> Message {
    Message { body: wire::encode_tasks(tasks), ..Message::default() }
}

/// A settlement that an inlet was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// All up to this tag were acknowledged.
    Acknowledged(u64),
    /// This one alone was acknowledged.
    AcknowledgedOne(u64),
    /// This one was refused.
    DeadLettered(u64),
    /// The acknowledgements before are to be confirmed.
    Secured,
}

/// The subscriber's end of a link.
pub(crate) struct FakeInlet {
    deliveries: mpsc::Receiver<Message>,
    settled: mpsc::Sender<Settled>,
    secured: mpsc::Receiver<()>,
    watched: Arc<Notify>,
    next_tag: u64,
}

/// The broker's end of it.
pub(crate) struct InletBroker {
    /// Delivers messages; dropping it closes the link.
    pub(crate) deliver: mpsc::Sender<Message>,
    /// The settlements.
    pub(crate) settled: mpsc::Receiver<Settled>,
    /// Confirms acknowledgements, once for each [`Settled::Secured`];
    /// dropping it loses the link meanwhile.
    pub(crate) secure: mpsc::Sender<()>,
    /// Notified while the link is only watched for its loss, and nothing is read.
    pub(crate) watched: Arc<Notify>,
}

impl InletBroker {
    /// How many messages are delivered and not read.
    pub(crate) fn unread(&self) -> usize {
        self.deliver.max_capacity() - self.deliver.capacity()
    }
}

/// A link to consume from.
pub(crate) fn inlet() -> (FakeInlet, InletBroker) {
    let (deliver, deliveries) = mpsc::channel(1000);
    let (settled_in, settled) = mpsc::channel(1000);
    let (secure, secured) = mpsc::channel(1000);
    let watched = Arc::new(Notify::new());
    let inlet = FakeInlet {
        deliveries,
        settled: settled_in,
        secured,
        watched: Arc::clone(&watched),
        next_tag: 1,
    };
    (inlet, InletBroker { deliver, settled, secure, watched })
}

#[async_trait]
impl Inlet for FakeInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, Fault> {
        let mut messages = Vec::new();
        if self.deliveries.recv_many(&mut messages, max).await == 0 {
            return Err(Fault::Closed("test".into()));
        }
        let delivered = messages.into_iter().map(|message| {
            let tag = Tag(self.next_tag);
            self.next_tag += 1;
            Delivery { tag, redelivered: false, message }
        });
        Ok(delivered.collect())
    }

    async fn lost(&mut self) -> Fault {
        while !self.deliveries.is_closed() {
            self.watched.notify_one();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Fault::Closed("test".into())
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), Fault> {
        self.settled.send(Settled::Acknowledged(up_to.0)).await.unwrap();
        Ok(())
    }

    async fn acknowledge_one(&mut self, tag: Tag) -> Result<(), Fault> {
        self.settled.send(Settled::AcknowledgedOne(tag.0)).await.unwrap();
        Ok(())
    }

    async fn dead_letter(&mut self, tag: Tag) -> Result<(), Fault> {
        self.settled.send(Settled::DeadLettered(tag.0)).await.unwrap();
        Ok(())
    }

    async fn secured(&mut self) -> Result<(), Fault> {
        self.settled.send(Settled::Secured).await.unwrap();
        self.secured.recv().await.ok_or(Fault::Closed("test".into()))
    }
}

/// The publisher's end of a link; the broker side is a script of settlements,
/// and confirms everything once the script has run out.
pub(crate) struct FakeOutlet {
    script: VecDeque<Settlement>,
    open: VecDeque<Ticket>,
    next_ticket: u64,
    published: mpsc::Sender<ToService>,
    /// The most bytes that it is known to take.
    limit: usize,
}

/// A link to publish on, and what is published on it.
pub(crate) fn outlet(
    script: impl IntoIterator<Item = Settlement>,
) -> (FakeOutlet, mpsc::Receiver<ToService>) {
    let (published, messages) = mpsc::channel(1000);
    let script = script.into_iter().collect();
    let (open, limit) = (VecDeque::new(), wire::MAX_BODY);
    (FakeOutlet { script, open, next_ticket: 0, published, limit }, messages)
}

#[async_trait]
impl Outlet for FakeOutlet {
    async fn publish(&mut self, _to: &Destination, message: Message) -> Result<Ticket, Fault> {
        self.published.try_send(wire::decode_to_service(&message.body)).unwrap();
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.open.push_back(ticket);
        Ok(ticket)
    }

    async fn settled(&mut self) -> Result<Vec<(Ticket, Settlement)>, Fault> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        match self.open.pop_front() {
            None => std::future::pending().await,
            Some(ticket) => {
                let settlement = self.script.pop_front().unwrap_or(Settlement::Confirmed);
                if let Settlement::TooLarge(limit) = settlement {
                    self.limit = limit;
                }
                Ok(vec![(ticket, settlement)])
            }
        }
    }

    fn open(&self) -> usize {
        self.open.len()
    }

    fn limit(&self) -> usize {
        self.limit
    }
}
