//! One test's world: a folder, a vhost or a spool folder, and the two binaries
//! in it, used as people use them.

use crate::binaries::{self, ENDPOINT, MORTAL_ENDPOINT, SERVICE};
use crate::broker::{Address, Broker, Vhost};
use crate::process::{Daemon, Output, run};
use crate::skip;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long anything may take that has nothing to wait for. It bounds how long
/// a failing test takes, so it is generous: the machine may be busy.
pub const SOON: Duration = Duration::from_secs(120);

/// Everything in it is gone when this is dropped.
#[derive(Debug)]
pub struct World {
    vhost: Option<Vhost>,
    folder: TempDir,
    binaries: PathBuf,
    wrapper: Vec<String>,
}

/// An endpoint as it was provisioned.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its `endpoint.toml`.
    pub config: PathBuf,
}

impl World {
    /// A world on the shared broker. Where there is none to be had, the test
    /// is skipped, and this is `None`.
    ///
    /// # Panics
    /// When there should be a broker and it does not work.
    #[must_use]
    #[allow(clippy::panic, reason = "a test's first line")]
    pub fn or_skip(test: &str) -> Option<Self> {
        if !Broker::available() {
            skip::because(test, "there is no RabbitMQ and none can be installed");
            return None;
        }
        match Broker::shared().and_then(|broker| Self::on(broker.address())) {
            Ok(world) => Some(world),
            Err(error) => panic!("{test}: no world: {error:#}"),
        }
    }

    /// A world on a broker.
    pub fn on(address: &Address) -> Result<Self> {
        Self::at(address, binaries::folder()?)
    }

    /// A world on a broker, of the binaries in a folder.
    pub fn at(address: &Address, binaries: &Path) -> Result<Self> {
        Self::with(Some(address.vhost()?), binaries, &std::env::temp_dir())
    }

    /// A world on a broker, of the binaries in a folder. The world's own folder is in
    /// `base` and goes with it.
    pub fn beside(address: &Address, binaries: &Path, base: &Path) -> Result<Self> {
        let mut world = Self::with(Some(address.vhost()?), binaries, base)?;
        world.folder.disable_cleanup(true);
        Ok(world)
    }

    /// A world on a [spool folder](World::spool), of the binaries in a folder. The world's
    /// own folder is in `base` and goes with it.
    pub fn in_folder_beside(binaries: &Path, base: &Path) -> Result<Self> {
        let mut world = Self::with(None, binaries, base)?;
        world.folder.disable_cleanup(true);
        std::fs::create_dir(world.shared())?;
        Ok(world)
    }

    /// A world without a broker: its parts have a [spool folder](World::spool)
    /// in common.
    pub fn in_folder() -> Result<Self> {
        Self::in_folder_at(binaries::folder()?)
    }

    /// A world on a spool folder, of the binaries in a folder.
    pub fn in_folder_at(binaries: &Path) -> Result<Self> {
        let world = Self::with(None, binaries, &std::env::temp_dir())?;
        std::fs::create_dir(world.shared())?;
        Ok(world)
    }

    fn with(vhost: Option<Vhost>, binaries: &Path, base: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("clutch-test-").tempdir_in(base)?;
        Ok(Self { vhost, folder, binaries: binaries.to_owned(), wrapper: Vec::new() })
    }

    /// The same world, in which every process is started by this command line.
    #[must_use]
    pub fn wrapped_in(self, wrapper: &[&str]) -> Self {
        Self { wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its vhost.
    ///
    /// # Panics
    /// In a world without a broker.
    #[must_use]
    #[allow(clippy::panic, reason = "a test's mistake")]
    pub fn vhost(&self) -> &Vhost {
        let Some(vhost) = &self.vhost else { panic!("this world has no broker") };
        vhost
    }

    /// The folder that the spool folder is in, where there is no broker.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.folder().join("shared")
    }

    /// The spool folder, where there is no broker; provisioning makes it.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.shared().join("spool")
    }

    /// The URL of the vhost or of the spool folder.
    #[must_use]
    pub fn broker(&self) -> String {
        match &self.vhost {
            Some(vhost) => vhost.url(),
            None => format!("file://{}", self.spool().display()),
        }
    }

