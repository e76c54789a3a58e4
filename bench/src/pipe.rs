//! Pipes to processes and back: what a call of a warm worker costs without us.

use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A program that says every line again.
const ECHO: &str =
    "import sys\nfor line in sys.stdin:\n    sys.stdout.write(line)\n    sys.stdout.flush()\n";

/// Round trips per second of one line each, through so many Python processes at
/// once that do nothing but say it again.
pub(crate) fn round_trips(at_once: usize, each: usize) -> Result<f64> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(|| through_one(each))).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread at a pipe panicked"))??;
        }
        anyhow::Ok(())
    })?;
    Ok((at_once * each) as f64 / started.elapsed().as_secs_f64())
}

fn through_one(count: usize) -> Result<()> {
    let mut child = Command::new("python3")
        .args(["-c", ECHO])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting python3")?;
    let mut to = child.stdin.take().context("no input")?;
    let mut from = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    for number in 0..count {
        let said = format!("{{\"args\":[{number}]}}\n");
        to.write_all(said.as_bytes())?;
        line.clear();
        from.read_line(&mut line)?;
        ensure!(line == said, "said {said:?}, heard {line:?}");
    }
    drop(to);
    ensure!(child.wait()?.success(), "python3 failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        assert!(round_trips(2, 3).unwrap() > 0.0);
    }
}
