//! Another process that takes part in a test: this test binary again, running
//! the same test alone, with a role to play in the environment. It ends when it
//! is killed, or with the process that started it.

use super::*;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROLE: &str = "CLUTCH_TEST_ROLE";
const URL: &str = "CLUTCH_TEST_ROLE_URL";
const FILE: &str = "CLUTCH_TEST_ROLE_FILE";
const NAME: &str = "CLUTCH_TEST_ROLE_NAME";

/// How many messages a producer publishes before it only waits.
pub(super) const PRODUCED: usize = 500;

/// The task of a process. Each notes in its file, a line for each message id, what
/// would be lost with it otherwise.
pub(super) enum Task {
    /// Publishes to the queue `q`; notes what is confirmed.
    Produce,
    /// Consumes the queue `q`; notes what it got, then acknowledges it.
    Consume,
    /// Takes the lease `lease` of the queue `q`; notes what it got, and keeps it.
    Hold,
}

/// A task and what it needs.
pub(super) struct Role {
    task: Task,
    url: String,
    file: PathBuf,
    name: String,
}

/// The role of this process, if it has one.
pub(super) fn role() -> Option<Role> {
    let task = match std::env::var(ROLE).ok()?.as_str() {
        "produce" => Task::Produce,
        "consume" => Task::Consume,
        "hold" => Task::Hold,
        other => panic!("no such role: {other}"),
    };
    let variable = |name| std::env::var(name).unwrap();
    Some(Role { task, url: variable(URL), file: variable(FILE).into(), name: variable(NAME) })
}

impl Role {
    /// Plays it until the process ends.
    pub(super) async fn play(self) {
        std::thread::spawn(|| {
            // Nothing is written there: this ends with the other process.
            let end = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(i32::from(end.is_err()));
        });
        let connection = connect(&self.url).await;
        match self.task {
            Task::Produce => self.produce(connection.as_ref()).await,
            Task::Consume => {
                let mut inlet = shared(connection.as_ref(), "q", 50).await;
                loop {
                    let there = inlet.receive(7).await.unwrap();
                    self.note(&ids(&there));
                    inlet.acknowledge(there.last().unwrap().tag).await.unwrap();
                }
            }
            Task::Hold => {
                let mut inlet = leased(connection.as_ref(), "q", "lease").await;
                loop {
                    let there = inlet.receive(7).await.unwrap();
                    self.note(&ids(&there));
                }
            }
        }
    }

    async fn produce(&self, connection: &dyn Connection) {
        let mut outlet = connection.outlet().await.unwrap();
        let mut open = BTreeMap::new();
        for number in 0..PRODUCED {
            let id = format!("{} {number}", self.name);
            let ticket = outlet.publish(&to("q"), message(&id)).await.unwrap();
            open.insert(ticket, id);
            while open.len() >= 20 || number + 1 == PRODUCED && !open.is_empty() {
                let settled = outlet.settled().await.unwrap();
                let confirmed = settled.into_iter().map(|(ticket, settlement)| {
                    assert_eq!(settlement, Settlement::Confirmed);
                    open.remove(&ticket).unwrap()
                });
                self.note(&confirmed.collect::<Vec<_>>());
            }
        }
        outlet.settled().await.unwrap();
    }

    /// Appends lines to the file. What is written outlives the process.
    fn note(&self, ids: &[String]) {
        let lines: String = ids.iter().flat_map(|id| [id, "\n"]).collect();
        let mut file = OpenOptions::new().append(true).create(true).open(&self.file).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }
}

/// A process with a role. It is killed when dropped.
pub(super) struct Child(std::process::Child);

impl Child {
    /// Starts a process of the test `test` with a task.
    pub(super) fn start(test: &str, task: &Task, url: &str, file: &Path, name: &str) -> Self {
        let (_, test) = test.split_once("::").unwrap();
        let task = match task {
            Task::Produce => "produce",
            Task::Consume => "consume",
            Task::Hold => "hold",
        };
        let process = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(ROLE, task)
            .env(URL, url)
            .env(FILE, file)
            .env(NAME, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(process)
    }
}

impl Drop for Child {
    /// Kills it as `kill -9` does, and waits until it is gone.
    fn drop(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none() || std::thread::panicking(), "it ended by itself: {ended:?}");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The complete lines of a file that may not be there.
pub(super) fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().map(str::to_owned).collect()
}

/// Waits until a file has that many bytes.
pub(super) async fn grows_to(file: &Path, bytes: u64) {
    let growing = async {
        while size(file) < bytes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(growing).await;
}

/// How many bytes a file has that may not be there.
pub(super) fn size(file: &Path) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}
