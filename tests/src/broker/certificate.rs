//! A key and a certificate for this machine, by which a private broker speaks TLS.

use crate::machine;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUEST: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                       -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE \
                       -addext subjectAltName=DNS:localhost,IP:127.0.0.1";

/// Where a private broker speaks TLS.
#[derive(Debug)]
pub struct Tls {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The certificate that a client has to trust.
    pub certificate: PathBuf,
}

/// Makes `key.pem` and `certificate.pem` in a folder, and names the certificate.
pub(super) fn make(folder: &Path) -> Result<PathBuf> {
    if machine::find("openssl").is_none() {
        machine::install(&["openssl"])?;
    }
    let certificate = folder.join("certificate.pem");
    let output = Command::new("openssl")
        .args(REQUEST.split_whitespace())
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(&certificate)
        .output()
        .context("running openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(certificate)
}

/// Lines for `rabbitmq.conf`; `folder` is what the broker calls the folder of the two.
pub(super) fn settings(folder: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("listeners.ssl.default = 127.0.0.1:{port}"),
        format!("ssl_options.cacertfile = {}", file("certificate.pem")),
        format!("ssl_options.certfile = {}", file("certificate.pem")),
        format!("ssl_options.keyfile = {}", file("key.pem")),
        "ssl_options.verify = verify_none".to_owned(),
    ]
}
