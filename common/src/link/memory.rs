//! A broker inside this process: `memory:` or `memory:NAME`.
//!
//! Every transport of one name meets the same broker, which lasts as long as the
//! process; no other process reaches it, and nothing is written to disk. It reads
//! no clock and starts no thread or task, so that a seeded run on one thread is
//! the same each time. All rules are in `hub`; this file, `inlet`, `outlet` and
//! `browser` only lock it and wait for it to change.

mod browser;
mod hub;
mod inlet;
mod outlet;
mod queue;

use super::{
    Connection, Fault, Inlet, InletOptions, InvalidUrl, Outlet, QueueBrowser, QueueSight, Transport,
};
use crate::topology::Topology;
use async_trait::async_trait;
use hub::{ConnectionId, Hub};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The brokers of this process.
static BROKERS: LazyLock<Mutex<BTreeMap<String, Arc<Broker>>>> = LazyLock::new(Mutex::default);

/// The broker of a name.
pub struct Memory {
    name: String,
    broker: Arc<Broker>,
}

impl Memory {
    /// The broker that `url` names, an empty one when it is the first to do so.
    ///
    /// # Errors
    /// When the URL holds more than the scheme and a name.
    pub fn new(url: &url::Url) -> Result<Self, InvalidUrl> {
        if url.has_authority() || url.query().is_some() || url.fragment().is_some() {
            let reason = "memory: takes a name and nothing else, as in memory:NAME";
            return Err(InvalidUrl::Unreadable(reason.to_owned()));
        }
        let name = url.path().to_owned();
        let mut brokers = BROKERS.lock().unwrap_or_else(PoisonError::into_inner);
        let broker = Arc::clone(brokers.entry(name.clone()).or_default());
        Ok(Self { name, broker })
    }
}

#[async_trait]
impl Transport for Memory {
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, Fault> {
        let broker = Arc::clone(&self.broker);
        let id = broker.hub().connect(name);
        Ok(Box::new(MemoryConnection(Arc::new(MemorySession { broker, id }))))
    }

    fn address(&self) -> String {
        format!("memory:{}", self.name)
    }
}

/// A hub, and how to learn that it changed.
#[derive(Default)]
struct Broker {
    hub: Mutex<Hub>,
    changed: Notify,
}

impl Broker {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that may end the wait of a caller.
    fn change<T>(&self, act: impl FnOnce(&mut Hub) -> T) -> T {
        let outcome = act(&mut self.hub());
        self.changed.notify_waiters();
        outcome
    }

    /// Waits until `look` finds something. Cancelling the wait loses nothing:
    /// what it finds is returned without another wait.
    async fn until<T>(&self, mut look: impl FnMut(&mut Hub) -> Option<T>) -> T {
        loop {
            // Hears of every change from here on, before it is first polled.
            let changed = self.changed.notified();
            let found = look(&mut self.hub());
            if let Some(found) = found {
                return found;
            }
            changed.await;
        }
    }
}

/// The part that an inlet, an outlet and their connection share. The connection lives
/// until it is closed or the last of them is dropped.
struct MemorySession {
    broker: Arc<Broker>,
    id: ConnectionId,
}

impl MemorySession {
    fn close(&self) {
        self.broker.change(|hub| hub.disconnect(self.id));
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.close();
    }
}

struct MemoryConnection(Arc<MemorySession>);

#[async_trait]
impl Connection for MemoryConnection {
    async fn declare(&self, topology: &Topology) -> Result<(), Fault> {
        self.0.broker.hub().declare(self.0.id, topology)
    }

    async fn remove_queue(&self, queue: &str) -> Result<(), Fault> {
        self.0.broker.hub().remove_queue(self.0.id, queue)
    }

    async fn waiting(&self, queue: &str) -> Result<u64, Fault> {
        self.0.broker.hub().waiting_in(self.0.id, queue)
    }

    async fn look(&self, queue: &str, _lease: &str) -> Result<QueueSight, Fault> {
        let hub = self.0.broker.hub();
        let waiting = hub.waiting_in(self.0.id, queue)?;
        Ok(QueueSight { waiting, consumed: Some(hub.is_consumed(queue)) })
    }

    async fn inlet(&self, options: &InletOptions) -> Result<Box<dyn Inlet>, Fault> {
        Ok(Box::new(inlet::MemoryInlet::open(&self.0, options)?))
    }

    async fn outlet(&self) -> Result<Box<dyn Outlet>, Fault> {
        Ok(Box::new(outlet::MemoryOutlet::open(&self.0)?))
    }

    async fn browse(&self, queue: &str, lease: &str) -> Result<Box<dyn QueueBrowser>, Fault> {
        Ok(Box::new(browser::MemoryBrowser::open(&self.0, queue, lease)?))
    }

    async fn close(&self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use crate::link::{InvalidUrl, Terms, transport};

    #[test]
    fn an_address_is_the_scheme_and_the_name() {
        for url in ["memory:", "memory:a", "memory:a/b.c"] {
            assert_eq!(transport(url, &Terms::default()).unwrap().address(), url);
        }
    }

    #[test]
    fn more_than_a_name_is_an_error() {
        for url in ["memory://host", "memory:///path", "memory:a?b=c", "memory:a#b"] {
            let refused = transport(url, &Terms::default()).err().unwrap();
            assert!(matches!(refused, InvalidUrl::Unreadable(_)), "{url}");
        }
    }
}
