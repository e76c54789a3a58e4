//! `clutch-service demo`: what Clutch does, on real files, with real faults,
//! and the proof that nothing was lost. Needs no broker and no state.
//!
//! Everything it writes is in one private temporary folder, which goes with it
//! unless it is to be kept or something failed. `play` says what happens;
//! `stage` has the daemons, `proof` the judgement.

mod files;
mod link;
mod log;
mod play;
mod processes;
mod proof;
mod proxy;
mod stage;
mod starts;
mod tell;

use crate::cli::output;
use crate::cli::{DemoArgs, GlobalArgs};
use crate::failure::{CANNOT_CREATE, Failure, GENERAL, exit_code};
use anyhow::Context as _;
use clutch_common::system::removal;
use clutch_common::system::signals::StopSignals;
use clutch_common::text::secret::SecretUrl;
use files::Files;
use indicatif::HumanBytes;
use link::Route;
use play::{KEY, Measured, Times, play};
use processes::PAUSE;
use proof::Counts;
use rustix::fs::statvfs;
use serde::Serialize;
use stage::{EmptyStage, NAME};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tell::Tell;
use tempfile::TempDir;
use tokio::time::Instant;

/// The exit code of a shell for what INT ended.
const INTERRUPTED: u8 = 130;
/// What must be free in the temporary folder's file system, in bytes. An endpoint
/// takes no work that would leave less than 64 MiB; the rest is for its state, the
/// service's, and what is between them.
const ROOM: u64 = 128 * 1024 * 1024;
/// How long removing the folder is tried.
const REMOVING: Duration = Duration::from_secs(5);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether the proof holds.
    holds: bool,
    /// What keeps it from holding.
    complaints: Vec<String>,
    #[serde(flatten)]
    counts: Counts,
    #[serde(flatten)]
    times: Times,
    /// What was left running.
    kept: Option<Kept>,
}

/// What is left for trying things with.
#[derive(Clone, Debug, Serialize)]
struct Kept {
    folder: PathBuf,
    service_pid: u32,
    endpoint_pid: u32,
}

/// Plays the demonstration. Returns the exit code: 0 only if the proof holds.
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
    let endpoint = processes::endpoint_program(|| {
        output::note("building clutch-endpoint, too: cargo run builds only what it runs …");
    })?;
    route.claim().await?;
    let mut signals = StopSignals::install()?;
    let folder = folder()?;
    let mut tell = Tell::new(!global.json);
    tell.step(&format!("{files}: one task each, which runs sha256sum on it"));
    let stage = EmptyStage::provision(folder.path(), &route, endpoint).await;
    let shown = tokio::select! {
        biased;
        () = signals.next() => None,
        shown = Box::pin(show(stage, folder.path(), &route, &files, &mut tell, args.keep)) => {
            Some(shown)
        }
    };
    let Some(shown) = shown else { return Ok(interrupted(folder).await) };
    let stays = !matches!(&shown, Ok(report) if report.holds && report.kept.is_none());
    let path = folder.path().to_owned();
    if stays {
        drop(folder.keep());
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
    let fits = stage::state_in(folder.path()).fits();
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

/// Removes the folder, into which what was ended may still write for a moment,
/// and says what became of it. Returns the exit code.
async fn interrupted(folder: TempDir) -> u8 {
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

/// Plays, stops or leaves the daemons, and judges.
async fn show(
    stage: anyhow::Result<EmptyStage>,
    folder: &Path,
    route: &Route,
    files: &Files,
    tell: &mut Tell,
    keep: bool,
) -> anyhow::Result<Report> {
    let mut stage = stage?.start().await?;
    tell.step(&format!(
        "started a service (process {}) and an endpoint (process {})",
        stage.service.pid(),
        stage.endpoint.pid()
    ));
    tell.step(&format!("between them: {}", stage.between));
    let Measured { mut counts, times, differences } = play(&mut stage, files, tell).await?;
    let kept = if keep {
        let [service_pid, endpoint_pid] = stage.leave(route).await?;
        Some(Kept { folder: folder.to_owned(), service_pid, endpoint_pid })
    } else {
        let codes = stage.stop().await?;
        tell.step(&format!("stopped both in order: exit codes {} and {}", codes[0], codes[1]));
        counts.exit_codes = Some(codes);
        None
    };
    let complaints: Vec<String> = counts.complaints().into_iter().chain(differences).collect();
    let holds = complaints.is_empty();
    if holds {
        tell.right(&counts.sentence());
        for line in next(kept.as_ref()) {
            tell.plain(&line);
        }
    }
    Ok(Report { holds, complaints, counts, times, kept })
}

/// Says what is left to say, and chooses the exit code.
fn conclude(report: Report, folder: &Path, json: bool) -> anyhow::Result<u8> {
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

/// What to try next.
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
    let state = quoted(&stage::state_in(folder).path().display().to_string());
    let folder = quoted(&folder.display().to_string());
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

/// A word as a shell reads it: in quotes, unless it needs none.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell_where_they_need_it() {
        for (word, expected) in [
            ("/tmp/clutch-demo-a1", "/tmp/clutch-demo-a1"),
            ("/tmp/a b", "'/tmp/a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn a_file_system_without_room_for_the_endpoints_reserve_is_refused() {
        has_room(ROOM).unwrap();
        let words = has_room(60 << 20).unwrap_err();
        assert!(words.contains("60.00 MiB are free") && words.contains("needs 128"), "{words}");
    }
}
