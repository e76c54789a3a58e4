//! A private RabbitMQ for these tests, and its management API.
//!
//! The broker is the child of a shell that waits on a pipe from the test
//! process: however that process ends, the broker ends, and its folder goes.
//! `CLUTCH_TEST_BROKER` and `CLUTCH_TEST_MANAGEMENT` name a broker to use
//! instead.

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

const BIN: &str = "/usr/lib/rabbitmq/bin";

/// Runs the broker until the pipe closes, then stops it and cleans up.
const KEEPER: &str = r#"
"$0/rabbitmq-server" >"$1/output" 2>&1 </dev/null &
broker=$!
read -r _
kill -TERM $broker
wait $broker
epmd -port "$ERL_EPMD_PORT" -kill >/dev/null 2>&1
rm -rf "$1"
"#;

/// A broker and where it listens.
pub(crate) struct Broker {
    amqp: url::Url,
    management: url::Url,
    tls: Option<Tls>,
    environment: Vec<(&'static str, String)>,
    _keeper: Option<Child>,
}

/// Where a private broker speaks TLS, and the certificate to trust for it.
pub(crate) struct Tls {
    port: u16,
    pub(crate) certificate: PathBuf,
}

/// The broker that most tests share, each in a vhost of its own.
pub(crate) fn shared() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| Broker::named().unwrap_or_else(Broker::start))
}

/// A broker of our own even where another is named, for what only `rabbitmqctl`
/// or its configuration can do; for one test at a time, since what is done to
/// it would trouble another. Whoever changes it changes it back.
pub(crate) async fn private() -> (MutexGuard<'static, ()>, &'static Broker) {
    static PRIVATE: OnceLock<Broker> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::const_new(());
    (ALONE.lock().await, PRIVATE.get_or_init(Broker::start))
}

impl Broker {
    fn named() -> Option<Self> {
        let variable = |name| std::env::var(name).ok().and_then(|url| url.parse().ok());
        Some(Self {
            amqp: variable("CLUTCH_TEST_BROKER")?,
            management: variable("CLUTCH_TEST_MANAGEMENT")?,
            tls: None,
            environment: Vec::new(),
            _keeper: None,
        })
    }

    /// Starts a broker of our own and waits until it answers.
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("clutch-amqp-").tempdir().unwrap().keep();
        let ports = free_ports();
        let [amqp, management, tls, ..] = ports;
        let certificate = certify(&folder);
        let environment = environment(&folder, ports);
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, BIN])
            .arg(&folder)
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let url = |scheme, port| format!("{scheme}://guest:guest@127.0.0.1:{port}");
        let broker = Self {
            amqp: url("amqp", amqp).parse().unwrap(),
            management: url("http", management).parse().unwrap(),
            tls: Some(Tls { port: tls, certificate }),
            environment,
            _keeper: Some(keeper),
        };
        let deadline = Instant::now() + super::toolkit::PATIENCE;
        while broker.try_api("GET", "health/checks/local-alarms", None).is_err() {
            let output = || std::fs::read_to_string(folder.join("output")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the broker did not start: {}", output());
            std::thread::park_timeout(Duration::from_millis(200));
        }
        broker
    }

    /// Asks the management API; the path begins after `/api/`.
    pub(crate) fn api(&self, method: &str, path: &str, body: Option<&str>) -> serde_json::Value {
        self.try_api(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_api(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<serde_json::Value, ureq::Error> {
        use base64::Engine as _;
        let url = &self.management;
        let login = format!("{}:{}", url.username(), url.password().unwrap_or_default());
        let login = base64::engine::general_purpose::STANDARD.encode(login);
        let port = url.port().unwrap_or(15672);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}:{port}/api/{path}", url.host_str().unwrap()))
            .header("authorization", format!("Basic {login}"))
            .header("content-type", "application/json")
            .body(body.unwrap_or_default().to_owned())
            .unwrap();
        let answer = ureq::run(request)?.body_mut().read_to_string()?;
        Ok(serde_json::from_str(&answer).unwrap_or(serde_json::Value::Null))
    }

    /// Runs `rabbitmqctl` on a private broker.
    pub(crate) fn ctl(&self, arguments: &[&str]) {
        let status = Command::new(format!("{BIN}/rabbitmqctl"))
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "rabbitmqctl {arguments:?}");
    }

    /// A fresh vhost.
    pub(crate) fn vhost(&self) -> Vhost<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{count}", std::process::id());
        self.api("PUT", &format!("vhosts/{name}"), Some("{}"));
        let vhost = Vhost { broker: self, name };
        vhost.permit(self.amqp.username(), ".*", ".*", ".*");
        vhost
    }
}

/// A vhost that goes with its test.
pub(crate) struct Vhost<'b> {
    pub(crate) broker: &'b Broker,
    pub(crate) name: String,
}

