//! Looks through one queue of a folder, by a consumer's thread that delivers one
//! message when it is asked for one.

use super::blocking::blocking;
use super::consumer::ConsumerCommand;
use super::inlet::FolderInlet;
use super::names::{FileName, is_member};
use super::session::FolderSession;
use super::{disk, group, topology};
use crate::link::{Fault, HeldMessage, InletOptions, QueueBrowser, Tag};
use async_trait::async_trait;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use tokio::time::timeout;

/// A [`QueueBrowser`] of a queue in a folder.
pub(super) struct FolderBrowser {
    session: Arc<FolderSession>,
    queue: String,
    inlet: FolderInlet,
}

impl FolderBrowser {
    /// Takes the lease, and takes over from the dead.
    pub(super) fn open(
        session: &Arc<FolderSession>,
        queue: String,
        lease: String,
    ) -> Result<Self, Fault> {
        let options = InletOptions {
            queue: queue.clone(),
            prefetch: 1,
            lease: Some(lease),
            one_by_one: false,
        };
        let inlet = FolderInlet::on_demand(session, &options)?;
        Ok(Self { session: Arc::clone(session), queue, inlet })
    }

    /// Waits for the answer of the thread, as long as an operation may take.
    async fn answer<T>(&self, asked: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let patience = self.session.terms.confirm_timeout;
        timeout(patience, asked).await.unwrap_or(Err(Fault::ConfirmTimeout(patience)))
    }
}

#[async_trait]
impl QueueBrowser for FolderBrowser {
    async fn next(&mut self) -> Result<Option<HeldMessage>, Fault> {
        let next = self.answer(self.inlet.ask(ConsumerCommand::Look)).await?;
        Ok(next.map(|delivery| HeldMessage {
            tag: delivery.tag,
            message: delivery.message,
            extra: serde_json::Map::new(),
        }))
    }

    async fn remove(&mut self, tag: Tag) -> Result<(), Fault> {
        self.answer(self.inlet.ask(|done| ConsumerCommand::Remove(tag, done))).await
    }

    async fn waiting(&mut self) -> Result<u64, Fault> {
        waiting(&self.session, &self.queue).await
    }
}

/// How many messages of a queue no consumer has claimed.
pub(super) async fn waiting(session: &Arc<FolderSession>, queue: &str) -> Result<u64, Fault> {
    let patience = session.terms.confirm_timeout;
    let (session, queue) = (Arc::clone(session), queue.to_owned());
    let count = move || {
        session.is_open()?;
        topology::check_queue(&session.root, &queue)?;
        let ready = session.root.ready(&queue);
        count(&ready).map_err(|error| session.root.fault("counting what is in", &ready, &error))
    };
    blocking(patience, count).await
}

/// Counts the messages that no consumer has claimed, by what their files say.
fn count(ready: &Path) -> io::Result<u64> {
    let mut messages = 0;
    for producer in disk::names(ready)?.iter().filter(|name| is_member(name)) {
        let folder = ready.join(producer);
        for name in disk::names(&folder)? {
            let Some(entry) = FileName::parse(&name) else { continue };
            let there = match File::open(folder.join(&name)) {
                Ok(file) => group::count(file)?,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            messages += entry.to.unwrap_or(there).saturating_sub(entry.from) as u64;
        }
    }
    Ok(messages)
}