    /// The environment of both binaries.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let inside = |name: &str| self.folder().join(name).display().to_string();
        let management = self.vhost.as_ref().map(Vhost::management);
        let mut environment = vec![
            ("CLUTCH_BROKER".to_owned(), self.broker()),
            ("CLUTCH_STATE".to_owned(), inside("service")),
            ("XDG_STATE_HOME".to_owned(), inside("state")),
            ("HOME".to_owned(), inside("home")),
        ];
        environment.extend(management.map(|url| ("CLUTCH_MANAGEMENT".to_owned(), url.to_owned())));
        environment
    }

    /// A command line of the service's binary, to be changed before it is run.
    #[must_use]
    pub fn service_command(&self, arguments: &[&str]) -> Command {
        self.command(SERVICE, arguments)
    }

    /// A command line of the endpoint's binary, to be changed before it is run.
    #[must_use]
    pub fn endpoint_command(&self, arguments: &[&str]) -> Command {
        self.command(ENDPOINT, arguments)
    }

    fn command(&self, binary: &str, arguments: &[&str]) -> Command {
        let (program, words) = self.words(binary);
        let mut command = Command::new(program);
        command.args(words).args(arguments).envs(self.environment()).current_dir(self.folder());
        command
    }

    /// Runs `clutch-service` with `arguments`.
    ///
    /// # Errors
    /// When it does not end [soon](SOON).
    pub fn service(&self, arguments: &[&str]) -> Result<Output> {
        self.service_within(arguments, SOON)
    }

    /// Runs `clutch-service` with `arguments`.
    ///
    /// # Errors
    /// When it has not ended after `within`.
    pub fn service_within(&self, arguments: &[&str], within: Duration) -> Result<Output> {
        run(self.service_command(arguments), b"", within)
    }

    /// Provisions an endpoint.
    pub fn provision(&self, name: &str) -> Result<Endpoint> {
        self.provision_with(name, &[])
    }

    /// Provisions an endpoint with further options.
    pub fn provision_with(&self, name: &str, options: &[&str]) -> Result<Endpoint> {
        let config = self.folder().join(format!("{name}.toml"));
        let out = config.display().to_string();
        let arguments = [&["provision", name, "--out", &out], options].concat();
        self.service(&arguments)?.ok().context("provisioning")?;
        let id = endpoint_id(&config)?;
        Ok(Endpoint { name: name.to_owned(), id, config })
    }

    /// Starts `clutch-service serve` and waits until it answers and has
    /// its link to the broker.
    pub fn serve(&self) -> Result<Daemon> {
        let mut daemon = self.launch_service(&[])?;
        daemon.wait_for("serving", SOON)?;
        Ok(daemon)
    }

    /// Starts `clutch-service serve` with further options and does not wait
    /// for anything.
    pub fn launch_service(&self, options: &[&str]) -> Result<Daemon> {
        self.daemon(SERVICE, &[&["serve"], options].concat())
    }

    /// Starts an endpoint's daemon and waits until it is engaged.
    pub fn run(&self, endpoint: &Endpoint) -> Result<Daemon> {
        self.run_with(endpoint, &[])
    }

    /// Starts an endpoint's daemon with further options and waits until it is
    /// engaged.
    pub fn run_with(&self, endpoint: &Endpoint, options: &[&str]) -> Result<Daemon> {
        let mut daemon = self.launch(endpoint, options)?;
        daemon.wait_for("engaged", SOON)?;
        Ok(daemon)
    }

    /// Starts an endpoint's daemon under another program, with further options,
    /// and waits until it is engaged.
    pub fn run_in(
        &self,
        wrapper: &[&str],
        endpoint: &Endpoint,
        options: &[&str],
    ) -> Result<Daemon> {
        let Some((program, first)) = wrapper.split_first() else {
            return self.run_with(endpoint, options);
        };
        let config = endpoint.config.display().to_string();
        let binary = self.binaries.join(ENDPOINT).display().to_string();
        let words = [first, &[&binary, "run", "--config", &config], options].concat();
        let mut daemon = self.start(&self.environment(), Path::new(program), &words)?;
        daemon.wait_for("engaged", SOON)?;
        Ok(daemon)
    }

    /// Starts `clutch-service serve` under another program and waits until it answers
    /// and has its link to the broker.
    pub fn serve_in(&self, wrapper: &[&str]) -> Result<Daemon> {
        let Some((program, first)) = wrapper.split_first() else { return self.serve() };
        let binary = self.binaries.join(SERVICE).display().to_string();
        let words = [first, &[&binary, "serve"]].concat();
        let mut daemon = self.start(&self.environment(), Path::new(program), &words)?;
        daemon.wait_for("serving", SOON)?;
        Ok(daemon)
    }

    /// Starts an endpoint's daemon and does not wait for anything.
    pub fn launch(&self, endpoint: &Endpoint, options: &[&str]) -> Result<Daemon> {
        let config = endpoint.config.display().to_string();
        self.daemon(ENDPOINT, &[&["run", "--config", &config], options].concat())
    }

    /// Starts an endpoint's daemon that dies where `failpoint` says, such as
    /// `accept:17`, as listed at the head of `endpoint/src/failpoint.rs`.
    pub fn launch_mortal(&self, endpoint: &Endpoint, failpoint: &str) -> Result<Daemon> {
        let program = self.binaries.join(MORTAL_ENDPOINT);
        ensure!(program.is_file(), "there is no {}: cargo xtask test builds it", program.display());
        let config = endpoint.config.display().to_string();
        let mut environment = self.environment();
        environment.push(("CLUTCH_FAILPOINT".to_owned(), failpoint.to_owned()));
        self.daemon_in(&environment, MORTAL_ENDPOINT, &["run", "--config", &config])
    }

    fn daemon(&self, binary: &str, arguments: &[&str]) -> Result<Daemon> {
        self.daemon_in(&self.environment(), binary, arguments)
    }

    fn daemon_in(
        &self,
        environment: &[(String, String)],
        binary: &str,
        arguments: &[&str],
    ) -> Result<Daemon> {
        let (program, words) = self.words(binary);
        let words: Vec<&str> =
            words.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        self.start(environment, &program, &words)
    }

    fn start(
        &self,
        environment: &[(String, String)],
        program: &Path,
        words: &[&str],
    ) -> Result<Daemon> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Daemon::start(program, &words, environment, &self.folder().join("logs"))
    }

    /// The program to start for a binary, and its first arguments.
    fn words(&self, binary: &str) -> (PathBuf, Vec<String>) {
        let binary = self.binaries.join(binary);
        let Some((wrapper, options)) = self.wrapper.split_first() else {
            return (binary, Vec::new());
        };
        let mut words = options.to_vec();
        words.push(binary.display().to_string());
        (wrapper.into(), words)
    }

    /// Submits and waits for the outcomes, with the command line that follows
    /// `submit ENDPOINT --key KEY --wait`. Whether the tasks succeeded is for
    /// the caller to see.
    ///
    /// # Errors
    /// When the command has not ended after `within`.
    pub fn submit(
        &self,
        endpoint: &Endpoint,
        key: &str,
        arguments: &[&str],
        within: Duration,
    ) -> Result<Output> {
        let submit = ["submit", &endpoint.name, "--key", key, "--wait"];
        self.service_within(&[&submit, arguments].concat(), within)
    }

    /// Waits until all tasks under `key` have an outcome. Whether they
    /// succeeded is for the caller to see.
    ///
    /// # Errors
    /// When the command does not end [soon](SOON).
    pub fn wait(&self, key: &str) -> Result<Output> {
        self.service(&["wait", "--key", key, "--timeout", "110s"])
    }

    /// The tasks and what became of them, in the order of submission; `result`
    /// is null where there is none yet.
    pub fn results(&self, key: &str) -> Result<Vec<Value>> {
        let output = self.service_within(&["results", "--json", "--key", key], 4 * SOON)?;
        let unfinished = ["no result yet", "never submitted"]
            .iter()
            .any(|words| output.code == 1 && output.stderr.contains(words));
        if unfinished { output } else { output.ok()? }.json_lines()
    }

    /// The one task under `key` and what became of it.
    pub fn result(&self, key: &str) -> Result<Value> {
        let mut results = self.results(key)?;
        ensure!(results.len() == 1, "{} tasks have the key {key}", results.len());
        Ok(results.remove(0))
    }

    /// How many messages were dead-lettered, up to a thousand.
    pub fn dead_letters(&self) -> Result<usize> {
        match &self.vhost {
            Some(vhost) => Ok(vhost.take("dead-letters", 1000)?.len()),
            None => {
                Ok(self.service(&["dead-letters", "list", "--json"])?.ok()?.json_lines()?.len())
            }
        }
    }

    /// The ids of the tasks in an answer of [`World::results`].
    #[must_use]
    pub fn ids<'a>(results: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
        results.into_iter().filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect()
    }
}

/// The id that an `endpoint.toml` is of.
fn endpoint_id(config: &Path) -> Result<String> {
    let text =
        std::fs::read_to_string(config).with_context(|| format!("reading {}", config.display()))?;
    let file: toml::Table = text.parse().context("the endpoint's file is no TOML")?;
    let id = file.get("endpoint").and_then(|section| section.get("id")).and_then(|id| id.as_str());
    ensure!(id.is_some(), "{} names no endpoint", config.display());
    Ok(id.unwrap_or_default().to_owned())
}
