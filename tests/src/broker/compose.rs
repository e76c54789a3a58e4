//! A broker in a container, by the project's own `docker-compose.yml`.

use super::{Address, Management, private};
use crate::poll;
use anyhow::{Context as _, Result, ensure};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A running compose project; it is taken down when this is dropped.
#[derive(Debug)]
pub struct Compose {
    project: String,
    address: Address,
}

impl Compose {
    /// Whether a container engine with `compose` answers.
    #[must_use]
    pub fn works() -> bool {
        let silent = |arguments: &[&str]| {
            Command::new("docker")
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        silent(&["compose", "version"]) && silent(&["info"])
    }

    /// Starts a broker under a project name and ports of its own.
    pub fn start() -> Result<Self> {
        let [amqp, management] = private::free_ports()?;
        let compose = Self {
            project: format!("clutch-test-{}", std::process::id()),
            address: Address::local(amqp, management),
        };
        let status = compose
            .command(&["up", "--detach", "--quiet-pull"])
            .env("CLUTCH_AMQP_PORT", amqp.to_string())
            .env("CLUTCH_MANAGEMENT_PORT", management.to_string())
            .status()
            .context("running docker compose")?;
        ensure!(status.success(), "docker compose up failed: {status}");
        let api = Management::new(&compose.address)?;
        poll::until("the broker in its container", Duration::from_secs(120), || Ok(api.ready()))?;
        Ok(compose)
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(["compose", "--project-name", &self.project, "--file"])
            .arg(crate::workspace().join("docker-compose.yml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        drop(self.command(&["down", "--volumes"]).status());
    }
}
