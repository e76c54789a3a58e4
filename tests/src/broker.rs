//! Brokers for tests.
//!
//! One broker is shared by all tests of a run: the one the environment names,
//! else one in a container where `docker compose` works, else a private
//! `rabbitmq-server` process. Tests that stop their broker or change its
//! settings start a [`Private`] one. A broker that runs on the machine anyway
//! is never touched unless the environment names it.

mod broom;
mod certificate;
mod compose;
mod management;
mod private;
mod raw;
mod release;
mod vhost;

pub use certificate::Tls;
pub use compose::Compose;
pub use management::Management;
pub use private::{Options, Private, free_ports};
pub use raw::{Properties, Raw};
pub use release::{FOUR, Release};
pub use vhost::{Received, Vhost};

use anyhow::{Context as _, Result};
use std::sync::OnceLock;

/// The AMQP address of a broker to test against, as `amqp://user:password@host:port`.
pub const BROKER: &str = "CLUTCH_TEST_BROKER";
/// The address of its management API, as `http://user:password@host:port`.
pub const MANAGEMENT: &str = "CLUTCH_TEST_MANAGEMENT";

/// Where a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// AMQP, without a vhost: `amqp://user:password@host:port`.
    pub amqp: String,
    /// The management API: `http://user:password@host:port`.
    pub management: String,
}

impl Address {
    /// The address of a broker on this machine, with its first user.
    #[must_use]
    pub fn local(amqp_port: u16, management_port: u16) -> Self {
        Self {
            amqp: format!("amqp://guest:guest@127.0.0.1:{amqp_port}"),
            management: format!("http://guest:guest@127.0.0.1:{management_port}"),
        }
    }

    /// A new vhost on it.
    pub fn vhost(&self) -> Result<Vhost> {
        Vhost::create(self)
    }
}

/// A broker that is there for as long as this value is.
#[derive(Debug)]
pub enum Broker {
    /// One that the environment names.
    Given(Address),
    /// In a container.
    Compose(Compose),
    /// A process.
    Private(Box<Private>),
}

impl Broker {
    /// Finds or starts one.
    pub fn start() -> Result<Self> {
        if let Ok(amqp) = std::env::var(BROKER) {
            let management = std::env::var(MANAGEMENT)
                .with_context(|| format!("{BROKER} is set and {MANAGEMENT} is not"))?;
            return Ok(Self::Given(Address { amqp, management }));
        }
        if Compose::works() {
            return Compose::start().map(Self::Compose);
        }
        let private = Private::start(&Options::default())?;
        Ok(Self::Private(Box::new(private)))
    }

    /// Whether [`Broker::start`] has anything to start.
    #[must_use]
    pub fn available() -> bool {
        std::env::var_os(BROKER).is_some() || Private::available() || Compose::works()
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> &Address {
        match self {
            Self::Given(address) => address,
            Self::Compose(compose) => compose.address(),
            Self::Private(private) => private.address(),
        }
    }

    /// The one that all tests of this process share; started at first use.
    ///
    /// # Errors
    /// As [`Broker::start`], each time.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Broker, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow::anyhow!("the shared broker: {error}"))
    }
}
