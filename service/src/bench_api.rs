//! The store as single operations, for the microbenchmarks: each is one transaction, as in
//! `serve`. Touches the folder it is given. Not part of the crate's public interface.

use crate::model::{Destination, TaskSpec};
use crate::state_folder::StateFolder;
use crate::store::{Batch, Chunk, Handing, Registration, Store};
use anyhow::{Context as _, Result, ensure};
use clutch_common::id::{Attempt, EndpointId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::TaskResult;
use std::path::Path;
use std::sync::Arc;

/// The records of one endpoint.
pub struct Records {
    store: Store,
    endpoint: EndpointId,
    submissions: u64,
}

impl Records {
    /// Empty ones in a folder.
    ///
    /// # Errors
    /// When they cannot be made.
    pub async fn open(folder: &Path, endpoint: EndpointId) -> Result<Self> {
        let folder = StateFolder::new(folder);
        folder.prepare()?;
        let store = Store::open(&folder).await?;
        let wanted = Registration {
            name: "measured".to_owned(),
            id: Some(endpoint),
            queue: None,
            lost_after: None,
            now_ms: now_ms(),
        };
        store.register(wanted).await?;
        Ok(Self { store, endpoint, submissions: 0 })
    }

    /// Records a submission of so many tasks that have this command line.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(&mut self, argv: &[String], count: usize) -> Result<Vec<Attempt>> {
        let spec: TaskSpec = serde_json::from_value(serde_json::json!({ "argv": argv }))?;
        self.submissions += 1;
        let chunk = Chunk {
            to: Destination::Endpoint(self.endpoint.to_string()),
            key: self.submissions.to_string(),
            total: count as u64,
            first: 0,
            specs: vec![spec; count],
            handing: Handing::New,
            retry: None,
            due: None,
            parent: None,
            now_ms: now_ms(),
        };
        let begun = self.store.record_submission(chunk).await?;
        let begun = begun.context("the endpoint is not registered")?.tasks;
        ensure!(begun.iter().all(|task| task.new), "not recorded");
        Ok(begun.iter().map(|task| task.task.attempt()).collect())
    }

    /// Records results, all of them the first of their attempts.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(&self, results: Vec<TaskResult>) -> Result<()> {
        let count = results.len() as u64;
        let batch = Arc::new(Batch { results, ..Batch::default() });
        let tally = self.store.record(batch, now_ms(), |_| ()).await?;
        self.store.durable().await?;
        ensure!(tally.recorded == count, "recorded otherwise: {tally:?}");
        Ok(())
    }
}
