//! The deployment that the demonstration shows: a service and an endpoint, as processes of
//! their own, and the link between them. Everything is in one folder, and ends when it is
//! dropped.

use super::link::{CuttableLink, Route};
use super::processes::{CleanupGuard, Daemon, service_program};
use super::start_log::StartLog;
use crate::admin::provision;
use crate::cli::{BrokerArgs, ProvisionArgs};
use crate::client::Client;
use crate::config::Settings;
use crate::failure::{Failure, exit_code};
use crate::state_folder::StateFolder;
use anyhow::Context as _;
use clutch_common::id::EndpointId;
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
pub(super) struct Deployment {
    /// The service.
    pub(super) service: Daemon,
    /// The endpoint.
    pub(super) endpoint: Daemon,
    /// The endpoint's link.
    pub(super) link: CuttableLink,
    /// The way to ask the service.
    pub(super) client: Client,
    /// Where tasks note their starts.
    pub(super) start_log: StartLog,
    /// How many tasks the endpoint runs at once.
    pub(super) slots: usize,
    guard: CleanupGuard,
    locations: Locations,
}

/// Where everything is.
#[derive(Debug)]
struct Locations {
    folder: PathBuf,
    settings: Settings,
    endpoint: EndpointId,
    endpoint_program: PathBuf,
}

/// A deployment with a provisioned endpoint, before its daemons run.
#[derive(Debug)]
pub(super) struct ProvisionedDeployment {
    guard: CleanupGuard,
    link: CuttableLink,
    locations: Locations,
}

/// The contents of an endpoint's disk when it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskContents {
    /// Tasks that have no result.
    pub(super) tasks: u64,
    /// Results that are not delivered.
    pub(super) results: u64,
}

impl ProvisionedDeployment {
    /// Provisions an endpoint. It has to end before `folder` is removed: threads go on writing
    /// there if it is dropped.
    pub(super) async fn provision(
        folder: &Path,
        route: &Route,
        endpoint: EndpointId,
        endpoint_program: PathBuf,
    ) -> anyhow::Result<Self> {
        let guard = CleanupGuard::over(folder)?;
        let link = CuttableLink::new(folder, route).await?;
        let settings = Settings::of(&link.service_url, state_in(folder));
        let locations =
            Locations { folder: folder.to_owned(), settings, endpoint, endpoint_program };
        let provisioned = locations.provision(&link.endpoint_url).await;
        provisioned.map_err(|error| unprovisioned(&error, route))?;
        Ok(Self { guard, link, locations })
    }

    /// Starts both daemons; they are engaged.
    pub(super) async fn start(self) -> anyhow::Result<Deployment> {
        let Self { mut guard, link, locations } = self;
        let mut service = locations.serve(&link.service_url)?;
        guard.hold(&[&service])?;
        service.says("serving").await.context("starting the service")?;
        let mut endpoint = locations.run_endpoint()?;
        guard.hold(&[&service, &endpoint])?;
        let started = endpoint.says("starting").await.context("starting the endpoint")?;
        endpoint.says("engaged").await.context("connecting the endpoint")?;
        Ok(Deployment {
            service,
            endpoint,
            link,
            client: Client::new(&locations.settings.state),
            start_log: StartLog::at(locations.folder.join("starts")),
            slots: number(&started, "slots")?,
            guard,
            locations,
        })
    }
}

impl Deployment {
    /// Starts the endpoint again, on its own state folder, after it was killed.
    pub(super) async fn start_endpoint_again(&mut self) -> anyhow::Result<DiskContents> {
        self.endpoint = self.locations.run_endpoint()?;
        self.guard.hold(&[&self.service, &self.endpoint])?;
        let started = self.endpoint.says("starting").await.context("starting it again")?;
        Ok(DiskContents {
            tasks: number(&started, "tasks")?,
            results: number(&started, "results")?,
        })
    }

    /// Stops both, the endpoint first; the exit codes of service and endpoint.
    pub(super) async fn stop(mut self) -> anyhow::Result<[i32; 2]> {
        let endpoint = self.endpoint.stop().await.context("stopping the endpoint")?;
        let service = self.service.stop().await.context("stopping the service")?;
        Ok([service, endpoint])
    }

    /// Leaves both running, on a link that does without the demonstration; the
    /// process ids of service and endpoint.
    pub(super) async fn leave(mut self, route: &Route) -> anyhow::Result<[u32; 2]> {
        if let Route::Broker { url, .. } = route {
            self.endpoint.stop().await.context("stopping the endpoint")?;
            std::fs::remove_file(self.locations.endpoint_file())?;
            self.locations.provision(url.as_str()).await?;
            self.start_endpoint_again().await?;
            self.endpoint.says("engaged").await.context("connecting the endpoint")?;
        }
        let pids = [self.service.pid(), self.endpoint.pid()];
        self.service.leave();
        self.endpoint.leave();
        Ok(pids)
    }
}

impl Locations {
    fn endpoint_file(&self) -> PathBuf {
        self.folder.join("endpoint.toml")
    }

    async fn provision(&self, endpoint_broker: &str) -> anyhow::Result<()> {
        let arguments = ProvisionArgs {
            broker: BrokerArgs::default(),
            name: NAME.to_owned(),
            id: Some(self.endpoint),
            out: self.endpoint_file(),
            queue: None,
            heartbeat: HEARTBEAT,
            blocked_timeout: BLOCKED_TIMEOUT,
            lost_after: None,
            topic: Vec::new(),
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

/// Adds to a refusal by a broker where the demonstration can go instead.
fn unprovisioned(error: &anyhow::Error, route: &Route) -> anyhow::Error {
    let advice = match route {
        Route::Folder => "",
        Route::Broker { .. } => {
            ". The demonstration needs a vhost of its own, and one without Clutch in it: \
             `rabbitmqctl add_vhost demo` makes one, `rabbitmqctl set_permissions -p demo USER '.*' \
             '.*' '.*'` lets a user in, and --amqp amqp://…/demo uses it"
        }
    };
    Failure::new(exit_code(error), format!("{error:#}{advice}")).into()
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
