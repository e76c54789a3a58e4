//! What the demonstration plays on: a service and an endpoint, as processes of
//! their own, and the endpoint's link between them. Everything is in one folder
//! and ends when it is dropped.

use super::link::{Ends, Link, Route};
use super::processes::{Daemon, Guard, service_program};
use super::starts::Witness;
use crate::admin::provision;
use crate::cli::{BrokerArgs, ProvisionArgs, QueueArg};
use crate::client::Client;
use crate::config::Settings;
use crate::state_folder::StateFolder;
use anyhow::Context as _;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The endpoint's name.
pub(super) const NAME: &str = "demo";
/// How many tasks run at once, at most: with more, the job would be over before
/// there was anything to see.
const MOST_SLOTS: usize = 4;
/// As an endpoint is provisioned by default.
const HEARTBEAT: Duration = Duration::from_secs(10);
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(60);

/// The two daemons and what is between them.
#[derive(Debug)]
pub(super) struct Stage {
    /// The service.
    pub(super) service: Daemon,
    /// The endpoint.
    pub(super) endpoint: Daemon,
    /// The endpoint's link.
    pub(super) link: Link,
    /// What is between service and endpoint, for people.
    pub(super) between: String,
    /// The way to ask the service.
    pub(super) client: Client,
    /// Where tasks note their starts.
    pub(super) witness: Witness,
    /// How many tasks the endpoint runs at once.
    pub(super) slots: usize,
    guard: Guard,
    place: Place,
}

/// Where everything is.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    settings: Settings,
    queue: Option<QueueArg>,
    endpoint_program: PathBuf,
}

/// A stage whose endpoint is provisioned, and on which nothing runs.
#[derive(Debug)]
pub(super) struct EmptyStage {
    guard: Guard,
    ends: Ends,
    place: Place,
}

/// What an endpoint found on its disk when it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Tasks that have no result.
    pub(super) tasks: u64,
    /// Results that are not delivered.
    pub(super) results: u64,
}

impl EmptyStage {
    /// Provisions an endpoint. Wait for its end before `folder` is removed: what
    /// it has begun in there goes on in threads when it is dropped.
    ///
    /// # Errors
    /// When the broker or the folder cannot be used.
    pub(super) async fn provision(
        folder: &Path,
        route: &Route,
        endpoint_program: PathBuf,
    ) -> anyhow::Result<Self> {
        let guard = Guard::over(folder)?;
        let ends = Ends::new(folder, route).await?;
        let settings = Settings::of(&ends.service, state_in(folder));
        let queue = route.queue();
        let place = Place { folder: folder.to_owned(), settings, queue, endpoint_program };
        place.provision(&ends.endpoint).await?;
        Ok(Self { guard, ends, place })
    }

    /// Starts both daemons; they are engaged.
    ///
    /// # Errors
    /// When a daemon does not start.
    pub(super) async fn start(self) -> anyhow::Result<Stage> {
        let Self { mut guard, ends, place } = self;
        let mut service = place.serve(&ends.service)?;
        guard.hold(&[&service])?;
        service.says("serving").await.context("starting the service")?;
        let mut endpoint = place.run_endpoint()?;
        guard.hold(&[&service, &endpoint])?;
        let started = endpoint.says("starting").await.context("starting the endpoint")?;
        endpoint.says("engaged").await.context("connecting the endpoint")?;
        Ok(Stage {
            service,
            endpoint,
            link: ends.link,
            between: ends.between,
            client: Client::new(&place.settings.state),
            witness: Witness::at(place.folder.join("starts")),
            slots: number(&started, "slots")?,
            guard,
            place,
        })
    }
}

impl Stage {
    /// Starts the endpoint again, on its own state folder, after it was killed.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn start_endpoint_again(&mut self) -> anyhow::Result<Found> {
        self.endpoint = self.place.run_endpoint()?;
        self.guard.hold(&[&self.service, &self.endpoint])?;
        let started = self.endpoint.says("starting").await.context("starting it again")?;
        Ok(Found { tasks: number(&started, "tasks")?, results: number(&started, "results")? })
    }

    /// Stops both, the endpoint first; the exit codes of service and endpoint.
    ///
    /// # Errors
    /// When one does not stop.
    pub(super) async fn stop(mut self) -> anyhow::Result<[i32; 2]> {
        let endpoint = self.endpoint.stop().await.context("stopping the endpoint")?;
        let service = self.service.stop().await.context("stopping the service")?;
        Ok([service, endpoint])
    }

    /// Leaves both running, on a link that does without the demonstration; the
    /// process ids of service and endpoint.
    ///
    /// # Errors
    /// When the endpoint cannot be moved to that link.
    pub(super) async fn leave(mut self, route: &Route) -> anyhow::Result<[u32; 2]> {
        if let Route::Broker { url, .. } = route {
            self.endpoint.stop().await.context("stopping the endpoint")?;
            std::fs::remove_file(self.place.endpoint_file())?;
            self.place.provision(url.as_str()).await?;
            self.start_endpoint_again().await?;
            self.endpoint.says("engaged").await.context("connecting the endpoint")?;
        }
        let pids = [self.service.pid(), self.endpoint.pid()];
        self.service.leave();
        self.endpoint.leave();
        Ok(pids)
    }
}

impl Place {
    fn endpoint_file(&self) -> PathBuf {
        self.folder.join("endpoint.toml")
    }

    async fn provision(&self, endpoint_broker: &str) -> anyhow::Result<()> {
        let arguments = ProvisionArgs {
            broker: BrokerArgs::default(),
            name: NAME.to_owned(),
            id: None,
            out: self.endpoint_file(),
            queue: self.queue,
            heartbeat: HEARTBEAT,
            blocked_timeout: BLOCKED_TIMEOUT,
            lost_after: None,
            endpoint_broker: Some(endpoint_broker.into()),
        };
        provision::endpoint(&self.settings, &arguments).await.context("provisioning")?;
        Ok(())
    }

    fn serve(&self, broker: &str) -> anyhow::Result<Daemon> {
        let state = self.settings.state.path().display().to_string();
        let (arguments, log) = (["serve", "--state", &state], self.folder.join("service.log"));
        Daemon::start(&service_program()?, &arguments, &[("CLUTCH_BROKER", broker)], &log)
    }

    fn run_endpoint(&self) -> anyhow::Result<Daemon> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let slots = cores.min(MOST_SLOTS).to_string();
        let config = self.endpoint_file().display().to_string();
        let state = self.folder.join("endpoint").display().to_string();
        let arguments = ["run", "--config", &config, "--state", &state, "--slots", &slots];
        Daemon::start(&self.endpoint_program, &arguments, &[], &self.folder.join("endpoint.log"))
    }
}

/// The service's state folder inside the demonstration's folder.
#[must_use]
pub(super) fn state_in(folder: &Path) -> StateFolder {
    StateFolder::new(folder.join("service"))
}

/// A number that a log line holds.
fn number<T: TryFrom<u64>>(line: &Value, name: &str) -> anyhow::Result<T> {
    let number = line[name].as_u64().and_then(|number| T::try_from(number).ok());
    number.with_context(|| format!("the log line has no number '{name}': {line}"))
}
