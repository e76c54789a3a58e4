//! Faults of the service. None makes a task run twice, and none loses a result:
//! what is not recorded stays with the broker.

use super::stage::{Setup, Site, said};
use super::{Need, Play, Row, Seen};
use crate::poll;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The service's words when it cannot record, and when it can again.
const CANNOT: &str = "results cannot be recorded; they stay with the broker, and are tried again \
                      until they can: is the disk full, or the database locked?";
const AGAIN: &str = "results are recorded again";
/// Holds the database's write lock until it is killed.
const HOLDER: &str = "import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
db.execute('BEGIN IMMEDIATE')
print('locked', flush=True)
time.sleep(3600)";

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "service-kill",
        "the service is ended by kill -9 five times while it collects results",
        Play::Beside(kill),
    )
    .since("the last kill"),
    Row::new(
        "second-service-other-state",
        "the service is stopped while results come; another one, of another state folder, is \
         started by mistake, and must be refused; the first is started again",
        Play::Beside(second),
    )
    .since("the next start"),
    Row::new(
        "database-locked",
        "another process holds the write lock of the service's database for 20 s",
        Play::Beside(locked),
    )
    .needs(&[Need::Python]),
    Row::new(
        "database-full",
        "the disk of the service's database is filled to the last byte, and freed after 5 s",
        Play::Beside(full),
    )
    .needs(&[Need::Mount]),
];

fn kill(site: &Site) -> Result<Seen> {
    const KILLS: u64 = 5;
    let mut stage = site.stage()?;
    stage.submit(6000, "")?;
    let mut recovery = Duration::ZERO;
    for number in 1..=KILLS {
        stage.until_recorded(700 * number)?;
        let at = Instant::now();
        stage.service.kill()?;
        stage.service = stage.world.serve()?;
        recovery = stage.recovery(at)?;
    }
    Ok(stage.seen()?.recovered_in(recovery))
}

fn second(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(4000, "")?;
    stage.until_recorded(500)?;
    stage.service.stop(SOON)?;
    let other = stage.world.folder().join("other").display().to_string();
    let mistaken = stage.world.service(&["serve", "--state", &other])?;
    let again = Instant::now();
    stage.service = stage.world.serve()?;
    let recovery = stage.recovery(again)?;
    let seen = stage.seen()?.recovered_in(recovery);
    let told = mistaken.stderr.contains("belong to another clutch-service")
        && mistaken.stderr.contains("--take-over");
    let seen = seen.must(mistaken.code == 77, || format!("it ended with {}", mistaken.code));
    Ok(seen.must(told, || format!("it said: {}", mistaken.stderr)))
}

/// A process that is killed when this is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // Either fails only where it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn locked(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(6000, "")?;
    stage.until_recorded(500)?;
    let holding = Command::new("python3")
        .args(["-c", HOLDER])
        .arg(stage.database())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting python3")?;
    let mut holder = Holder(holding);
    let mut word = String::new();
    BufReader::new(holder.0.stdout.take().context("it has no stdout")?).read_line(&mut word)?;
    ensure!(word == "locked\n", "the database could not be locked");
    let held = Instant::now();
    stage.service.wait_for(CANNOT, SOON).context("the fault did not hit")?;
    poll::pause(Duration::from_secs(20).saturating_sub(held.elapsed()));
    drop(holder);
    let recovery = stage.recovery(Instant::now())?;
    stage.service.wait_for(AGAIN, SOON)?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn full(site: &Site) -> Result<Seen> {
    let setup = Setup { service_disk: Some(64 * 1024), ..Setup::default() };
    let mut stage = site.stage_with(&setup)?;
    stage.submit(6000, "")?;
    stage.until_recorded(500)?;
    let disk = stage.service_disk.take().context("the service has no disk of its own")?;
    disk.fill()?;
    poll::until("the service to tell that it cannot record", SOON, || {
        disk.fill()?;
        stage.service.next(CANNOT)
    })?;
    poll::pause(Duration::from_secs(5));
    disk.free()?;
    let recovery = stage.recovery(Instant::now())?;
    stage.service.wait_for(AGAIN, SOON)?;
    let told = said(&stage.service, CANNOT)?;
    let seen = stage.seen()?.recovered_in(recovery);
    stage.service.stop(SOON)?;
    Ok(seen.must(told == 1, || format!("it said {told} times that it cannot record")))
}
