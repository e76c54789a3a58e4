//! `clutch-service demo`: shows on real files, with real faults, that Clutch loses nothing.
//! Needs no broker and no state.
//!
//! Everything it writes is in one private temporary folder, which is removed at the end
//! unless `--keep` was given or something failed. `scenario` has the steps, `deployment` the
//! daemons and the link between them, `proof` the comparison with the expected results.

mod deployment;
mod files;
mod link;
mod log_follower;
mod narrator;
mod processes;
mod proof;
mod proxy;
mod scenario;
mod start_log;

use crate::cli::output;
use crate::cli::{DemoArgs, GlobalArgs};
use crate::failure::{CANNOT_CREATE, Failure, GENERAL, exit_code};
use crate::model::quoted;
use anyhow::Context as _;
use clutch_common::id::EndpointId;
use clutch_common::system::removal;
use clutch_common::system::signals::StopSignals;
use clutch_common::text::secret::SecretUrl;
use deployment::{NAME, ProvisionedDeployment};
use files::Files;
use indicatif::HumanBytes;
use link::Route;
use narrator::Narrator;
use processes::PAUSE;
use proof::ProofCounts;
use rustix::fs::statvfs;
use scenario::{KEY, Measurements, Timings, play};
use serde::Serialize;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// The exit code of a shell for what INT ended.
const INTERRUPTED: u8 = 130;
/// How much must be free in the temporary folder's file system, in bytes. An endpoint
/// takes no work that would leave less than 64 MiB; the rest is for its state, the
/// service's, and what is between them.
const ROOM: u64 = 128 * 1024 * 1024;
/// How long removing the folder is tried.
const REMOVING: Duration = Duration::from_secs(5);

/// The output of `--json`.
#[derive(Debug, Serialize)]
struct DemoReport {
    /// Whether the proof holds.
    holds: bool,
    /// The rules that are broken, and the differences.
    complaints: Vec<String>,
    #[serde(flatten)]
    counts: ProofCounts,
    #[serde(flatten)]
    times: Timings,
    /// The daemons that were left running.
    kept: Option<Kept>,
}

/// The daemons and the folder that `--keep` leaves.
#[derive(Clone, Debug, Serialize)]
struct Kept {
    folder: PathBuf,
    service_pid: u32,
    endpoint_pid: u32,
}

/// Runs the demonstration. Returns the exit code: 0 only if the proof holds.
///
/// # Errors
/// When there is nothing to sum, or a step cannot be done; the message says
/// where the logs are.
pub(crate) async fn run(global: &GlobalArgs, args: &DemoArgs) -> anyhow::Result<u8> {
    if global.state.is_some() || global.config.is_some() {
        output::note(
            "clutch-service: the demonstration has a folder of its own: --state and --config are not \
             used (for a broker, see --amqp)",
        );
    }
    let route = Route::over(args.amqp.as_ref().map(SecretUrl::expose))?;
    let files = Files::find(args.folder.as_deref(), args.files)?;
    processes::find_sha256sum()?;
    let program = processes::endpoint_program(|| {
        output::note("building clutch-endpoint, too: cargo run builds only what it runs …");
    })?;
    let mut signals = StopSignals::install()?;
    let folder = folder()?;
    let mut narrator = Narrator::new(!global.json);
    narrator.step(&format!("{files}: one task each, which runs sha256sum on it"));
    let id = EndpointId::new();
    let deployment = ProvisionedDeployment::provision(folder.path(), &route, id, program).await?;
    let shown = tokio::select! {
        biased;
        () = signals.next() => None,
        shown = Box::pin(show(deployment, folder.path(), &route, &files, &mut narrator, args.keep)) => {
            Some(shown)
        }
    };
    let Some(shown) = shown else { return Ok(interrupted(folder, &route, id).await) };
    let stays = !matches!(&shown, Ok(report) if report.holds && report.kept.is_none());
    let path = folder.path().to_owned();
    if stays {
        drop(folder.keep());
    } else {
        clear(&route, id).await;
    }
    let report = shown
        .map_err(|error| Failure::new(exit_code(&error), format!("{error:#}\n{}", logs(&path))))?;
    conclude(report, &path, global.json)
}

/// The folder that everything is in; only this user can look into it.
fn folder() -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("clutch-demo-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("making a temporary folder; TMPDIR names another place for it")?;
    let free = statvfs(folder.path()).context("asking for the room in the temporary folder")?;
    let fits = deployment::state_in(folder.path()).fits();
    fits.and_then(|()| has_room(free.f_bavail.saturating_mul(free.f_frsize))).map_err(|words| {
        let place = folder.path().parent().unwrap_or(folder.path()).display();
        Failure::new(
            CANNOT_CREATE,
            format!("cannot use a temporary folder in {place}: {words}; set TMPDIR to another one"),
        )
    })?;
    Ok(folder)
}

