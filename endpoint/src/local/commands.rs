//! The commands that ask the daemon that runs here: `status`, `tasks`, `drain`, `resume`.

use super::client::Client;
use super::show;
use super::types::{DrainRequest, Status, Tasks};
use crate::cli::PlaceArgs;
use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure};
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often `drain --wait` looks whether a task still runs.
const LOOK: Duration = Duration::from_millis(500);

/// Prints how the daemon and its link are.
pub(crate) async fn status(place: &PlaceArgs, json: bool) -> Result<(), Failure> {
    let status: Status = client(place)?.get("/v1/status").await?;
    print(&status, json, show::status)
}

/// Prints the tasks that are accepted and not finished.
pub(crate) async fn tasks(place: &PlaceArgs, limit: usize, json: bool) -> Result<(), Failure> {
    let client = client(place)?;
    let tasks: Tasks = client.get(&format!("/v1/tasks?limit={limit}")).await?;
    print(&tasks, json, |tasks| show::tasks(tasks, clutch_common::system::clock::now_ms()))
}

/// DrainsView the endpoint, and waits until no task runs where that is asked for.
pub(crate) async fn drain(
    place: &PlaceArgs,
    deadline: Option<Duration>,
    wait: bool,
    json: bool,
) -> Result<(), Failure> {
    let client = client(place)?;
    let within_ms =
        deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
    let body = serde_json::to_string(&DrainRequest { within_ms });
    let body = body.map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let mut status: Status = client.post("/v1/drain", body).await?;
    while wait && status.running > 0 && status.drains.local.is_some() {
        tokio::time::sleep(LOOK).await;
        status = client.get("/v1/status").await?;
    }
    if wait && status.drains.local.is_none() {
        let words = "the endpoint was resumed while this waited for its tasks to finish";
        return Err(Failure::new(Exit::Unavailable, words));
    }
    print(&status, json, show::drained)
}

/// Ends the drain that `drain` began.
pub(crate) async fn resume(place: &PlaceArgs, json: bool) -> Result<(), Failure> {
    let status: Status = client(place)?.post("/v1/resume", String::new()).await?;
    print(&status, json, show::resumed)
}

/// Finds the state folder; the configuration is not read where the command line names it.
fn client(place: &PlaceArgs) -> Result<Client, Failure> {
    let state = match &place.state {
        Some(state) => absolute(state)?,
        None => Config::load(&place.config, Overrides::default())
            .map_err(|failure| {
                let words =
                    "to ask the daemon without that file, name its state folder: --state DIR";
                Failure::new(failure.exit, format!("{}; {words}", failure.message))
            })?
            .state_path()?,
    };
    Ok(Client::of(state))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::new(Exit::Config, format!("finding the folder {}: {error}", path.display()))
    })
}

/// Writes an answer to stdout: words for people, or one JSON object.
fn print<T: Serialize>(
    answer: &T,
    json: bool,
    words: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = if json {
        let text = serde_json::to_string(answer);
        text.map_err(|error| Failure::new(Exit::Internal, error.to_string()))? + "\n"
    } else {
        words(answer)
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Internal, format!("writing to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
