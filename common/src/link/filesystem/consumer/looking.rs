//! The part of a consumer's thread that serves a browser: one message at a time, each a claim of
//! its own, so that any of them can be removed by itself.

use super::{Consumer, Delivery, Tag};
use crate::link::filesystem::disk;
use std::io;
use tokio::sync::oneshot;

impl Consumer {
    /// Hands out the next message, if there is one.
    pub(super) fn look_at_next(
        &mut self,
        answer: oneshot::Sender<Option<Delivery>>,
    ) -> io::Result<()> {
        // What came since the last look counts as well.
        if !self.claim(1)? {
            self.sources.look()?;
            self.claim(1)?;
        }
        let next = self.pop();
        // It fails once the caller is gone; `stop` is set then.
        drop(answer.send(next));
        Ok(())
    }

    /// Removes one message for good.
    pub(super) fn remove(&mut self, tag: Tag, done: oneshot::Sender<()>) -> io::Result<()> {
        if let Some(settled) = self.unsettled.remove(&tag) {
            self.settle([settled].into_iter())?;
            disk::sync_folder(&self.claims)?;
        }
        // It fails if the caller has given up waiting.
        done.send(()).ok();
        Ok(())
    }
}