/// Whether so many free bytes are enough; in words, if not.
fn has_room(free: u64) -> Result<(), String> {
    if free >= ROOM {
        return Ok(());
    }
    let (free, room) = (HumanBytes(free), HumanBytes(ROOM));
    Err(format!("{free} are free in its file system, and the demonstration needs {room}"))
}

/// Removes what was declared at a broker, or prints why that cannot be.
async fn clear(route: &Route, endpoint: EndpointId) {
    if let Err(error) = route.clear(endpoint).await {
        output::note(&format!("clutch-service: {error:#}"));
    }
}

/// Removes what was declared at a broker, and the folder, into which the daemons that were
/// ended may still write for a moment; says how that went. Returns the exit code.
async fn interrupted(folder: TempDir, route: &Route, endpoint: EndpointId) -> u8 {
    clear(route, endpoint).await;
    let path = folder.keep();
    let until = Instant::now() + REMOVING;
    let removed = loop {
        match removal::remove_all(&path) {
            Err(error) => {
                if Instant::now() >= until {
                    break Err(error);
                }
                tokio::time::sleep(PAUSE).await;
            }
            Ok(()) => break Ok(()),
        }
    };
    let ended = "interrupted: the service and the endpoint are ended";
    output::note(&match removed {
        Ok(()) => format!("{ended}, their folder is removed"),
        Err(error) => {
            format!("{ended}; their folder {} cannot be removed: {error}", path.display())
        }
    });
    INTERRUPTED
}

/// Runs the scenario, stops or leaves the daemons, and checks the proof.
async fn show(
    deployment: ProvisionedDeployment,
    folder: &Path,
    route: &Route,
    files: &Files,
    narrator: &mut Narrator,
    keep: bool,
) -> anyhow::Result<DemoReport> {
    let mut deployment = deployment.start().await?;
    narrator.step(&format!(
        "started a service (process {}) and an endpoint (process {})",
        deployment.service.pid(),
        deployment.endpoint.pid()
    ));
    narrator.step(&format!("between them: {}", deployment.link.between));
    let Measurements { mut counts, times, differences } =
        play(&mut deployment, files, narrator).await?;
    let kept = if keep {
        let [service_pid, endpoint_pid] = deployment.leave(route).await?;
        Some(Kept { folder: folder.to_owned(), service_pid, endpoint_pid })
    } else {
        let codes = deployment.stop().await?;
        narrator.step(&format!("stopped both in order: exit codes {} and {}", codes[0], codes[1]));
        counts.exit_codes = Some(codes);
        None
    };
    let complaints: Vec<String> = counts.complaints().into_iter().chain(differences).collect();
    let holds = complaints.is_empty();
    if holds {
        narrator.right(&counts.sentence());
        for line in next(kept.as_ref()) {
            narrator.plain(&line);
        }
    }
    Ok(DemoReport { holds, complaints, counts, times, kept })
}

/// Prints the report for programs, and chooses the exit code.
fn conclude(report: DemoReport, folder: &Path, json: bool) -> anyhow::Result<u8> {
    if json {
        output::json(&report)?;
    }
    if report.holds {
        return Ok(0);
    }
    let complaints = report.complaints.join("\n  ");
    let words = format!("the proof does not hold:\n  {complaints}\n{}", logs(folder));
    Err(Failure::new(GENERAL, words).into())
}

fn logs(folder: &Path) -> String {
    format!("the demonstration's logs and state are in {}", folder.display())
}

/// Lines that say what to try next.
fn next(kept: Option<&Kept>) -> Vec<String> {
    let program = std::env::args().next().unwrap_or_else(|| "clutch-service".to_owned());
    let program = quoted(&program);
    let Some(Kept { folder, service_pid, endpoint_pid }) = kept else {
        return vec![
            String::new(),
            "Next:".to_owned(),
            format!("  {program} demo --folder DIR   the same over files of yours"),
            format!("  {program} demo --keep         the same, left running to try things with"),
            format!("  {program} provision --help    an endpoint of your own"),
        ];
    };
    let path = |path: &Path| quoted(&path.display().to_string()).into_owned();
    let (state, folder) = (path(deployment::state_in(folder).path()), path(folder));
    vec![
        String::new(),
        format!("Both run on: the service is process {service_pid}, the endpoint {endpoint_pid}."),
        format!("  export CLUTCH_STATE={state}"),
        format!("  {program} submit {NAME} --wait -- hostname"),
        format!("  {program} tasks --limit 5"),
        format!("  {program} results --key {KEY} --stdout-only"),
        format!("End them with: kill {endpoint_pid} {service_pid}; rm -r {folder}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_room_for_the_endpoints_reserve_is_refused() {
        has_room(ROOM).unwrap();
        let words = has_room(60 << 20).unwrap_err();
        assert!(words.contains("60.00 MiB are free") && words.contains("needs 128"), "{words}");
    }
}
