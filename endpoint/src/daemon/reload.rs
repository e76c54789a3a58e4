//! Reads the configuration again while the daemon runs, and takes what can be taken.
//!
//! Promises that a file which cannot be read, or is wrong, changes nothing.

use super::shutdown::Shutdown;
use crate::config::{Config, Overrides};
use crate::execution::engine::SlotCount;
use crate::link::instance::Instance;
use crate::pending::Limits;
use crate::pending::ledger::Ledger;
use crate::system::descriptors;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The file.
    pub(crate) path: PathBuf,
    /// The settings of the command line.
    pub(crate) overrides: Overrides,
}

/// The parts that take a new setting while they run.
pub(super) struct Reloading {
    pub(super) source: Source,
    /// The configuration that the daemon runs by.
    pub(super) config: Config,
    pub(super) ledger: Arc<Ledger>,
    pub(super) instance: Arc<Instance>,
    pub(super) slots: SlotCount,
}

impl Reloading {
    /// Reads the file again, takes what can be taken, and says what needs a restart.
    pub(super) async fn reload(&mut self, shutdown: &mut Shutdown) {
        let Source { path, overrides } = self.source.clone();
        let loaded = tokio::task::spawn_blocking(move || Config::load(&path, overrides)).await;
        let new = match loaded.map_err(|error| error.to_string()) {
            Ok(Ok(new)) => new,
            Ok(Err(failure)) => return refuse(&failure.message),
            Err(error) => return refuse(&error),
        };
        let found = self.config.difference(&new);
        let (taken, restart) = (found.taken.join(", "), found.restart.join(", "));
        self.config.take(&new);
        if found.taken.contains(&"engine.slots") {
            let slots = descriptors::provide(new.slots(), self.config.functions.len());
            self.slots.set(slots);
            self.instance.has_slots(slots);
        }
        if found.taken.contains(&"worker.topics") {
            let offer = self.config.offer();
            self.instance.has_topics(offer.told_topics());
            self.ledger.set_offer(offer);
        }
        self.ledger.set_limits(self.config.limits());
        shutdown.set_deadline(self.config.shutdown.deadline);
        match (taken.as_str(), restart.as_str()) {
            ("", "") => tracing::info!("read the configuration again: nothing in it has changed"),
            (_, "") => tracing::info!(taken, "read the configuration again, and took what changed"),
            _ => tracing::warn!(
                taken,
                restart,
                "read the configuration again; what is named under `restart` has changed too, and \
                 counts from the next start"
            ),
        }
    }
}

fn refuse(why: &str) {
    tracing::error!(
        why,
        "the configuration was to be read again and cannot be used: nothing changes. Mend the file \
         and send HUP again; `clutch-endpoint check` says what is wrong"
    );
}

impl Config {
    /// The limits of pending work.
    pub(super) fn limits(&self) -> Limits {
        Limits { bounds: self.inbox.bounds(), poison_after: self.engine.poison_after }
    }
}
