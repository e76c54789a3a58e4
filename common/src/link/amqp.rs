//! AMQP 0.9.1 over lapin.

use super::{Connection, Fault, InvalidUrl, Terms, Transport};
use async_trait::async_trait;

/// A RabbitMQ broker.
pub struct Amqp {
    url: url::Url,
    terms: Terms,
}

impl Amqp {
    /// A broker at `url`.
    ///
    /// # Errors
    /// When the URL lacks what AMQP needs.
    pub fn new(url: url::Url, terms: Terms) -> Result<Self, InvalidUrl> {
        Ok(Self { url, terms })
    }
}

#[async_trait]
impl Transport for Amqp {
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, Fault> {
        Err(Fault::Unreachable(format!("{name} {:?}", self.terms)))
    }
    fn address(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }
}
