//! The product as people run it: `clutch-service serve` and `clutch-endpoint
//! run`, each a process, on a virtual host of their own.
//!
//! Touches: processes, a folder, and the broker. Everything is gone when this is
//! dropped.

use crate::api::Api;
use anyhow::{Context as _, Result, ensure};
use clutch_common::id::EndpointId;
use clutch_tests::broker::Address;
use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use std::path::PathBuf;
use std::time::Duration;

/// The endpoint's name.
pub(crate) const NAME: &str = "bench";

/// A provisioned endpoint, and a service if it was asked for.
pub(crate) struct Pair {
    /// Where they are.
    pub(crate) world: World,
    /// The endpoint.
    pub(crate) endpoint: Endpoint,
    /// `clutch-service serve`.
    pub(crate) service: Option<Daemon>,
    /// `clutch-endpoint run`.
    pub(crate) daemon: Option<Daemon>,
}

impl Pair {
    /// Provisions an endpoint with further lines of `endpoint.toml`; nothing
    /// runs yet.
    pub(crate) fn provision(broker: &Address, settings: &str) -> Result<Self> {
        let world = World::on(broker)?;
        let endpoint = world.provision(NAME)?;
        let pair = Self { world, endpoint, service: None, daemon: None };
        pair.configure(settings)?;
        Ok(pair)
    }

    /// Adds lines to `endpoint.toml`, for the next start.
    pub(crate) fn configure(&self, settings: &str) -> Result<()> {
        let mut file = std::fs::read_to_string(&self.endpoint.config)?;
        file.push_str(settings);
        Ok(std::fs::write(&self.endpoint.config, file)?)
    }

    /// Starts the service.
    pub(crate) fn serve(&mut self) -> Result<()> {
        self.service = Some(self.world.serve()?);
        Ok(())
    }

    /// Starts the endpoint's daemon with so many slots.
    pub(crate) fn run(&mut self, slots: usize) -> Result<()> {
        let slots = slots.to_string();
        self.daemon = Some(self.world.run_with(&self.endpoint, &["--slots", &slots])?);
        Ok(())
    }

    /// The endpoint's id.
    pub(crate) fn id(&self) -> Result<EndpointId> {
        self.endpoint.id.parse().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Where the endpoint's daemon keeps its state.
    pub(crate) fn state_folder(&self) -> PathBuf {
        self.world.folder().join("state/clutch/endpoints").join(&self.endpoint.id)
    }

    /// The service's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.world.folder().join("service/clutch.sock")
    }

    /// A connection to the service's API.
    pub(crate) async fn api(&self) -> Result<Api> {
        Api::connect(&self.socket()).await
    }

    /// Runs a command of `clutch-service` that has to succeed.
    pub(crate) fn command(&self, arguments: &[&str], within: Duration) -> Result<String> {
        let output = self.world.service_within(arguments, within)?.ok();
        Ok(output.with_context(|| format!("clutch-service {}", arguments.join(" ")))?.text())
    }

    /// CPU time of the service and of the endpoint's daemon so far, without that of
    /// the processes it started.
    pub(crate) fn cpu_time(&self) -> Result<[Duration; 2]> {
        let of = |daemon: &Option<Daemon>| daemon.as_ref().context("it does not run")?.cpu_time();
        Ok([of(&self.service)?, of(&self.daemon)?])
    }

    /// Stops the endpoint's daemon in order.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            ensure!(daemon.stop(SOON)? == 0, "the endpoint did not end well");
        }
        Ok(())
    }
}
