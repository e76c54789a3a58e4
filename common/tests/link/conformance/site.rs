//! Where a broker is to be had, for each transport.

use crate::broker;
use clutch_common::link::{Terms, transport};
use clutch_tests::broker::Vhost;
use std::sync::atomic::{AtomicU32, Ordering};

/// A broker of a test's own, empty at first. It goes with the test.
pub(super) trait Site: Send + Sync {
    /// A broker that no other test uses.
    fn fresh() -> Self;

    /// Its address.
    fn url(&self) -> String;
}

/// A vhost of the RabbitMQ that all tests share.
pub(super) struct Amqp(Vhost);

impl Site for Amqp {
    fn fresh() -> Self {
        Self(broker::vhost())
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

/// A spool folder.
pub(super) struct Filesystem(tempfile::TempDir);

impl Site for Filesystem {
    fn fresh() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        let transport = transport(&site.url(), &Terms::default()).unwrap();
        // A runtime cannot be waited for on one of its own threads.
        let prepared = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.unwrap().block_on(transport.prepare(&[]))
        });
        prepared.join().unwrap().unwrap();
        site
    }

    fn url(&self) -> String {
        format!("file://{}/spool", self.0.path().display())
    }
}
