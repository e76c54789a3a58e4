//! The endpoint's own way to the broker, so that it can be cut while the
//! service keeps its own: a symbolic link to the shared folder, or a proxy.

use super::proxy::Proxy;
use crate::cli::QueueArg;
use crate::failure::{CONFIG, Failure, REFUSED, UNAVAILABLE, usage};
use anyhow::Context as _;
use clutch_common::link::{Fault, Terms, transport};
use clutch_common::topology::{self, QueueKind};
use std::path::{Path, PathBuf};

/// The folder that both sides share, inside the demonstration's folder.
const SPOOL: &str = "spool";
/// The endpoint's way to it.
const WAY: &str = "link";
/// Where a broker listens unless its URL says otherwise.
const AMQP_PORT: u16 = 5672;
/// What --amqp takes.
const EXPECTED: &str = "amqp://user:password@host:port/vhost";

/// A link that can be cut and mended.
#[derive(Debug)]
pub(super) enum Link {
    /// Removing the symbolic link takes the folder from the endpoint alone.
    Folder {
        /// The symbolic link.
        way: PathBuf,
    },
    /// A proxy between endpoint and broker that closes and refuses.
    Proxy(Proxy),
}

/// What is to be between service and endpoint.
#[derive(Debug)]
pub(super) enum Route {
    /// A folder of the demonstration's own.
    Folder,
    /// A broker, at this URL.
    Broker {
        /// The URL, with its secrets.
        url: url::Url,
        /// The address, without them.
        address: String,
    },
}

impl Route {
    /// Over a broker, if one is given, or else over a folder.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub(super) fn over(amqp: Option<&str>) -> anyhow::Result<Self> {
        let Some(broker) = amqp else { return Ok(Self::Folder) };
        let bad = |reason: String| usage(format!("--amqp: {reason}"));
        let url = url::Url::parse(broker)
            .map_err(|error| bad(format!("{error}: expected {EXPECTED}")))?;
        match url.scheme() {
            "amqp" => (),
            "amqps" => {
                let words = "the link is cut by a proxy, which TLS would not trust";
                return Err(bad(format!("{words}: expected {EXPECTED}")));
            }
            other => return Err(bad(format!("the scheme is '{other}': expected {EXPECTED}"))),
        }
        let dialled = transport(broker, &Terms::default()).map_err(|e| bad(e.to_string()))?;
        Ok(Self::Broker { url, address: dialled.address() })
    }

    /// The kind of the queues: a broker's go by themselves, the folder goes as a
    /// whole.
    #[must_use]
    pub(super) fn queue(&self) -> Option<QueueArg> {
        match self {
            Self::Folder => None,
            Self::Broker { .. } => Some(QueueArg::Expiring),
        }
    }

    /// Takes a broker's vhost for demonstrations, which collect whatever results
    /// are there. One whose queues are not a demonstration's is refused, and
    /// left as it is: the broker does not declare a queue over another kind.
    ///
    /// # Errors
    /// When it is refused, or the broker cannot be used.
    pub(super) async fn claim(&self) -> anyhow::Result<()> {
        let Self::Broker { url, address } = self else { return Ok(()) };
        let broker = transport(url.as_str(), &Terms::default())?;
        let declared = async {
            let connection = broker.connect("clutch/demo").await?;
            let declared = connection.declare(&topology::shared(QueueKind::Expiring)).await;
            connection.close().await;
            declared
        };
        declared.await.map_err(|fault| unclaimed(&fault, address).into())
    }
}

/// The failure for a vhost that cannot be taken.
fn unclaimed(fault: &Fault, address: &str) -> Failure {
    if matches!(fault, Fault::Mismatch(_)) {
        let words = format!(
            "{address} has endpoints, and the demonstration would collect their results. Nothing \
             there was touched; give the demonstration a vhost of its own: `rabbitmqctl add_vhost \
             demo` makes one, `rabbitmqctl set_permissions -p demo USER '.*' '.*' '.*'` lets a \
             user in, and --amqp amqp://…/demo goes there"
        );
        return Failure::new(CONFIG, words);
    }
    let (code, advice) = if matches!(fault, Fault::Credentials(_) | Fault::Forbidden(_)) {
        (REFUSED, "the user in --amqp needs to configure, write and read in that vhost")
    } else {
        (UNAVAILABLE, "is it running, and is --amqp right?")
    };
    Failure::new(code, format!("cannot use the broker {address}: {fault}; {advice}"))
}

