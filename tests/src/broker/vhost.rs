//! A vhost of a test's own: no other test sees the names in it.

use super::{Address, Management};
use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A vhost; it is deleted, with all that is in it, when this is dropped.
#[derive(Debug)]
pub struct Vhost {
    name: String,
    amqp: String,
    management: String,
    api: Management,
}

/// A message taken from a queue.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its properties, headers among them.
    pub properties: Value,
    /// The key it was routed by.
    pub routing_key: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Vhost {
    pub(super) fn create(address: &Address) -> Result<Self> {
        let name = format!("clutch-{}", uuid::Uuid::new_v4());
        let api = Management::new(address)?;
        api.call("PUT", &["vhosts", &name], None)?;
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        api.call("PUT", &["permissions", &name, api.user()], Some(&all))?;
        let Address { amqp, management } = address.clone();
        Ok(Self { name, amqp, management, api })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The AMQP URL of it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/{}", self.amqp, self.name)
    }

    /// The management API's URL.
    #[must_use]
    pub fn management(&self) -> &str {
        &self.management
    }

    /// The management API of its broker.
    #[must_use]
    pub fn api(&self) -> &Management {
        &self.api
    }

    /// The port at which its broker listens.
    pub fn port(&self) -> Result<u16> {
        Ok(url::Url::parse(&self.amqp)?.port().unwrap_or(5672))
    }

    /// The URL of it by way of another port.
    pub fn url_by(&self, port: u16) -> Result<String> {
        let mut url = url::Url::parse(&self.url())?;
        if url.set_port(Some(port)).is_err() {
            bail!("no port can be put into {url}");
        }
        Ok(url.into())
    }

    /// The URL of it for another user.
    pub fn url_as(&self, user: &str, password: &str) -> Result<String> {
        let mut url = url::Url::parse(&self.url())?;
        if url.set_username(user).is_err() || url.set_password(Some(password)).is_err() {
            bail!("no user can be put into {url}");
        }
        Ok(url.into())
    }

    /// How many messages a queue holds, ready and delivered ones. `None` if
    /// there is no such queue or the broker has not counted yet.
    pub fn depth(&self, queue: &str) -> Result<Option<u64>> {
        let queues = self.queues()?;
        let found = queues.iter().find(|candidate| candidate["name"] == queue);
        Ok(found.and_then(|queue| queue["messages"].as_u64()))
    }

    /// The queues, as the API describes them.
    pub fn queues(&self) -> Result<Vec<Value>> {
        list(self.api.call("GET", &["queues", &self.name], None)?)
    }

    /// Declares a durable queue with the given `x-…` arguments.
    pub fn declare(&self, queue: &str, arguments: Value) -> Result<()> {
        let body = json!({ "durable": true, "arguments": arguments });
        self.api.call("PUT", &["queues", &self.name, queue], Some(&body)).map(drop)
    }

    /// Deletes a queue with all that is in it.
    pub fn delete(&self, queue: &str) -> Result<()> {
        self.api.call("DELETE", &["queues", &self.name, queue], None).map(drop)
    }

    /// Empties a queue, but for what is delivered and not settled.
    pub fn purge(&self, queue: &str) -> Result<()> {
        self.api.call("DELETE", &["queues", &self.name, queue, "contents"], None).map(drop)
    }

    /// Deletes an exchange.
    pub fn delete_exchange(&self, exchange: &str) -> Result<()> {
        self.api.call("DELETE", &["exchanges", &self.name, exchange], None).map(drop)
    }

    /// Removes the binding of a queue to an exchange.
    pub fn unbind(&self, exchange: &str, queue: &str, key: &str) -> Result<()> {
        let path = ["bindings", &self.name, "e", exchange, "q", queue, key];
        self.api.call("DELETE", &path, None).map(drop)
    }

    /// Lays a policy over the queues with names that match.
    pub fn policy(&self, name: &str, pattern: &str, definition: &Value) -> Result<()> {
        let body = json!({ "pattern": pattern, "definition": definition, "apply-to": "queues" });
        self.api.call("PUT", &["policies", &self.name, name], Some(&body)).map(drop)
    }

    /// Takes a policy away.
    pub fn delete_policy(&self, name: &str) -> Result<()> {
        self.api.call("DELETE", &["policies", &self.name, name], None).map(drop)
    }

    /// Publishes a persistent message; `properties` are AMQP's, by their names.
    pub fn publish(
        &self,
        exchange: &str,
        key: &str,
        mut properties: Value,
        body: &[u8],
    ) -> Result<()> {
        let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
        properties["delivery_mode"] = json!(2);
        let message = json!({
            "properties": properties,
            "routing_key": key,
            "payload": STANDARD.encode(body),
            "payload_encoding": "base64",
        });
        let path = ["exchanges", &self.name, exchange, "publish"];
        let answer = self.api.call("POST", &path, Some(&message))?;
        if answer["routed"] != true {
            bail!("no queue took the message for '{key}' at '{exchange}'");
        }
        Ok(())
    }

    /// Takes up to `count` messages from a queue, for good.
    pub fn take(&self, queue: &str, count: usize) -> Result<Vec<Received>> {
        self.get(queue, count, "ack_requeue_false")
    }

    /// Refuses up to `count` messages of a queue: they become dead letters.
    pub fn refuse(&self, queue: &str, count: usize) -> Result<Vec<Received>> {
        self.get(queue, count, "reject_requeue_false")
    }

    /// Takes up to `count` messages from a queue and gives them back: one delivery
    /// of each.
    pub fn give_back(&self, queue: &str, count: usize) -> Result<Vec<Received>> {
        self.get(queue, count, "reject_requeue_true")
    }

    fn get(&self, queue: &str, count: usize, ackmode: &str) -> Result<Vec<Received>> {
        let body = json!({ "count": count, "ackmode": ackmode, "encoding": "base64" });
        let path = ["queues", &self.name, queue, "get"];
        list(self.api.call("POST", &path, Some(&body))?)?.into_iter().map(received).collect()
    }

    /// The connections into this vhost, as the API describes them.
    pub fn connections(&self) -> Result<Vec<Value>> {
        list(self.api.call("GET", &["vhosts", &self.name, "connections"], None)?)
    }

    /// Closes every connection into this vhost and says how many there were.
    pub fn close_connections(&self) -> Result<usize> {
        let connections = self.connections()?;
        for connection in &connections {
            let name = connection["name"].as_str().context("a connection without a name")?;
            // One that is closing by itself may be gone already.
            drop(self.api.call("DELETE", &["connections", name], None));
        }
        Ok(connections.len())
    }

    /// Makes a user with the given permissions (configure, write, read) here.
    pub fn user(&self, name: &str, password: &str, permissions: [&str; 3]) -> Result<()> {
        let body = json!({ "password": password, "tags": "" });
        self.api.call("PUT", &["users", name], Some(&body))?;
        let [configure, write, read] = permissions;
        let body = json!({ "configure": configure, "write": write, "read": read });
        self.api.call("PUT", &["permissions", &self.name, name], Some(&body)).map(drop)
    }

    /// Deletes a user that [`Vhost::user`] made.
    pub fn delete_user(&self, name: &str) -> Result<()> {
        self.api.call("DELETE", &["users", name], None).map(drop)
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // A broker that was stopped takes its vhosts along.
        drop(self.api.call("DELETE", &["vhosts", &self.name], None));
    }
}

fn list(answer: Value) -> Result<Vec<Value>> {
    if let Value::Array(items) = answer {
        return Ok(items);
    }
    bail!("the management API sent no list: {answer}")
}

fn received(message: Value) -> Result<Received> {
    let payload = message["payload"].as_str().context("a message without a payload")?;
    let body = if message["payload_encoding"] == "base64" {
        STANDARD.decode(payload)?
    } else {
        payload.as_bytes().to_vec()
    };
    let routing_key = message["routing_key"].as_str().unwrap_or_default().to_owned();
    Ok(Received { properties: message["properties"].clone(), routing_key, body })
}
