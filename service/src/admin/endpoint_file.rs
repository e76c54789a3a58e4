//! The `endpoint.toml` that provisioning writes and the endpoint reads. Touches
//! that file; never writes over one that is there, and never leaves half of one.

use crate::failure::{CONFIG, Failure};
use anyhow::Context as _;
use clutch_common::id::EndpointId;
use clutch_common::topology;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The sections that provisioning fills; the rest is the endpoint's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EndpointFile {
    endpoint: EndpointSection,
    broker: BrokerSection,
    /// Left out where no topic is given: topics are the endpoint's own to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerSection>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WorkerSection {
    #[serde(default)]
    topics: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct EndpointSection {
    id: EndpointId,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct BrokerSection {
    url: String,
    heartbeat: String,
    blocked_timeout: String,
    tasks_queue: String,
    results_exchange: String,
    results_key: String,
    lease_queue: String,
}

/// The part of an existing file that names its endpoint, the terms of the connection, and topics.
#[derive(Deserialize)]
struct Owner {
    endpoint: OwnerSection,
    #[serde(default)]
    broker: toml::Table,
    #[serde(default)]
    worker: WorkerSection,
}

#[derive(Deserialize)]
struct OwnerSection {
    id: EndpointId,
}

/// The existing file at the path, compared with the one to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing.
    Absent,
    /// Exactly what would be written.
    Same,
    /// A file of the same endpoint, on the same terms with the broker, that
    /// differs in what is the endpoint's own.
    Edited,
}

impl EndpointFile {
    /// The file for an endpoint. `url` holds the password.
    #[must_use]
    pub(crate) fn new(
        id: EndpointId,
        name: &str,
        url: &str,
        heartbeat: Duration,
        blocked_timeout: Duration,
    ) -> Self {
        Self {
            endpoint: EndpointSection { id, name: name.to_owned() },
            broker: BrokerSection {
                url: url.to_owned(),
                heartbeat: humantime::format_duration(heartbeat).to_string(),
                blocked_timeout: humantime::format_duration(blocked_timeout).to_string(),
                tasks_queue: topology::tasks_queue(id),
                results_exchange: topology::RESULTS_EXCHANGE.to_owned(),
                results_key: topology::results_key(id),
                lease_queue: topology::lease_queue(id),
            },
            worker: None,
        }
    }

    /// The same file, of a member of these topics, if there are any.
    #[must_use]
    pub(crate) fn with_topics(self, topics: &[String]) -> Self {
        let worker = WorkerSection { topics: topics.iter().cloned().collect() };
        Self { worker: (!topics.is_empty()).then_some(worker), ..self }
    }

    /// Looks at what is at `path`.
    ///
    /// # Errors
    /// When it is another endpoint's file, one with other terms with the broker,
    /// or none that can be read.
    pub(crate) fn compare(&self, path: &Path) -> anyhow::Result<Existing> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Existing::Absent),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if text == self.text()? {
            return Ok(Existing::Same);
        }
        match toml::from_str::<Owner>(&text) {
            Ok(owner) if owner.endpoint.id == self.endpoint.id => {
                self.same_terms(&owner.broker, path)?;
                self.same_topics(&owner.worker, path)?;
                Ok(Existing::Edited)
            }
            Ok(owner) => anyhow::bail!(
                "{} belongs to another endpoint ({}) and is left alone: choose another place with \
                 --out FILE",
                path.display(),
                owner.endpoint.id
            ),
            Err(_) => anyhow::bail!(
                "{} exists and is not an endpoint's configuration: choose another place with --out \
                 FILE",
                path.display()
            ),
        }
    }

    /// Checks that a file's `[broker]` section is the one that would be written;
    /// the error names keys only, because the URL holds the password.
    fn same_terms(&self, theirs: &toml::Table, path: &Path) -> anyhow::Result<()> {
        let ours = toml::Table::try_from(&self.broker)?;
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let differing: Vec<&str> = keys
            .into_iter()
            .filter(|key| ours.get(*key) != theirs.get(*key))
            .map(String::as_str)
            .collect();
        if differing.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} is this endpoint's, but its [broker] section differs from what would be written, \
             in: {}; it is left alone: move it away to have it written anew",
            path.display(),
            differing.join(", ")
        );
        Err(Failure::new(CONFIG, message).into())
    }

    /// Checks that a file names the topics that were asked for, if any were.
    fn same_topics(&self, theirs: &WorkerSection, path: &Path) -> anyhow::Result<()> {
        let Some(ours) = self.worker.as_ref().filter(|ours| *ours != theirs) else { return Ok(()) };
        let line = toml::to_string(ours)?;
        let message = format!(
            "{} is this endpoint's, with other topics, and is left alone: to have those that were \
             asked for, write `{}` in its [worker] section and restart the endpoint",
            path.display(),
            line.trim_end()
        );
        Err(Failure::new(CONFIG, message).into())
    }

    /// Writes the file with mode 0600: whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let temporary = temporary_beside(path);
        let written = write_synced(&temporary, &self.text()?)
            .and_then(|()| std::fs::rename(&temporary, path))
            .and_then(|()| sync_folder(path));
        if written.is_err() {
            drop(std::fs::remove_file(&temporary));
        }
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(self)?)
    }
}