/// A link, and how both sides reach what is between them.
#[derive(Debug)]
pub(super) struct Ends {
    /// The link.
    pub(super) link: Link,
    /// The service's URL.
    pub(super) service: String,
    /// The endpoint's URL.
    pub(super) endpoint: String,
    /// What is between service and endpoint, for people.
    pub(super) between: String,
}

impl Ends {
    /// A link along a route; what it needs is inside `folder`.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub(super) async fn new(folder: &Path, route: &Route) -> anyhow::Result<Self> {
        match route {
            Route::Folder => Self::over_folder(folder),
            Route::Broker { url, address } => Self::over_broker(url, address).await,
        }
    }

    fn over_folder(folder: &Path) -> anyhow::Result<Self> {
        let way = folder.join(WAY);
        let url = |path: &Path| {
            url::Url::from_file_path(path)
                .map(String::from)
                .map_err(|()| anyhow::anyhow!("{} is not an absolute path", path.display()))
        };
        let (service, endpoint) = (url(&folder.join(SPOOL))?, url(&way)?);
        make_way(&way)?;
        let between = "a folder, no broker".to_owned();
        Ok(Self { link: Link::Folder { way }, service, endpoint, between })
    }

    async fn over_broker(broker: &url::Url, address: &str) -> anyhow::Result<Self> {
        let host = broker.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let proxy = Proxy::start(host, broker.port().unwrap_or(AMQP_PORT)).await?;
        let mut near = broker.clone();
        let led =
            near.set_host(Some("127.0.0.1")).is_ok() && near.set_port(Some(proxy.port())).is_ok();
        anyhow::ensure!(led, "--amqp: the URL cannot be led through a proxy");
        Ok(Self {
            link: Link::Proxy(proxy),
            service: broker.to_string(),
            endpoint: near.into(),
            between: address.to_owned(),
        })
    }
}

impl Link {
    /// Cuts the link: what is open ends, what is tried fails. That is so when this
    /// returns.
    ///
    /// # Errors
    /// When the folder's link cannot be removed, or the proxy has ended.
    pub(super) async fn cut(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Folder { way } => {
                std::fs::remove_file(&way).with_context(|| format!("removing {}", way.display()))
            }
            Self::Proxy(proxy) => proxy.let_through(false).await,
        }
    }

    /// Mends the link.
    ///
    /// # Errors
    /// When the folder's link cannot be made, or the proxy has ended.
    pub(super) async fn mend(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Folder { way } => make_way(way),
            Self::Proxy(proxy) => proxy.let_through(true).await,
        }
    }
}

fn make_way(way: &Path) -> anyhow::Result<()> {
    std::os::unix::fs::symlink(SPOOL, way).with_context(|| format!("making {}", way.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_folder_is_gone_for_the_endpoint_and_there_for_the_service() {
        let temp = tempfile::tempdir().unwrap();
        let mut ends = Ends::new(temp.path(), &Route::Folder).await.unwrap();
        std::fs::create_dir(temp.path().join(SPOOL)).unwrap();
        let there = |url: &str| url::Url::parse(url).unwrap().to_file_path().unwrap().exists();
        assert!(there(&ends.service) && there(&ends.endpoint));
        ends.link.cut().await.unwrap();
        assert!(there(&ends.service) && !there(&ends.endpoint));
        ends.link.mend().await.unwrap();
        assert!(there(&ends.endpoint));
    }

    #[tokio::test]
    async fn only_a_plain_broker_is_led_through_the_proxy_and_no_password_is_shown() {
        let temp = tempfile::tempdir().unwrap();
        let url = "amqp://u:secret@[::1]:99/lab";
        let route = Route::over(Some(url)).unwrap();
        let ends = Ends::new(temp.path(), &route).await.unwrap();
        assert_eq!(ends.service, url);
        assert!(ends.endpoint.starts_with("amqp://u:secret@127.0.0.1:"), "{}", ends.endpoint);
        assert!(ends.endpoint.ends_with("/lab"), "{}", ends.endpoint);
        assert_eq!(ends.between, "amqp://[::1]:99/lab");
        for (bad, words) in [
            ("amqps://h", "proxy"),
            ("http://h", "'http'"),
            ("file:///s", "'file'"),
            ("h", "--amqp"),
        ] {
            let error = Route::over(Some(bad)).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(EXPECTED), "{bad}: {error}");
        }
    }
}
