//! Where a broker is to be had, for each transport.

use crate::broker::{self, Vhost};
use std::sync::atomic::{AtomicU32, Ordering};

/// A broker of a test's own, empty at first. It goes with the test.
pub(super) trait Site: Send + Sync {
    /// One that nobody else uses.
    fn fresh() -> Self;

    /// Its address.
    fn url(&self) -> String;
}

/// A vhost of the RabbitMQ that all tests share.
pub(super) struct Amqp(Vhost<'static>);

impl Site for Amqp {
    fn fresh() -> Self {
        Self(broker::shared().vhost())
    }

    fn url(&self) -> String {
        self.0.url()
    }
}

/// A name that no other test of this process uses.
pub(super) struct Memory(u32);

impl Site for Memory {
    fn fresh() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }

    fn url(&self) -> String {
        format!("memory:conformance-{}", self.0)
    }
}
