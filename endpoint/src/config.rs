//! The endpoint's configuration: `endpoint.toml`, written by
//! `clutch-service provision`, and the few settings that are the endpoint's
//! own. Reads one file and the environment; decides nothing else.

mod duration;
pub(crate) mod functions;
mod reload;
mod worker;
mod worker_file;

use crate::execution::process::sandbox::SandboxPolicy;
use crate::exit::{Exit, Failure};
use crate::pending::inbox::Bounds;
use clutch_common::id::{EndpointId, check_endpoint_name};
use clutch_common::link::{self, Destination, InletOptions, Terms, Transport};
use clutch_common::system::folder;
use clutch_common::task::kinship::MessageRule;
use clutch_common::text::secret;
use clutch_common::topology;
use duration::duration;
use functions::{FunctionSection, WorkerDefaults};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use worker::WorkerSection;

/// The most that `capture_limit` may be, in bytes: so much text fits a message.
/// Output that takes more when encoded is truncated.
const MAX_CAPTURE: usize = 15 * 1024 * 1024;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The identity of this endpoint.
    pub(crate) endpoint: EndpointSection,
    /// The way to the broker, as the service chose it.
    pub(crate) broker: BrokerSection,
    /// The state folder.
    #[serde(default)]
    pub(crate) state: StateSection,
    /// How many tasks are accepted in advance.
    #[serde(default)]
    pub(crate) inbox: InboxSection,
    /// How long results are kept once they are delivered.
    #[serde(default)]
    pub(crate) results: ResultsSection,
    /// How tasks run.
    #[serde(default)]
    pub(crate) engine: EngineSection,
    /// Which tasks may send to each other.
    #[serde(default)]
    pub(crate) messages: MessagesSection,
    /// How the daemon stops.
    #[serde(default)]
    pub(crate) shutdown: ShutdownSection,
    /// The topics that it is a member of.
    #[serde(default)]
    pub(crate) worker: WorkerSection,
    /// The functions that tasks can call.
    #[serde(default)]
    pub(crate) functions: BTreeMap<String, FunctionSection>,
}

/// `[endpoint]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointSection {
    /// The endpoint's id.
    pub(crate) id: EndpointId,
    /// Its name at the service.
    pub(crate) name: String,
}

/// `[broker]`
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BrokerSection {
    /// The URL of the broker, with user and password.
    pub(crate) url: String,
    /// Heartbeat of both connections.
    #[serde(deserialize_with = "duration")]
    pub(crate) heartbeat: Duration,
    /// How long the broker may block a connection.
    #[serde(deserialize_with = "duration")]
    pub(crate) blocked_timeout: Duration,
    /// The queue to take tasks from.
    pub(crate) tasks_queue: String,
    /// The exchange to publish results to.
    pub(crate) results_exchange: String,
    /// The routing key to publish results with.
    pub(crate) results_key: String,
    /// The lease to hold while consuming.
    pub(crate) lease_queue: String,
}

impl std::fmt::Debug for BrokerSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("tasks_queue", &self.tasks_queue).finish_non_exhaustive()
    }
}

impl BrokerSection {
    /// Returns the terms of a connection.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            heartbeat: self.heartbeat,
            blocked_timeout: self.blocked_timeout,
            ..Terms::default()
        }
    }
}

/// `[state]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateSection {
    /// The state folder.
    pub(crate) path: Option<PathBuf>,
}

/// `[inbox]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct InboxSection {
    /// Most tasks accepted and not finished.
    pub(crate) max_tasks: usize,
    /// Most memory they take, in bytes.
    pub(crate) max_bytes: usize,
    /// Most messages delivered and not acknowledged.
    pub(crate) prefetch: u16,
}

impl Default for InboxSection {
    fn default() -> Self {
        Self { max_tasks: 1000, max_bytes: 16 * 1024 * 1024, prefetch: 64 }
    }
}

impl InboxSection {
    /// Returns the bounds of the inbox in memory.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { max_tasks: self.max_tasks, max_bytes: self.max_bytes }
    }
}

