//! Offers what can be done on a connection to a folder, each piece of work on a thread that
//! may block.

use super::blocking::blocking;
use super::browser::{self, FolderBrowser};
use super::inlet::FolderInlet;
use super::outlet::FolderOutlet;
use super::session::FolderSession;
use super::topology;
use crate::link::{
    Check, Connection, Destination, Fault, Inlet, InletOptions, Outlet, QueueBrowser, QueueSight,
};
use crate::topology::Topology;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// How long the threads may take to end when a connection is closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// A [`Connection`] to a folder.
pub(super) struct FolderConnection(pub(super) Arc<FolderSession>);

#[async_trait]
impl Connection for FolderConnection {
    async fn declare(&self, topology: &Topology) -> Result<(), Fault> {
        let (session, topology) = (Arc::clone(&self.0), topology.clone());
        let declare = move || {
            session.is_open()?;
            topology::declare(&session.root, &topology)
        };
        blocking(self.0.terms.confirm_timeout, declare).await
    }

    async fn inlet(&self, options: &InletOptions) -> Result<Box<dyn Inlet>, Fault> {
        let (session, options) = (Arc::clone(&self.0), options.clone());
        let open = move || FolderInlet::open(&session, &options);
        Ok(Box::new(blocking(self.0.terms.confirm_timeout, open).await?))
    }

    async fn outlet(&self) -> Result<Box<dyn Outlet>, Fault> {
        let session = Arc::clone(&self.0);
        let open = move || FolderOutlet::open(&session);
        Ok(Box::new(blocking(self.0.terms.confirm_timeout, open).await?))
    }

    async fn remove_queue(&self, queue: &str) -> Result<(), Fault> {
        let (session, queue) = (Arc::clone(&self.0), queue.to_owned());
        let remove = move || {
            session.is_open()?;
            topology::remove(&session.root, &queue)
        };
        blocking(self.0.terms.confirm_timeout, remove).await
    }

    async fn rehearse(&self, inlet: &InletOptions, _: &Destination) -> Vec<Check> {
        let (session, inlet) = (Arc::clone(&self.0), inlet.clone());
        let queue = inlet.queue.clone();
        let has_queue = move || topology::check_queue(&session.root, &queue);
        let there = blocking(self.0.terms.confirm_timeout, has_queue).await;
        let mut checks = vec![judged("the queue of tasks is there", there)];
        if let Some(lease) = inlet.lease {
            let session = Arc::clone(&self.0);
            let free = move || session.lease_is_free(&lease);
            let free = blocking(self.0.terms.confirm_timeout, free).await;
            checks.push(judged("the lease is free", free));
        }
        checks
    }

    async fn waiting(&self, queue: &str) -> Result<u64, Fault> {
        browser::waiting(&self.0, queue).await
    }

    async fn look(&self, queue: &str, lease: &str) -> Result<QueueSight, Fault> {
        let (session, lease) = (Arc::clone(&self.0), lease.to_owned());
        let free = move || match session.lease_is_free(&lease) {
            Err(Fault::Locked(_)) => Ok(false),
            free => free.map(|()| true),
        };
        let waiting = browser::waiting(&self.0, queue).await?;
        let free = blocking(self.0.terms.confirm_timeout, free).await?;
        Ok(QueueSight { waiting, consumed: Some(!free) })
    }

    async fn browse(&self, queue: &str, lease: &str) -> Result<Box<dyn QueueBrowser>, Fault> {
        let session = Arc::clone(&self.0);
        let (queue, lease) = (queue.to_owned(), lease.to_owned());
        let open = move || FolderBrowser::open(&session, queue, lease);
        Ok(Box::new(blocking(self.0.terms.confirm_timeout, open).await?))
    }

    async fn close(&self) {
        self.0.end(Fault::Closed("this side closed it".to_owned()));
        let session = Arc::clone(&self.0);
        let ended = blocking(CLOSE_PATIENCE, move || {
            session.finish();
            Ok(())
        });
        if let Err(fault) = ended.await {
            tracing::warn!(%fault, "the connection to the folder is left as it is");
        }
    }
}

fn judged(what: &str, tried: Result<(), Fault>) -> Check {
    tried.map_or_else(|fault| Check::faulty(what, fault), |()| Check::passed(what))
}
