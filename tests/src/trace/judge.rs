//! Puts calls, connections and disk together, and says which acknowledgements
//! left too early. Pure.

use super::amqp::{Acknowledged, Connection};
use super::calls::{Call, Calls};
use super::disk::{Attempt, Disk, Kind, Spooled};
use super::{Breach, Missing, Proof};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Reads a trace line by line.
#[derive(Debug)]
pub(super) struct Judge {
    calls: Calls,
    connections: HashMap<String, Connection>,
    disk: Disk,
    /// The attempts that were acknowledged at least once.
    settled: HashSet<Attempt>,
    store: String,
    spool: PathBuf,
    proof: Proof,
}

impl Judge {
    /// Of an endpoint with this state folder, as the system names it.
    pub(super) fn new(state: &Path) -> Self {
        Self {
            calls: Calls::default(),
            connections: HashMap::new(),
            disk: Disk::default(),
            settled: HashSet::new(),
            store: state.join("queue/db").display().to_string(),
            spool: state.join("spool"),
            proof: Proof::default(),
        }
    }

    /// Takes in a line.
    pub(super) fn push(&mut self, line: &[u8]) -> Result<()> {
        match self.calls.push(line)? {
            Some(call) => self.take(&call).with_context(|| format!("line {}", call.ended)),
            None => Ok(()),
        }
    }

    /// The verdict.
    pub(super) fn proof(self) -> Proof {
        let deliveries = self.connections.values().map(|connection| connection.deliveries).sum();
        Proof { deliveries, syncs: self.disk.syncs, ..self.proof }
    }

    fn take(&mut self, call: &Call) -> Result<()> {
        if call.result < 0 {
            return Ok(());
        }
        let connection = call.target.starts_with("TCP");
        match call.name.as_str() {
            "write" | "writev" | "sendto" | "sendmsg" if connection => self.sent(call),
            "recvfrom" | "recvmsg" if connection => self.received(call),
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                self.written(call);
                Ok(())
            }
            "fsync" | "fdatasync" => {
                self.synced(call);
                Ok(())
            }
            "rename" | "renameat" | "renameat2" => {
                self.renamed(call);
                Ok(())
            }
            "unlink" | "unlinkat" => {
                if let Some(name) = call.strings.last().and_then(|path| self.in_spool(path)) {
                    self.disk.removed(&name);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn sent(&mut self, call: &Call) -> Result<()> {
        let connection = self.connections.entry(call.target.clone()).or_default();
        for acknowledged in connection.sent(&call.data(), call.begun)? {
            self.acknowledged(&acknowledged);
        }
        Ok(())
    }

    fn received(&mut self, call: &Call) -> Result<()> {
        let connection = self.connections.entry(call.target.clone()).or_default();
        for body in connection.received(&call.data(), call.ended)? {
            for attempt in attempts(&body) {
                self.disk.expect(attempt);
            }
        }
        Ok(())
    }

    fn written(&mut self, call: &Call) {
        if call.target == self.store {
            self.disk.stored(&call.data(), call.begun, call.ended);
        } else if let Some(name) = self.in_spool(call.target.as_bytes()) {
            self.disk.spooled(&name, &call.data(), call.ended);
        }
    }

    fn synced(&mut self, call: &Call) {
        if call.target == self.store {
            self.disk.store_synced(call.begun, call.ended);
        } else if Path::new(&call.target) == self.spool {
            self.disk.folder_synced(call.begun, call.ended);
        } else if let Some(name) = self.in_spool(call.target.as_bytes()) {
            self.disk.file_synced(&name, call.begun, call.ended);
        }
    }

    fn renamed(&mut self, call: &Call) {
        if let [from, to] = &call.strings[..]
            && let (Some(from), Some(to)) = (self.in_spool(from), self.in_spool(to))
        {
            self.disk.renamed(&from, &to, call.begun, call.ended);
        }
    }

    /// The name of a file of the spool.
    fn in_spool(&self, path: &[u8]) -> Option<String> {
        let path = Path::new(std::str::from_utf8(path).ok()?);
        let name = path.strip_prefix(&self.spool).ok()?.to_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn acknowledged(&mut self, acknowledged: &Acknowledged) {
        let mut any = false;
        for attempt in acknowledged.bodies.iter().flat_map(|body| attempts(body)) {
            any = true;
            // Again after a lost link: then it was durable the first time.
            if self.settled.insert(attempt) {
                self.check(attempt, acknowledged.at);
            }
        }
        self.proof.tasks = self.settled.len();
        self.proof.acknowledgements += usize::from(any);
    }

    /// Whether an attempt was durable when its acknowledgement left.
    fn check(&mut self, attempt: Attempt, at: u64) {
        let record = self.disk.record(&attempt);
        let missing = match record {
            None => Some(Missing::Record),
            Some(record) if record.durable.is_none_or(|durable| durable >= at) => {
                Some(Missing::StoreSync)
            }
            Some(record) => match record.spooled {
                None | Some(Spooled::Durable) => None,
                Some(Spooled::NotWritten) => Some(Missing::Payload),
                Some(Spooled::FileNotSynced) => Some(Missing::FileSync),
                Some(Spooled::NotNamed) => Some(Missing::Name),
                Some(Spooled::FolderNotSynced) => Some(Missing::FolderSync),
            },
        };
        if let Some(missing) = missing {
            self.proof.breaches.push(Breach { task: attempt.0, line: at, missing });
        } else if let Some(record) = record {
            self.proof.spooled += usize::from(record.spooled.is_some());
            self.proof.in_inbox += usize::from(record.kind == Kind::Inbox);
        }
    }
}

/// The attempts that a message brings; none if it brings no tasks.
fn attempts(body: &[u8]) -> Vec<Attempt> {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let tasks = message["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let attempt = |task: &Value| {
        let id = task["id"].as_str()?.parse().ok()?;
        Some((id, task["attempt"].as_u64().unwrap_or(1).try_into().ok()?))
    };
    tasks.iter().filter_map(attempt).collect::<Vec<(Uuid, u32)>>()
}
