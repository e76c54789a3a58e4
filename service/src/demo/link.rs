//! The endpoint's own way to the broker, so that it can be cut while the
//! service keeps its own: a symbolic link to the shared folder, or a proxy.

use super::proxy::Proxy;
use crate::failure::usage;
use anyhow::Context as _;
use clutch_common::link::{Terms, transport};
use std::path::{Path, PathBuf};

/// The folder that both sides share, inside the demonstration's folder.
const SPOOL: &str = "spool";
/// The endpoint's way to it.
const WAY: &str = "link";

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

/// A link, and how both sides reach what is between them.
#[derive(Debug)]
pub(super) struct Ends {
    /// The link.
    pub(super) link: Link,
    /// The service's URL.
    pub(super) service: String,
    /// The endpoint's URL.
    pub(super) endpoint: String,
    /// What is between service and endpoint, for people, without secrets.
    pub(super) between: String,
}

impl Ends {
    /// A link over a broker, or else over a folder inside `folder`.
    ///
    /// # Errors
    /// When the URL cannot be used, or the link cannot be made.
    pub(super) async fn new(folder: &Path, amqp: Option<&str>) -> anyhow::Result<Self> {
        match amqp {
            Some(broker) => Self::over_broker(broker).await,
            None => Self::over_folder(folder),
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
        let link = Link::Folder { way };
        let between = "a folder, no broker".to_owned();
        Ok(Self { link, service, endpoint, between })
    }

    async fn over_broker(broker: &str) -> anyhow::Result<Self> {
        let bad = |reason: String| usage(format!("--amqp: {reason}"));
        let dialled = transport(broker, &Terms::default()).map_err(|e| bad(e.to_string()))?;
        let mut url = url::Url::parse(broker).map_err(|error| bad(error.to_string()))?;
        if url.scheme() != "amqp" {
            return Err(bad(format!(
                "the scheme is '{}', and the link is cut by a proxy that TLS would not trust: give \
                 an amqp:// URL",
                url.scheme()
            )));
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let proxy = Proxy::start(host, url.port().unwrap_or(5672)).await?;
        let local = url
            .set_host(Some("127.0.0.1"))
            .is_ok()
            .then(|| url.set_port(Some(proxy.port())))
            .is_some_and(|set| set.is_ok());
        anyhow::ensure!(local, "--amqp: the URL cannot be led through a proxy");
        Ok(Self {
            link: Link::Proxy(proxy),
            service: broker.to_owned(),
            endpoint: url.into(),
            between: dialled.address(),
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
        let mut ends = Ends::new(temp.path(), None).await.unwrap();
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
        let ends = Ends::new(temp.path(), Some(url)).await.unwrap();
        assert_eq!(ends.service, url);
        assert!(ends.endpoint.starts_with("amqp://u:secret@127.0.0.1:"), "{}", ends.endpoint);
        assert!(ends.endpoint.ends_with("/lab"), "{}", ends.endpoint);
        assert_eq!(ends.between, "amqp://[::1]:99/lab");
        for (bad, words) in [("amqps://h", "amqp://"), ("http://h", "scheme"), ("h", "--amqp")] {
            let error = Ends::new(temp.path(), Some(bad)).await.unwrap_err();
            assert!(error.to_string().contains(words), "{bad}: {error}");
        }
    }
}
