//! A `rabbitmq-server` of our own: own node name, ports, folders, cookie and
//! port mapper, reachable on loopback only, gone with this value.

use super::broom::Broom;
use super::certificate::{self, Tls};
use super::release::Home;
use super::{Address, Management, Release};
use crate::leash::Leash;
use crate::poll;
use anyhow::{Context as _, Result, bail};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The server's script.
const SERVER: &str = "rabbitmq-server";
/// Ours are below the range that the kernel gives to outgoing connections: a
/// client that knocks at a stopped broker could otherwise connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a private broker differs from the default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which RabbitMQ.
    pub release: Release,
    /// Lines for `rabbitmq.conf`, such as `consumer_timeout = 60000`.
    pub settings: Vec<String>,
    /// Whether it speaks TLS too.
    pub tls: bool,
}

/// A broker process.
#[derive(Debug)]
pub struct Private {
    address: Address,
    amqp_port: u16,
    home: Home,
    environment: Vec<(String, String)>,
    log: PathBuf,
    tls: Option<Tls>,
    server: Option<Leash>,
    _port_mapper: Leash,
    _broom: Broom,
    _folder: TempDir,
}

impl Private {
    /// Whether one of the system's release can be started, if need be after
    /// installing it.
    #[must_use]
    pub fn available() -> bool {
        Release::System.available()
    }

    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When the server cannot be installed or does not come up; its log's end
    /// is in the message.
    pub fn start(options: &Options) -> Result<Self> {
        let home = options.release.home()?;
        let folder = home.folder()?;
        let [amqp, management, distribution, mapper, tls] = free_ports()?;
        let inside = home.inside(folder.path());
        let mut settings = options.settings.clone();
        let tls = if options.tls {
            settings.extend(certificate::settings(&inside, tls));
            Some(Tls { port: tls, certificate: certificate::make(folder.path())? })
        } else {
            None
        };
        write_settings(folder.path(), amqp, management, &settings)?;
        let environment = environment(&inside, amqp, distribution, mapper);
        let log = folder.path().join("console.log");
        let arguments = ["-address", "127.0.0.1", "-port", &mapper.to_string()].map(str::to_owned);
        let port_mapper = home.start("epmd", &arguments, &environment, &log)?;
        let mut broker = Self {
            address: Address::local(amqp, management),
            amqp_port: amqp,
            tls,
            _broom: Broom::for_folder(folder.path(), port_mapper.pid())?,
            _port_mapper: port_mapper,
            home,
            environment,
            log,
            server: None,
            _folder: folder,
        };
        wait_for_port(mapper)?;
        broker.run()?;
        Ok(broker)
    }

    /// Where it is reached; the same after a restart.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Where it speaks TLS, if it was started to.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Starts the server again on its old data.
    pub fn run(&mut self) -> Result<()> {
        if self.server.is_some() {
            bail!("the broker runs already");
        }
        let mut server = self.home.start(SERVER, &[], &self.environment, &self.log)?;
        let api = Management::new(&self.address)?;
        poll::until("the broker to start", PATIENCE, || {
            if let Some(code) = server.exited()? {
                bail!("the broker ended with code {code}:\n{}", self.log_end());
            }
            let amqp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.amqp_port));
            Ok(amqp.ok().and_then(|_| api.ready()))
        })
        .with_context(|| self.log_end())?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server in order.
    pub fn stop(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the broker does not run")?;
        server.signal("TERM")?;
        server.wait(PATIENCE).map(drop)
    }

    /// Ends the server by `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().context("the broker does not run")?.kill()
    }

    /// Stops the server in order and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.run()
    }

    /// Tells the running server something by `rabbitmqctl`.
    pub fn control(&self, arguments: &[&str]) -> Result<()> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        self.home.run("rabbitmqctl", &arguments, &self.environment)
    }

    /// Whether the server was started and not stopped since.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.server.is_some()
    }

    /// The server's log: warnings and errors.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

fn write_settings(folder: &Path, amqp: u16, management: u16, more: &[String]) -> Result<()> {
    let mut settings = vec![
        format!("listeners.tcp.1 = 127.0.0.1:{amqp}"),
        "management.tcp.ip = 127.0.0.1".to_owned(),
        format!("management.tcp.port = {management}"),
        "loopback_users = none".to_owned(),
        "disk_free_limit.absolute = 50MB".to_owned(),
        "collect_statistics_interval = 1000".to_owned(),
        "log.console = true".to_owned(),
        "log.console.level = warning".to_owned(),
        "log.file = false".to_owned(),
    ];
    settings.extend_from_slice(more);
    std::fs::write(folder.join("rabbitmq.conf"), settings.join("\n") + "\n")?;
    std::fs::write(folder.join("enabled_plugins"), "[rabbitmq_management].\n")?;
    std::fs::write(folder.join("rabbitmq-env.conf"), "")?;
    Ok(())
}

fn environment(folder: &Path, amqp: u16, distribution: u16, mapper: u16) -> Vec<(String, String)> {
    let inside = |name: &str| folder.join(name).display().to_string();
    [
        ("HOME", folder.display().to_string()),
        ("ERL_EPMD_PORT", mapper.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODENAME", format!("clutch-{amqp}@localhost")),
        ("RABBITMQ_DIST_PORT", distribution.to_string()),
        ("RABBITMQ_CONF_ENV_FILE", inside("rabbitmq-env.conf")),
        ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", inside("data")),
        ("RABBITMQ_LOG_BASE", inside("log")),
        ("RABBITMQ_PID_FILE", inside("pid")),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
        ),
        // The script then becomes the server, instead of watching over it.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Ports that no process listens at.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let span = u64::from(PORTS.end - PORTS.start);
    let mut held = Vec::with_capacity(N);
    for _ in 0..1000 {
        let offset = RandomState::new().hash_one(held.len()) % span;
        let port = PORTS.start + u16::try_from(offset)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
        if held.len() == N {
            let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
            return ports.try_into().map_err(|_| anyhow::anyhow!("{N} ports were found"));
        }
    }
    bail!("no {N} free ports in {PORTS:?}")
}

fn wait_for_port(port: u16) -> Result<()> {
    poll::until("the port mapper", PATIENCE, || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_are_outside_the_kernels_range() {
        let ports: [u16; 4] = free_ports().unwrap();
        let distinct: std::collections::BTreeSet<u16> = ports.into_iter().collect();
        assert_eq!(distinct.len(), 4);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
