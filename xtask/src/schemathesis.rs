//! `cargo xtask schemathesis`: has schemathesis ask a running service whatever its OpenAPI
//! document allows and forbids, and compares the answers with the document.
//!
//! Touches: a service of its own in a folder of its own, with an endpoint that is provisioned
//! and never starts, over a spool folder in a broker's place; a port of the loopback interface,
//! which it joins to the service's socket; `target/python`, where schemathesis is put.
//! `xtask/schemathesis/` has its settings and the hooks that keep requests short.

use anyhow::{Context as _, Result, ensure};
use clutch_tests::process::Daemon;
use clutch_tests::world::World;
use clutch_tests::{python, workspace};
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;

/// The release of schemathesis.
const VERSION: &str = "4.32.5";
/// How many cases each operation is asked, in each phase that generates them.
const EXAMPLES: &str = "40";

/// The chore.
pub(crate) fn run() -> Result<ExitCode> {
    check().map(|()| ExitCode::SUCCESS)
}

/// Asks a service that it starts; fails if an answer is not as the document says.
pub(crate) fn check() -> Result<()> {
    let tool = python::tool("schemathesis", VERSION, "schemathesis")?;
    let world = World::in_folder()?;
    world.provision("lab")?;
    let mut service: Daemon = world.serve()?;
    world.service(&["submit", "lab", "--key", "first", "--", "true"])?.ok()?;
    let task = world.result("first")?["id"].as_str().context("the task has no id")?.to_owned();
    let port = bridge(world.folder().join("service/clutch.sock"))?;
    let url = format!("http://127.0.0.1:{port}");
    let folder = workspace().join("xtask/schemathesis");
    let mut asking = Command::new(tool);
    asking
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .args(["--no-color", "run", "--url", &url, "--max-examples", EXAMPLES])
        .args(["--generation-deterministic"])
        .arg(format!("{url}/v1/openapi.json"))
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("CLUTCH_TASK", task)
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(world.folder());
    let status = asking.status().context("running schemathesis")?;
    ensure!(service.exited()?.is_none(), "the service ended: {}", service.log()?);
    ensure!(status.success(), "schemathesis found what is not as service/openapi.json says");
    Ok(())
}

/// Joins a port of the loopback interface to a Unix socket, until the program ends.
fn bridge(socket: PathBuf) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Err(error) = join(client, &socket) {
                println!("the service cannot be reached: {error}");
            }
        }
    });
    Ok(port)
}

/// Copies both ways, each in a thread of its own.
fn join(client: TcpStream, socket: &Path) -> io::Result<()> {
    let service = UnixStream::connect(socket)?;
    let (from_client, mut to_service) = (client.try_clone()?, service.try_clone()?);
    let (from_service, mut to_client) = (service, client);
    thread::spawn(move || {
        copy(from_client, &mut to_service);
        drop(to_service.shutdown(Shutdown::Write));
    });
    thread::spawn(move || {
        copy(from_service, &mut to_client);
        drop(to_client.shutdown(Shutdown::Both));
    });
    Ok(())
}

/// Copies until either end is gone.
fn copy(mut from: impl io::Read, to: &mut impl io::Write) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer)
        && read > 0
        && let Some(bytes) = buffer.get(..read)
        && to.write_all(bytes).is_ok()
    {}
}
