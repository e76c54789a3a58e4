//! The far party: an endpoint that finishes each task as soon as it has read it.
//! In this process, or in one of its own.
//!
//! It keeps nothing on a disk of its own, so it acknowledges a group of tasks
//! once the broker has confirmed all their results.

use crate::input;
use crate::site::{GROUP, Site, done};
use anyhow::{Context as _, Result, bail, ensure};
use clutch_common::id::EndpointId;
use clutch_common::link::{Delivery, Outlet, Settlement, Tag, Ticket};
use clutch_common::wire;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The line by which a party in a process of its own says that it consumes.
const READY: &str = "ready";
/// The hidden chore that makes this program one.
pub(crate) const CHORE: &str = "echo";

/// Where the far party runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// On threads of this process.
    Here,
    /// In a process of its own.
    Process,
}

/// A far party that runs.
pub(crate) enum Echo {
    /// Here.
    Task { running: JoinSet<Result<()>>, stop: oneshot::Sender<()> },
    /// In a process of its own, which ends when its input does.
    Process(Child),
}

impl Echo {
    /// Starts one, and waits until it consumes.
    pub(crate) async fn start(site: &Site, place: Place) -> Result<Self> {
        match place {
            Place::Here => {
                let (stop, stopped) = oneshot::channel();
                let (tell, ready) = oneshot::channel();
                let (site, mut running) = (site.clone(), JoinSet::new());
                running.spawn(async move {
                    serve(
                        &site,
                        || {
                            tell.send(()).ok();
                        },
                        async { drop(stopped.await) },
                    )
                    .await
                });
                if ready.await.is_err() {
                    running.join_next().await.context("the far party never ran")???;
                }
                Ok(Self::Task { running, stop })
            }
            Place::Process => {
                let mut child = Command::new(std::env::current_exe()?)
                    .args([CHORE, &site.url, &site.endpoint.to_string()])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .context("starting the far party")?;
                let output = child.stdout.take().context("the far party has no output")?;
                tokio::task::spawn_blocking(|| wait_until_ready(output)).await??;
                Ok(Self::Process(child))
            }
        }
    }

    /// Lets it settle what it has, and waits for its end.
    pub(crate) async fn finish(self) -> Result<()> {
        match self {
            Self::Task { mut running, stop } => {
                drop(stop);
                running.join_next().await.context("the far party never ran")??
            }
            Self::Process(mut child) => {
                drop(child.stdin.take());
                let status = tokio::task::spawn_blocking(move || child.wait()).await??;
                ensure!(status.success(), "the far party ended with {status}");
                Ok(())
            }
        }
    }
}

fn wait_until_ready(output: ChildStdout) -> Result<()> {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim_end() == READY, "the far party did not come up");
    Ok(())
}

/// Runs a far party in its process: serves until its input ends.
pub(crate) async fn process(url: &str, endpoint: EndpointId) -> Result<()> {
    let site = Site::new(url, endpoint)?;
    serve(&site, || println!("{READY}"), input::ended()).await
}

async fn serve(site: &Site, ready: impl FnOnce(), stop: impl Future<Output = ()>) -> Result<()> {
    let (tasks, results) = (site.connect("tasks").await?, site.connect("results").await?);
    let mut party = Party {
        site,
        outlet: results.outlet().await?,
        groups: BTreeMap::new(),
        open: BTreeMap::new(),
    };
    let mut inlet = site.tasks(tasks.as_ref()).await?;
    ready();
    tokio::pin!(stop);
    let mut stopping = false;
    while !(stopping && party.groups.is_empty()) {
        tokio::select! {
            settled = party.outlet.settled(), if !party.open.is_empty() => {
                if let Some(tag) = party.settle(settled?)? {
                    inlet.acknowledge(tag).await?;
                }
            }
            deliveries = inlet.receive(GROUP), if !stopping => party.answer(deliveries?).await?,
            () = &mut stop, if !stopping => stopping = true,
        }
    }
    tasks.close().await;
    results.close().await;
    Ok(())
}

struct Party<'a> {
    site: &'a Site,
    outlet: Box<dyn Outlet>,
    /// How many results of each group of deliveries are not confirmed, by the
    /// group's last tag.
    groups: BTreeMap<Tag, usize>,
    /// The group of each result that is not confirmed.
    open: BTreeMap<Ticket, Tag>,
}

impl Party<'_> {
    /// Publishes one message for each task.
    async fn answer(&mut self, deliveries: Vec<Delivery>) -> Result<()> {
        let Some(group) = deliveries.last().map(|delivery| delivery.tag) else { return Ok(()) };
        for delivery in deliveries {
            let message = delivery.message;
            let decoded = wire::decode_tasks(&message.body, message.correlation_id.as_deref());
            ensure!(decoded.unreadable.is_empty(), "unreadable: {:?}", decoded.unreadable);
            for task in &decoded.tasks {
                let result = done(task, self.site.endpoint);
                let ticket = self.outlet.publish(&self.site.to_service(), result).await?;
                self.open.insert(ticket, group);
                *self.groups.entry(group).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Takes what is confirmed; returns up to where tasks are done with, if that
    /// has grown.
    fn settle(&mut self, settled: Vec<(Ticket, Settlement)>) -> Result<Option<Tag>> {
        for (ticket, settlement) in settled {
            if settlement != Settlement::Confirmed {
                bail!("a result was not confirmed: {settlement:?}");
            }
            let group = self.open.remove(&ticket).context("a confirm for nothing")?;
            if let Some(left) = self.groups.get_mut(&group) {
                *left -= 1;
            }
        }
        let mut done = None;
        while let Some(first) = self.groups.first_entry().filter(|first| *first.get() == 0) {
            done = Some(first.remove_entry().0);
        }
        Ok(done)
    }
}
