//! The part of a consumer's thread that handles damaged or missing files: it delivers what
//! stands for them, and sets aside what cannot be read. It never reads what cannot be
//! one of ours.

use super::Consumer;
use crate::link::filesystem::census;
use crate::link::filesystem::sources::ClaimedFile;
use crate::link::{Delivery, Message, Tag};
use crate::text::counted::counted;
use std::fs;
use std::io::{self, ErrorKind};

/// Where a delivery is from that no group has: they count from 1.
const NO_GROUP: (u64, usize) = (0, 0);
impl Consumer {
    /// Whether the sources have found groups gone that no consumer claimed.
    pub(super) fn miss(&mut self) -> Option<Delivery> {
        let missing = Some(self.sources.missing()).filter(|missing| *missing > 0)?;
        tracing::error!(
            queue = self.queue,
            missing,
            "files that were in the queue are gone, with the messages in them: did something \
             other than Clutch remove them?"
        );
        if let Err(error) = census::note(&self.session.root, &self.queue, missing) {
            tracing::warn!(%error, "that files are gone is not noted for those who look later");
        }
        self.tag += 1;
        let tag = Tag(self.tag);
        self.unsettled.insert(tag, NO_GROUP);
        let damage = Some(format!("{} of messages missing", counted(missing, "file")));
        Some(Delivery {
            tag,
            redelivered: false,
            message: Message { damage, ..Message::default() },
        })
    }

    /// Passes over that a claimed file is gone, while the folder for claims is there: what
    /// was in it is in memory, and delivered from there.
    pub(super) fn fine_if_taken(&self, done: io::Result<()>) -> io::Result<()> {
        match done {
            Err(error) if error.kind() == ErrorKind::NotFound && self.claims.is_dir() => {
                tracing::error!(
                    queue = self.queue,
                    "a file that this consumer had claimed is gone: what was in it was delivered \
                     all the same. Did something other than Clutch remove it?"
                );
                Ok(())
            }
            done => done,
        }
    }

    /// Sets a file aside that can never be read.
    pub(super) fn quarantine(&self, claim: &ClaimedFile, reason: &str) -> io::Result<()> {
        let name = claim.entry.claim_name(&claim.producer);
        let to = self.session.root.quarantine().join(&name);
        self.fine_if_taken(fs::rename(claim.path(&self.claims), &to))?;
        tracing::error!(
            queue = self.queue,
            file = %to.display(),
            reason,
            "a file in the queue cannot be read: it is set aside and not delivered"
        );
        Ok(())
    }
}