/// `[results]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ResultsSection {
    /// How long a delivered result is kept, to be sent again if the service lost it.
    #[serde(deserialize_with = "duration")]
    pub(crate) keep: Duration,
    /// Bytes of delivered results that are kept, about; 0 for none.
    pub(crate) keep_bytes: u64,
}

impl Default for ResultsSection {
    fn default() -> Self {
        Self { keep: Duration::from_secs(24 * 60 * 60), keep_bytes: 64 * 1024 * 1024 }
    }
}

/// `[engine]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EngineSection {
    /// How many tasks run at once; the number of cores if absent.
    pub(crate) slots: Option<usize>,
    /// The time between `SIGTERM` and `SIGKILL`.
    #[serde(deserialize_with = "duration")]
    pub(crate) grace: Duration,
    /// Bytes kept of each of a task's output streams.
    pub(crate) capture_limit: usize,
    /// The policy for sandboxes.
    pub(crate) sandbox: SandboxPolicy,
    /// How often the daemon may die while a task runs; 0 for no limit.
    pub(crate) poison_after: u64,
}

impl Default for EngineSection {
    fn default() -> Self {
        Self {
            slots: None,
            grace: Duration::from_secs(5),
            capture_limit: 256 * 1024,
            sandbox: SandboxPolicy::Remove,
            poison_after: 3,
        }
    }
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ShutdownSection {
    /// How long running tasks may still take after the first signal.
    #[serde(deserialize_with = "duration")]
    pub(crate) deadline: Duration,
}

impl Default for ShutdownSection {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30) }
    }
}

/// `[messages]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MessagesSection {
    /// Which tasks of this endpoint may send to which others of it.
    pub(crate) allow: MessageRule,
}

/// The settings of the command line, which take precedence over the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// `--state`
    pub(crate) state: Option<PathBuf>,
    /// `--slots`
    pub(crate) slots: Option<usize>,
    /// `--worker`
    pub(crate) worker: Option<PathBuf>,
}

