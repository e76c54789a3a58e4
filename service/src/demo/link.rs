//! The endpoint's link, which can be cut while the service keeps its own: a symbolic link to
//! the shared folder, or a proxy to the broker.

use super::proxy::Proxy;
use crate::failure::usage;
use anyhow::Context as _;
use clutch_common::id::EndpointId;
use clutch_common::link::{Terms, transport};
use clutch_common::topology::{self, OWNER_QUEUE, RESULTS_QUEUE};
use std::path::{Path, PathBuf};

/// The folder that both sides share, inside the demonstration's folder.
const SPOOL: &str = "spool";
/// The symbolic link by which the endpoint reaches it.
const SYMLINK: &str = "link";
/// Where a broker listens unless its URL says otherwise.
const AMQP_PORT: u16 = 5672;
/// The form of --amqp.
const EXPECTED: &str = "amqp://user:password@host:port/vhost";

/// The transport between service and endpoint.
#[derive(Debug)]
pub(super) enum Route {
    /// A folder of the demonstration's own.
    Folder,
    /// A broker.
    Broker {
        /// Its URL, with the password.
        url: url::Url,
        /// Its address, without the password.
        address: String,
    },
}

impl Route {
    /// A broker, if one is given, or else a folder.
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

    /// Removes the queues that the demonstration has declared at a broker, and its claim to
    /// the results. A folder goes as a whole.
    pub(super) async fn clear(&self, endpoint: EndpointId) -> anyhow::Result<()> {
        let Self::Broker { url, address } = self else { return Ok(()) };
        let doing = || format!("removing the demonstration's queues at {address}");
        let broker = transport(url.as_str(), &Terms::default())?;
        let connection = broker.connect("clutch/demo").await.with_context(doing)?;
        for queue in [&topology::tasks_queue(endpoint), RESULTS_QUEUE, OWNER_QUEUE] {
            connection.remove_queue(queue).await.with_context(doing)?;
        }
        connection.close().await;
        Ok(())
    }
}

/// A link that can be cut and mended.
#[derive(Debug)]
pub(super) struct CuttableLink {
    /// The URL by which the service reaches the route.
    pub(super) service_url: String,
    /// The URL by which the endpoint does.
    pub(super) endpoint_url: String,
    /// The transport between service and endpoint, for people.
    pub(super) between: String,
    cut_at: CutAt,
}

/// Where the link is cut.
#[derive(Debug)]
enum CutAt {
    /// At this symbolic link: without it the endpoint alone has no folder.
    Symlink(PathBuf),
    Proxy(Proxy),
}

impl CuttableLink {
    /// A link along a route. Its files are inside `folder`.
    pub(super) async fn new(folder: &Path, route: &Route) -> anyhow::Result<Self> {
        match route {
            Route::Folder => Self::over_folder(folder),
            Route::Broker { url, address } => Self::over_broker(url, address).await,
        }
    }

    fn over_folder(folder: &Path) -> anyhow::Result<Self> {
        let symlink = folder.join(SYMLINK);
        let url = |path: &Path| {
            url::Url::from_file_path(path)
                .map(String::from)
                .map_err(|()| anyhow::anyhow!("{} is not an absolute path", path.display()))
        };
        make_symlink(&symlink)?;
        Ok(Self {
            service_url: url(&folder.join(SPOOL))?,
            endpoint_url: url(&symlink)?,
            between: "a folder, no broker".to_owned(),
            cut_at: CutAt::Symlink(symlink),
        })
    }

    async fn over_broker(broker: &url::Url, address: &str) -> anyhow::Result<Self> {
        let host = broker.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let proxy = Proxy::start(host, broker.port().unwrap_or(AMQP_PORT)).await?;
        let mut near = broker.clone();
        let led =
            near.set_host(Some("127.0.0.1")).is_ok() && near.set_port(Some(proxy.port)).is_ok();
        anyhow::ensure!(led, "--amqp: the URL cannot be led through a proxy");
        Ok(Self {
            service_url: broker.to_string(),
            endpoint_url: near.into(),
            between: address.to_owned(),
            cut_at: CutAt::Proxy(proxy),
        })
    }

    /// Cuts the link: when this returns, open connections have ended and new ones fail.
    pub(super) async fn cut(&mut self) -> anyhow::Result<()> {
        match &mut self.cut_at {
            CutAt::Symlink(symlink) => std::fs::remove_file(&*symlink)
                .with_context(|| format!("removing {}", symlink.display()))?,
            CutAt::Proxy(proxy) => proxy.cut().await,
        }
        Ok(())
    }

    /// Mends the link.
    pub(super) async fn mend(&mut self) -> anyhow::Result<()> {
        match &mut self.cut_at {
            CutAt::Symlink(symlink) => make_symlink(symlink),
            CutAt::Proxy(proxy) => proxy.mend().await,
        }
    }
}

fn make_symlink(at: &Path) -> anyhow::Result<()> {
    std::os::unix::fs::symlink(SPOOL, at).with_context(|| format!("making {}", at.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_folder_is_gone_for_the_endpoint_and_there_for_the_service() {
        let temp = tempfile::tempdir().unwrap();
        let mut link = CuttableLink::new(temp.path(), &Route::Folder).await.unwrap();
        std::fs::create_dir(temp.path().join(SPOOL)).unwrap();
        let there = |url: &str| url::Url::parse(url).unwrap().to_file_path().unwrap().exists();
        assert!(there(&link.service_url) && there(&link.endpoint_url));
        link.cut().await.unwrap();
        assert!(there(&link.service_url) && !there(&link.endpoint_url));
        link.mend().await.unwrap();
        assert!(there(&link.endpoint_url));
    }

    #[tokio::test]
    async fn only_a_plain_broker_is_led_through_the_proxy_and_no_password_is_shown() {
        let temp = tempfile::tempdir().unwrap();
        let url = "amqp://u:secret@[::1]:99/lab";
        let route = Route::over(Some(url)).unwrap();
        let link = CuttableLink::new(temp.path(), &route).await.unwrap();
        assert_eq!(link.service_url, url);
        assert!(link.endpoint_url.starts_with("amqp://u:secret@127.0.0.1:"), "{link:?}");
        assert!(link.endpoint_url.ends_with("/lab"), "{link:?}");
        assert_eq!(link.between, "amqp://[::1]:99/lab");
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
