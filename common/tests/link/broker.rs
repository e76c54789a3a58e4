//! The brokers of these tests: the harness's, in the words of these tests.

use clutch_tests::broker::{Broker, Options, Private, Vhost};
use clutch_tests::proxy::Proxy;
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// A vhost on the broker that most tests share.
pub(crate) fn vhost() -> Vhost {
    Broker::shared().unwrap().address().vhost().unwrap()
}

/// A broker that no other test uses meanwhile, for what only `rabbitmqctl` or a
/// broker's configuration can do. A test undoes what it did.
pub(crate) async fn private() -> (MutexGuard<'static, ()>, &'static Private) {
    static PRIVATE: OnceLock<Private> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::const_new(());
    let options = Options { tls: true, ..Options::default() };
    (ALONE.lock().await, PRIVATE.get_or_init(|| Private::start(&options).unwrap()))
}

/// A proxy before the broker of a vhost.
pub(crate) fn proxy(vhost: &Vhost) -> Proxy {
    Proxy::before(([127, 0, 0, 1], vhost.port().unwrap()).into()).unwrap()
}

/// The URL of a vhost by way of a proxy.
pub(crate) fn through(proxy: &Proxy, vhost: &Vhost) -> String {
    vhost.url_by(proxy.port()).unwrap()
}

/// Adds a user with the password `secret` and these permissions: to configure, write, read.
pub(crate) fn user(vhost: &Vhost, name: &str, permissions: [&str; 3]) -> String {
    vhost.user(name, "secret", permissions).unwrap();
    vhost.url_as(name, "secret").unwrap()
}

/// Sets a limit of the broker.
pub(crate) fn limit(vhost: &Vhost, path: [&str; 3], value: u32) {
    vhost.api().call("PUT", &path, Some(&json!({ "value": value }))).unwrap();
}

/// How the management API sees a connection; it learns of one only after a
/// while.
pub(crate) async fn connection(vhost: &Vhost, name: &str) -> Value {
    for _ in 0..600 {
        let named = |one: &Value| one["client_properties"]["connection_name"] == name;
        if let Some(connection) = vhost.connections().unwrap().into_iter().find(named) {
            return connection;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the broker knows no connection {name}")
}

/// Closes a connection, the way an operator does.
pub(crate) async fn close_connection(vhost: &Vhost, name: &str) {
    let connection = connection(vhost, name).await;
    let name = connection["name"].as_str().unwrap();
    vhost.api().call("DELETE", &["connections", name], None).unwrap();
}