impl Vhost<'_> {
    /// The URL to connect by.
    pub(crate) fn url(&self) -> String {
        let mut url = self.broker.amqp.clone();
        url.set_path(&self.name);
        url.to_string()
    }

    /// The URL with another user.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        let mut url = self.broker.amqp.clone();
        url.set_path(&self.name);
        url.set_username(user).unwrap();
        url.set_password(Some(password)).unwrap();
        url.to_string()
    }

    /// The URL by way of another port.
    pub(crate) fn url_by(&self, port: u16) -> String {
        let mut url = self.broker.amqp.clone();
        url.set_path(&self.name);
        url.set_port(Some(port)).unwrap();
        url.to_string()
    }

    /// The URL over TLS, and the certificate to trust. Private brokers only.
    pub(crate) fn url_over_tls(&self) -> (String, &Path) {
        let tls = self.broker.tls.as_ref().expect("a private broker");
        (self.url_by(tls.port).replace("amqp://", "amqps://"), &tls.certificate)
    }

    /// Where the broker listens.
    pub(crate) fn port(&self) -> u16 {
        self.broker.amqp.port().unwrap_or(5672)
    }

    /// Adds a user, whose password is `secret`.
    pub(crate) fn user(&self, name: &str) {
        let body = r#"{"password":"secret","tags":""}"#;
        self.broker.api("PUT", &format!("users/{name}"), Some(body));
    }

    /// Sets a user's permissions.
    pub(crate) fn permit(&self, user: &str, configure: &str, write: &str, read: &str) {
        let body = serde_json::json!({ "configure": configure, "write": write, "read": read });
        let path = format!("permissions/{}/{user}", self.name);
        self.broker.api("PUT", &path, Some(&body.to_string()));
    }

    /// How the management API sees a connection; it learns of one only after a
    /// while.
    pub(crate) async fn connection(&self, name: &str) -> serde_json::Value {
        for _ in 0..600 {
            let all = self.broker.api("GET", &format!("vhosts/{}/connections", self.name), None);
            let named = |c: &&serde_json::Value| c["client_properties"]["connection_name"] == name;
            if let Some(connection) = all.as_array().unwrap().iter().find(named) {
                return connection.clone();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("the broker knows no connection {name}")
    }

    /// Closes a connection, the way an operator does.
    pub(crate) async fn close_connection(&self, name: &str) {
        let name = self.connection(name).await["name"].as_str().unwrap().replace(' ', "%20");
        self.broker.api("DELETE", &format!("connections/{}", name.replace('>', "%3E")), None);
    }
}

impl Drop for Vhost<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.broker.try_api("DELETE", &format!("vhosts/{}", self.name), None) {
            eprintln!("the vhost {} stays: {error}", self.name);
        }
    }
}

/// Makes a key and a certificate for this machine.
fn certify(folder: &Path) -> PathBuf {
    let certificate = folder.join("certificate.pem");
    let output = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '),
        )
        .args(["-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    certificate
}

fn environment(folder: &Path, ports: [u16; 5]) -> Vec<(&'static str, String)> {
    let [amqp, management, tls, distribution, epmd] = ports;
    let file = |name: &str, content: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let config = format!(
        "loopback_users.guest = false
         management.tcp.ip = 127.0.0.1
         management.tcp.port = {management}
         collect_statistics_interval = 500
         listeners.ssl.default = 127.0.0.1:{tls}
         ssl_options.cacertfile = {folder}/certificate.pem
         ssl_options.certfile = {folder}/certificate.pem
         ssl_options.keyfile = {folder}/key.pem
         ssl_options.verify = verify_none
         ",
        folder = folder.display(),
    );
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    vec![
        ("HOME", text(folder.to_owned())),
        ("RABBITMQ_NODENAME", format!("clutch{amqp}@localhost")),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", amqp.to_string()),
        ("RABBITMQ_DIST_PORT", distribution.to_string()),
        ("ERL_EPMD_PORT", epmd.to_string()),
        ("RABBITMQ_MNESIA_BASE", text(folder.join("mnesia"))),
        ("RABBITMQ_LOG_BASE", text(folder.join("log"))),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", text(file("plugins", "[rabbitmq_management]."))),
        ("RABBITMQ_CONFIG_FILE", text(file("rabbitmq.conf", &config))),
    ]
}

/// Ports that nobody listens at, below the range that the kernel gives to
/// outgoing connections: one of those could take them before the broker does.
fn free_ports() -> [u16; 5] {
    let free = || {
        let offset = RandomState::new().hash_one(0) % 10_000;
        TcpListener::bind(("127.0.0.1", 10_000 + u16::try_from(offset).unwrap())).ok()
    };
    let listeners = [(); 5].map(|()| std::iter::repeat_with(free).flatten().next().unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
