//! Faults of what reads a daemon's log. None holds anything up, or ends it.

use super::stage::{Setup, Site};
use super::{Play, Row, Seen};
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A daemon's words about its log once the log is read again.
const LOST: &str = "lines of the log were lost: stderr was not read, or could not be written to";
/// Enough lines to fill a pipe and what a daemon holds back, and then some.
const TASKS: usize = 6000;

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "log-not-read",
        "what reads the logs of endpoint and service stops reading, until pipes and queues are \
         full; tasks run on, and the lines that were lost are counted once it reads again",
        Play::Beside(not_read),
    )
    .since("the moment that nothing is read"),
    Row::new(
        "log-reader-gone",
        "what reads the logs of endpoint and service is ended; tasks run on, and both daemons \
         stop in order",
        Play::Beside(reader_gone),
    )
    .since("the end of the readers"),
];

/// A reader between a daemon and the file of its log, which can be held and ended.
struct Reader {
    fifo: String,
}

impl Reader {
    fn beside(folder: &Path, name: &str) -> Self {
        Self { fifo: folder.join(name).display().to_string() }
    }

    /// How to start a daemon that writes its whole log to this reader.
    fn wrapper(&self) -> [&str; 5] {
        const START: &str = "mkfifo \"$0\"; (cat \"$0\" & echo $! > \"$0.pid\"); \
                             CLUTCH_LOG=debug,lapin=off exec \"$@\" 2> \"$0\"";
        ["sh", "-c", START, &self.fifo, "env"]
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pid = std::fs::read_to_string(format!("{}.pid", self.fifo))?;
        let mut kill = Command::new("kill");
        let sent = kill.args(["-s", name, pid.trim()]).stderr(Stdio::null()).status()?;
        ensure!(sent.success(), "the reader of the log is gone");
        Ok(())
    }
}

fn not_read(site: &Site) -> Result<Seen> {
    let (theirs, ours) =
        (Reader::beside(&site.folder, "endpoint"), Reader::beside(&site.folder, "service"));
    let mut stage = site.stage_with(&Setup { wrapper: &theirs.wrapper(), ..Setup::default() })?;
    stage.service.stop(SOON)?;
    stage.service = stage.world.serve_in(&ours.wrapper())?;
    stage.until_link()?;
    theirs.signal("STOP")?;
    ours.signal("STOP")?;
    let stopped = Instant::now();
    stage.submit(TASKS, "")?;
    let recovery = stage.recovery(stopped)?;
    let seen = stage.seen()?.recovered_in(recovery);
    theirs.signal("CONT")?;
    ours.signal("CONT")?;
    stage.daemon.wait_for(LOST, SOON).context("the fault did not hit")?;
    stage.service.signal("TERM")?;
    let codes = (stage.daemon.stop(SOON)?, stage.service.wait(SOON)?);
    Ok(seen.must(codes == (0, 0), || format!("the daemons ended with {codes:?}")))
}

fn reader_gone(site: &Site) -> Result<Seen> {
    let (theirs, ours) =
        (Reader::beside(&site.folder, "endpoint"), Reader::beside(&site.folder, "service"));
    let mut stage = site.stage_with(&Setup { wrapper: &theirs.wrapper(), ..Setup::default() })?;
    stage.service.stop(SOON)?;
    stage.service = stage.world.serve_in(&ours.wrapper())?;
    stage.until_link()?;
    theirs.signal("KILL")?;
    ours.signal("KILL")?;
    let gone = Instant::now();
    stage.submit(TASKS, "")?;
    let recovery = stage.recovery(gone)?;
    let seen = stage.seen()?.recovered_in(recovery);
    let codes = (stage.daemon.stop(SOON)?, stage.service.stop(SOON)?);
    Ok(seen.must(codes == (0, 0), || format!("the daemons ended with {codes:?}")))
}
