//! The far party of a bare loop, in a process of its own: answers a task with a
//! result, and acknowledges it once the result is confirmed.

use super::{acknowledge, connect, consume, id, publish, together};
use crate::input;
use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use lapin::options::ConfirmSelectOptions;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// The hidden chore that makes this program one.
pub(crate) const CHORE: &str = "bare-echo";
/// The line by which it says that it consumes.
const READY: &str = "ready";

/// A far party that runs; it ends when its input does.
pub(super) struct Echo(Child);

impl Echo {
    /// Starts one, and waits until it consumes.
    pub(super) async fn start(url: &str, tasks: &str, results: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([CHORE, url, tasks, results])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the far party")?;
        let output = child.stdout.take().context("the far party has no output")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).map(|_| line)
        });
        ensure!(line.await??.trim_end() == READY, "the far party did not come up");
        Ok(Self(child))
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets it settle what it has, and waits for its end.
    pub(super) async fn finish(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = tokio::task::spawn_blocking(move || self.0.wait()).await??;
        ensure!(status.success(), "the far party ended with {status}");
        Ok(())
    }
}

/// Runs a far party in its process: serves until its input ends.
pub(crate) async fn process(url: &str, tasks: &str, results: &str) -> Result<()> {
    let (inward, outward) = (connect(url).await?, connect(url).await?);
    let (consuming, publishing) = (inward.create_channel().await?, outward.create_channel().await?);
    publishing.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut deliveries = consume(&consuming, tasks).await?;
    println!("{READY}");
    let ended = input::ended();
    tokio::pin!(ended);
    let mut confirms = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(confirmed) = confirms.next() => {
                let mut last = confirmed?;
                while let Some(next) = confirms.next().now_or_never().flatten() {
                    last = next?;
                }
                acknowledge(&consuming, &[last]).await?;
            }
            delivery = deliveries.next() => {
                let first = delivery.context("the consumer was cancelled")??;
                for delivery in together(&mut deliveries, first)? {
                    let confirm = publish(&publishing, results, id(&delivery)?).await?;
                    confirms.push_back(async move {
                        ensure!(confirm.await?.is_ack(), "a result was not confirmed");
                        Ok(delivery)
                    });
                }
            }
            () = &mut ended => break,
        }
    }
    inward.close(200, "OK".into()).await?;
    outward.close(200, "OK".into()).await?;
    Ok(())
}
