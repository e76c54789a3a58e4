//! AMQP 0.9.1 over lapin, as `RabbitMQ` speaks it.
//!
//! Only this file and those below it name lapin. Its automatic recovery stays
//! off: a connection lives once, and its owner opens the next one. An error of
//! lapin becomes a [`Fault`] in `classify`, and nowhere else.

mod browser;
mod budget;
mod classify;
mod connection;
mod dead_letter;
mod declare;
mod inlet;
mod outlet;
mod properties;
mod rehearsal;
mod sanitizer;
mod session;
mod short_name;
mod sizes;
mod socket;
mod stream;
mod window;

use super::{Check, Connection, Fault, InvalidUrl, Terms, Transport};
use async_trait::async_trait;
use lapin::uri::AMQPUri;
use sizes::Sizes;
use std::fmt;
use std::sync::Arc;

/// A `RabbitMQ` broker.
pub struct Amqp {
    uri: AMQPUri,
    terms: Terms,
    address: String,
    sizes: Arc<Sizes>,
}

impl Amqp {
    /// A broker at `url`. Without a user it is `guest`; without a path, or with
    /// an empty one, the vhost is `/`. What [`Terms`] say wins over the URL's
    /// query.
    ///
    /// # Errors
    /// When the URL names no host, or holds what AMQP cannot carry. The error
    /// never repeats the password.
    pub fn new(url: url::Url, terms: Terms) -> Result<Self, InvalidUrl> {
        let unreadable = |reason: &str| InvalidUrl::Unreadable(reason.to_owned());
        if url.host_str().unwrap_or_default().is_empty() {
            return Err(unreadable("it names no host"));
        }
        let mut uri: AMQPUri = url.as_str().parse().map_err(InvalidUrl::Unreadable)?;
        if let Some(url::Host::Ipv6(host)) = url.host() {
            uri.authority.host = host.to_string();
        }
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        if uri.vhost.len() > short_name::LONGEST {
            return Err(unreadable("its vhost is longer than 255 bytes"));
        }
        let address = format!(
            "{}://{}:{}/{}",
            uri.scheme,
            url.host_str().unwrap_or_default(),
            uri.authority.port,
            uri.vhost.replace('/', "%2f"),
        );
        uri.query.heartbeat = Some(heartbeat_seconds(&terms));
        uri.query.frame_max = Some(connection::FRAME_MAX);
        uri.query.channel_max = None;
        Ok(Self { uri, terms, address, sizes: Arc::default() })
    }
}

/// AMQP counts a heartbeat in whole seconds, and takes 0 for none.
fn heartbeat_seconds(terms: &Terms) -> u16 {
    u16::try_from(terms.heartbeat.as_secs()).unwrap_or(u16::MAX).max(1)
}

impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp")
            .field("address", &self.address)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for Amqp {
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, Fault> {
        Ok(Box::new(
            connection::AmqpConnection::open(&self.uri, &self.terms, &self.sizes, name).await?,
        ))
    }

    /// An endpoint has two connections at once, one of which is not enough: a broker may
    /// limit them.
    async fn check(&self) -> Vec<Check> {
        const WHAT: &str = "the broker takes a connection, and another one";
        let open = async || {
            connection::AmqpConnection::open(&self.uri, &self.terms, &self.sizes, "clutch/check")
                .await
        };
        let first = match open().await {
            Ok(first) => first,
            Err(fault) => return vec![Check::faulty(WHAT, fault)],
        };
        let check = match open().await {
            Ok(second) => {
                second.close().await;
                Check::passed(WHAT).with(&first.agreed())
            }
            Err(fault) => Check::faulty(WHAT, fault),
        };
        first.close().await;
        vec![check]
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::transport;

    fn amqp(url: &str) -> Result<Amqp, InvalidUrl> {
        Amqp::new(url::Url::parse(url).unwrap(), Terms::default())
    }

    #[test]
    fn an_address_names_host_port_and_vhost() {
        for (url, address) in [
            ("amqp://broker", "amqp://broker:5672/%2f"),
            ("amqp://broker/", "amqp://broker:5672/%2f"),
            ("amqp://broker/%2f", "amqp://broker:5672/%2f"),
            ("amqps://u:p@broker", "amqps://broker:5671/%2f"),
            ("amqp://u:p@10.1.2.3:99/lab", "amqp://10.1.2.3:99/lab"),
            ("amqp://[::1]:99/a%2Fb", "amqp://[::1]:99/a%2fb"),
        ] {
            assert_eq!(amqp(url).unwrap().address(), address, "{url}");
        }
    }

    #[test]
    fn the_host_that_is_dialled_is_the_one_in_the_url() {
        for (url, host) in [
            ("amqp://broker", "broker"),
            ("amqp://10.1.2.3", "10.1.2.3"),
            ("amqp://[fe80::1]:99", "fe80::1"),
        ] {
            assert_eq!(amqp(url).unwrap().uri.authority.host, host);
        }
    }

    #[test]
    fn an_odd_url_is_an_error_and_no_panic() {
        let long = format!("amqp://broker/{}", "v".repeat(256));
        for url in [
            "amqp:broker",
            "amqp:///vhost",
            "amqp://",
            "amqp://u:%ff@broker",
            "amqp://b/%ff",
            &long,
        ] {
            assert!(matches!(amqp(url), Err(InvalidUrl::Unreadable(_))), "{url}");
        }
    }

    #[test]
    fn the_password_is_in_no_text() {
        let transport = amqp("amqp://user:sesame@broker/%2f").unwrap();
        assert!(!format!("{transport:?}{}", transport.address()).contains("sesame"));
        let rejected = amqp("amqp://user:sesame@broker/%ff").unwrap_err();
        assert!(!format!("{rejected:?}{rejected}").contains("sesame"));
        for url in ["amqp://user:sesame@bro ker", "amqp:user:sesame@broker", "amqp://:sesame@"] {
            if let Err(error) = transport_error(url) {
                assert!(!format!("{error:?}{error}").contains("sesame"), "{url}");
            }
        }
    }

    fn transport_error(url: &str) -> Result<(), InvalidUrl> {
        transport(url, &Terms::default()).map(|_| ())
    }

    #[test]
    fn the_terms_win_over_the_urls_query() {
        let url = url::Url::parse("amqp://broker?heartbeat=600&frame_max=1&channel_max=1").unwrap();
        let seconds = |secs| std::time::Duration::from_secs(secs);
        for (heartbeat, expected) in [(0, 1), (7, 7), (100_000, u16::MAX)] {
            let terms = Terms { heartbeat: seconds(heartbeat), ..Terms::default() };
            let query = Amqp::new(url.clone(), terms).unwrap().uri.query;
            assert_eq!(query.heartbeat, Some(expected));
            assert_eq!(query.frame_max, Some(connection::FRAME_MAX));
            assert_eq!(query.channel_max, None);
        }
    }
}