impl Config {
    /// Reads the file, lays `overrides` over it, and checks the whole.
    ///
    /// # Errors
    /// With [`Exit::Config`], naming the file and what is wrong in it.
    pub(crate) fn load(path: &Path, overrides: Overrides) -> Result<Self, Failure> {
        let bad = |what: String| {
            Failure::new(
                Exit::Config,
                format!("reading the configuration {}: {what}", path.display()),
            )
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            bad(format!(
                "{error}; pass the file that `clutch-service provision` wrote with --config"
            ))
        })?;
        let mut config = Self::parse(&text).map_err(&bad)?;
        if secret::has_password(&config.broker.url) {
            folder::check_private(path).map_err(&bad)?;
        }
        config.state.path = overrides.state.or(config.state.path);
        config.engine.slots = overrides.slots.or(config.engine.slots);
        overrides.worker.iter().try_for_each(|file| config.lay_worker_file(file)).map_err(&bad)?;
        config.check().map_err(&bad)?;
        Ok(config)
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| secret::located(text, error.span(), error.message()))
    }

    fn check(&self) -> Result<(), String> {
        let positive = [
            ("inbox.max_tasks", self.inbox.max_tasks),
            ("inbox.max_bytes", self.inbox.max_bytes),
            ("inbox.prefetch", usize::from(self.inbox.prefetch)),
            ("engine.slots (--slots)", self.slots()),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(format!("{key} is 0: it has to be at least 1"));
            }
        }
        if self.engine.capture_limit > MAX_CAPTURE {
            return Err(format!(
                "engine.capture_limit is {}: at most {MAX_CAPTURE} fits a message",
                self.engine.capture_limit
            ));
        }
        self.functions.iter().try_for_each(|(name, function)| function.check(name))?;
        self.worker.check()?;
        let id = self.endpoint.id;
        let names = [
            ("tasks_queue", &self.broker.tasks_queue, topology::tasks_queue(id)),
            ("results_key", &self.broker.results_key, topology::results_key(id)),
            ("lease_queue", &self.broker.lease_queue, topology::lease_queue(id)),
        ];
        for (key, given, expected) in names {
            if *given != expected {
                return Err(format!(
                    "broker.{key} is '{given}', which is not that of the endpoint {id}: \
                     provision the endpoint again rather than edit its names"
                ));
            }
        }
        let terms = [
            ("heartbeat", self.broker.heartbeat, Terms::HEARTBEAT),
            ("blocked_timeout", self.broker.blocked_timeout, Terms::BLOCKED_TIMEOUT),
        ];
        for (key, given, bounds) in terms {
            if !bounds.contains(&given) {
                let shown = |bound: &Duration| humantime::format_duration(*bound).to_string();
                let (least, most) = (shown(bounds.start()), shown(bounds.end()));
                return Err(format!("broker.{key} has to be from {least} to {most}"));
            }
        }
        check_endpoint_name(&self.endpoint.name).map_err(|error| format!("endpoint.name: {error}"))
    }

    /// Opens the transport to the broker.
    ///
    /// # Errors
    /// With [`Exit::Config`] when the URL cannot be used.
    pub(crate) fn transport(&self) -> Result<Arc<dyn Transport>, Failure> {
        link::shared_transport(&self.broker.url, &self.broker.terms())
            .map_err(|error| Failure::new(Exit::Config, format!("reading broker.url: {error}")))
    }

    /// Returns how tasks are consumed.
    pub(crate) fn inlet(&self) -> InletOptions {
        InletOptions {
            queue: self.broker.tasks_queue.clone(),
            prefetch: self.inbox.prefetch,
            lease: Some(self.broker.lease_queue.clone()),
            one_by_one: false,
        }
    }

    /// Returns where results go.
    pub(crate) fn results(&self) -> Destination {
        Destination {
            exchange: self.broker.results_exchange.clone(),
            routing_key: self.broker.results_key.clone(),
        }
    }

    /// Returns how many tasks run at once.
    pub(crate) fn slots(&self) -> usize {
        self.engine.slots.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        })
    }

    /// Returns the settings that workers take from other sections, with folders in `base`.
    pub(crate) fn worker_defaults(&self, base: &Path) -> WorkerDefaults {
        WorkerDefaults {
            slots: self.slots(),
            grace: self.engine.grace,
            capture_limit: self.engine.capture_limit,
            folders: base.join("workers"),
            python: base.join("python"),
        }
    }

    /// Returns the state folder, absolute: as configured, else below `$XDG_STATE_HOME`, else
    /// below `~/.local/state`.
    ///
    /// # Errors
    /// With [`Exit::Config`] when there is no home folder to put it in.
    pub(crate) fn state_path(&self) -> Result<PathBuf, Failure> {
        let below_home = || {
            let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
            let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
            state
                .or(home)
                .map(|base| base.join("clutch/endpoints").join(self.endpoint.id.to_string()))
        };
        let path = self.state.path.clone().or_else(below_home).ok_or_else(|| {
            let message = "finding the state folder: neither state.path, XDG_STATE_HOME nor HOME \
                           is set; pass --state DIR";
            Failure::new(Exit::Config, message)
        })?;
        // Tasks and workers run in other folders, and must find this one.
        std::path::absolute(&path).map_err(|error| {
            Failure::new(Exit::Config, format!("finding the folder {}: {error}", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const FILE: &str = r#"
[endpoint]
id = "01890a5d-ac96-774b-bcce-b302099a8057"
name = "lab"
[broker]
url = "amqp://user:secret@host:5672/v"
heartbeat = "10s"
blocked_timeout = "1m"
tasks_queue = "01890a5d-ac96-774b-bcce-b302099a8057.tasks"
results_exchange = "results"
results_key = "01890a5d-ac96-774b-bcce-b302099a8057.results"
lease_queue = "01890a5d-ac96-774b-bcce-b302099a8057.lease"
"#;

    fn error(extra: &str) -> String {
        let parsed = Config::parse(&format!("{FILE}\n{extra}"));
        parsed.and_then(|config| config.check()).unwrap_err()
    }

    #[test]
    fn what_provision_writes_is_enough() {
        let config = Config::parse(FILE).unwrap();
        config.check().unwrap();
        assert_eq!(config.broker.terms().heartbeat, Duration::from_secs(10));
        assert_eq!(config.broker.terms().blocked_timeout, Duration::from_secs(60));
    }

    #[test]
    fn every_mistake_is_named() {
        assert!(error("[inbox]\nmax_taks = 3").contains("max_taks"));
        assert!(error("[inbox]\nmax_tasks = 0").contains("inbox.max_tasks"));
        assert!(error("[inbox]\nprefetch = 0").contains("inbox.prefetch"));
        assert!(error("[engine]\nslots = 0").contains("engine.slots"));
        assert!(error("[engine]\ngrace = \"5 parsecs\"").contains("5 parsecs"));
        assert!(error("[engine]\ngrace = \"900000000years\"").contains("more than a year"));
        assert!(error("[engine]\ncapture_limit = 99999999").contains("engine.capture_limit"));
        assert!(error("[engine]\nsandbox = \"burn\"").contains("burn"));
        assert!(error("[functions.add]\ncommand = []").contains("functions.add.command"));
    }

    #[test]
    fn a_file_that_holds_a_password_and_that_others_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("endpoint.toml");
        let load = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Config::load(&path, Overrides::default()).map(drop)
        };
        load(FILE, 0o600).unwrap();
        let failure = load(FILE, 0o644).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("chmod 600"), "{failure}");
        load(&FILE.replace("amqp://user:secret@host:5672/v", "file:///spool"), 0o644).unwrap();
    }

    #[test]
    fn terms_out_of_bounds_and_names_that_none_can_have_are_refused() {
        for (from, to, words) in [
            ("heartbeat = \"10s\"", "heartbeat = \"99999s\"", "broker.heartbeat"),
            ("blocked_timeout = \"1m\"", "blocked_timeout = \"2days\"", "broker.blocked_timeout"),
            ("name = \"lab\"", "name = \"..\"", "endpoint.name"),
        ] {
            let parsed = Config::parse(&FILE.replace(from, to)).unwrap();
            let error = parsed.check().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_file_from_another_system_is_read() {
        let text = format!("\u{feff}{}", FILE.replace('\n', "\r\n"));
        Config::parse(&text).unwrap().check().unwrap();
    }

    #[test]
    fn a_broker_that_no_other_process_reaches_is_refused() {
        let text = FILE.replace("amqp://user:secret@host:5672/v", "memory:");
        let failure = Config::parse(&text).unwrap().transport().err().unwrap();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("in one process"), "{failure}");
    }

    #[test]
    fn the_names_of_another_endpoint_are_refused() {
        let edited = FILE.replacen("8057", "8058", 1);
        let error = Config::parse(&edited).and_then(|config| config.check()).unwrap_err();
        assert!(error.contains("broker.tasks_queue"), "{error}");
    }

    #[test]
    fn the_password_stays_out_of_debug_output_and_of_every_error() {
        let config = Config::parse(FILE).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        let url = "url = \"amqp://user:secret@host:5672/v\"";
        assert!(FILE.contains(url));
        for (wrong, place) in [
            ("url = \"amqp://user:secret@host:5672/v", "line 6"),
            ("url = amqp://user:secret@host:5672/v", "line 6"),
            ("url = [\"amqp://user:secret@host:5672/v\"]", "line 6"),
            ("url = \"amqp://user:secret@host:5672/v\" x", "line 6"),
            ("uri = \"amqp://user:secret@host:5672/v\"", "line 6"),
            ("\"amqp://user:secret@host:5672/v\"", "line 6"),
            ("\"amqp://user:secret@host:5672/v\" = 1", "line 6"),
        ] {
            let text = FILE.replace(url, wrong);
            let error = Config::parse(&text).unwrap_err();
            assert!(!error.contains("secret"), "{wrong}: {error}");
            assert!(error.contains(place), "{wrong}: {error}");
        }
        let error = Config::parse(&FILE.replace("10s", "amqp://user:secret@h")).unwrap_err();
        assert!(error.contains("not a duration") && !error.contains("secret"), "{error}");
    }
}