/// Checks that a file can be written at `path`, unless one is there.
pub(crate) fn check_writable(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let temporary = temporary_beside(path);
    write_synced(&temporary, "")
        .and_then(|()| std::fs::remove_file(&temporary))
        .with_context(|| format!("cannot write {}: nothing was provisioned", path.display()))
}

fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn write_synced(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn file(id: EndpointId) -> EndpointFile {
        let second = Duration::from_secs(1);
        EndpointFile::new(id, "lab", "amqp://u:p@h:5672/v", 10 * second, 60 * second)
    }

    #[test]
    fn the_text_is_that_of_the_contract() {
        let expected = format!(
            r#"[endpoint]
id = "{ID}"
name = "lab"

[broker]
url = "amqp://u:p@h:5672/v"
heartbeat = "10s"
blocked_timeout = "1m"
tasks_queue = "{ID}.tasks"
results_exchange = "results"
results_key = "{ID}.results"
lease_queue = "{ID}.lease"
"#
        );
        assert_eq!(file(ID.parse().unwrap()).text().unwrap(), expected);
    }

    #[test]
    fn the_file_is_private_and_whole_and_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("endpoint.toml");
        let ours = file(EndpointId::new());
        assert_eq!(ours.compare(&path).unwrap(), Existing::Absent);
        ours.write(&path).unwrap();
        assert_eq!(ours.compare(&path).unwrap(), Existing::Same);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn edits_are_known_and_another_endpoints_file_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("endpoint.toml");
        let ours = file(EndpointId::new());
        let edited = format!("{}\n[engine]\nslots = 2\n", ours.text().unwrap());
        std::fs::write(&path, edited).unwrap();
        assert_eq!(ours.compare(&path).unwrap(), Existing::Edited);
        let words = file(EndpointId::new()).compare(&path).unwrap_err().to_string();
        assert!(words.contains("belongs to another endpoint"), "{words}");
        std::fs::write(&path, "hello").unwrap();
        let words = ours.compare(&path).unwrap_err().to_string();
        assert!(words.contains("not an endpoint's configuration"), "{words}");
    }

    #[test]
    fn topics_are_written_and_a_file_with_others_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("endpoint.toml");
        let id = EndpointId::new();
        let topics = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            file(id).with_topics(&names)
        };
        assert_eq!(topics(&[]), file(id));
        let cloud = topics(&["cloud", "gpu", "cloud"]);
        let text = cloud.text().unwrap();
        assert!(text.ends_with("\n[worker]\ntopics = [\"cloud\", \"gpu\"]\n"), "{text}");
        cloud.write(&path).unwrap();
        assert_eq!(topics(&["gpu", "cloud"]).compare(&path).unwrap(), Existing::Same);
        assert_eq!(file(id).compare(&path).unwrap(), Existing::Edited, "none are asked for");
        let error = topics(&["lab"]).compare(&path).unwrap_err();
        assert_eq!(crate::failure::exit_code(&error), CONFIG);
        assert!(error.to_string().contains("write `topics = [\"lab\"]` in its"), "{error}");
        file(id).write(&path).unwrap();
        let error = cloud.compare(&path).unwrap_err().to_string();
        assert!(error.contains("with other topics"), "{error}");
    }

    #[test]
    fn other_terms_with_the_broker_are_named_and_the_password_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("endpoint.toml");
        let ours = file(EndpointId::new());
        let other = ours.text().unwrap().replace("u:p@", "u:secret@").replace("10s", "7s");
        std::fs::write(&path, other).unwrap();
        let error = ours.compare(&path).unwrap_err();
        let words = error.to_string();
        assert_eq!(crate::failure::exit_code(&error), CONFIG);
        assert!(words.contains("in: heartbeat, url;") && !words.contains("secret"), "{words}");
    }
}
