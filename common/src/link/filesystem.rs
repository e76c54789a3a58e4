//! Spool folders on a local or shared disk, for where no broker is.
//!
//! Everything is below one root folder that all parties reach by path. A group
//! of messages is a file: written aside, synced, renamed into its queue, the
//! folder synced, and only then confirmed. A consumer claims a group by renaming
//! it, and removes it once all of it is settled. Locks (`flock`) tell the living
//! from the dead: a lease and a session last exactly as long as the process that
//! holds them, and what a dead session had claimed goes back to its queue.
//! `design/0007-filesystem.md` has the layout.
//!
//! It relies on three things of the file system: `rename` is atomic, `fsync` is
//! honoured, `flock` excludes. [`Transport::check`] tries them. Only this file
//! and those below it touch the folder.

mod blocking;
mod browser;
mod census;
mod check;
mod connection;
mod consumer;
mod disk;
mod group;
mod inlet;
mod names;
mod options;
mod outlet;
mod recovery;
mod root;
mod session;
mod sources;
mod topology;
mod wake;
mod writer;

use super::{Check, Connection, Fault, InvalidUrl, Terms, Transport};
use async_trait::async_trait;
use blocking::blocking;
use connection::FolderConnection;
use options::Options;
use root::Root;
use session::FolderSession;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// A root folder.
#[derive(Clone, Debug)]
pub struct Filesystem {
    options: Options,
    terms: Terms,
    /// Which spool was there last: only one that takes its place will do instead.
    spool: Arc<Mutex<Option<Uuid>>>,
}

impl Filesystem {
    /// The folder that a `file:///path?option=value` URL names.
    ///
    /// # Errors
    /// When the URL names a host or no absolute path, or an option is not known
    /// or has no such value.
    pub fn new(url: &url::Url, terms: Terms) -> Result<Self, InvalidUrl> {
        Ok(Self { options: Options::parse(url)?, terms, spool: Arc::default() })
    }
}

#[async_trait]
impl Transport for Filesystem {
    async fn prepare(&self, earlier: &[String]) -> Result<Option<(&'static str, String)>, Fault> {
        let options = self.options.clone();
        let earlier = earlier.iter().filter_map(|spool| spool.parse().ok()).collect();
        let create = move || Root::create(&options, earlier);
        let spool = blocking(self.terms.connect_timeout, create).await?;
        Ok(Some(("spool", spool.to_string())))
    }

    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, Fault> {
        let (options, terms, name) = (self.options.clone(), self.terms.clone(), name.to_owned());
        let last = Arc::clone(&self.spool);
        let opened = blocking(terms.connect_timeout, move || {
            let root = Root::open(&options)?;
            follow(&root, &mut last.lock().unwrap_or_else(PoisonError::into_inner))?;
            FolderSession::open(root, terms, &name)
        });
        Ok(Box::new(FolderConnection(Arc::new(opened.await?))))
    }

    async fn check(&self) -> Vec<Check> {
        let options = self.options.clone();
        let checked = blocking(self.terms.connect_timeout, move || Ok(check::all(&options)));
        checked.await.unwrap_or_else(|fault| vec![Check::faulty("the folder answers", fault)])
    }

    fn address(&self) -> String {
        format!("file://{}", self.options.root.display())
    }
}

/// Goes on in a spool that takes the place of the last one.
///
/// # Errors
/// When the spool is another one, and does not say so: the wrong file system may be
/// mounted.
fn follow(root: &Root, last: &mut Option<Uuid>) -> Result<(), Fault> {
    let path = root.path().display();
    match *last {
        Some(before) if before != root.spool && !root.replaces(before) => {
            return Err(Fault::Unreachable(format!(
                "{path} is the spool {}, and was {before} before: mount or restore the one that \
                 was there. If it was deleted, and the new one provisioned by a service with \
                 other records, start this program again, and carry the new endpoint.toml to each \
                 endpoint",
                root.spool,
            )));
        }
        Some(before) if before != root.spool => tracing::warn!(
            spool = %root.spool,
            %before,
            folder = %path,
            "the folder was provisioned anew in the place of one that is gone, with all that was \
             in it: going on in the new one. Tasks and results that were on their way are asked \
             for"
        ),
        Some(_) | None => {}
    }
    *last = Some(root.spool);
    Ok(())
}
