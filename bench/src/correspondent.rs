//! A task that takes messages, or sends them to another task: this program as a process of an
//! endpoint.
//!
//! Touches the socket that its endpoint gave it. The sender prints what it measured as one JSON
//! object.

use crate::api::HttpConnection;
use crate::stats::quantile;
use anyhow::{Context as _, Result, ensure};
use clutch_common::id::TaskId;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The hidden chore that makes this program one.
pub(crate) const CHORE: &str = "correspond";
/// How many connections a listener receives by.
const RECEIVERS: usize = 16;
/// The size of a message, in bytes.
const BODY: usize = 200;
/// The message that ends the listener.
const END: &[u8] = b"end";

/// The part that it plays.
#[derive(clap::Subcommand)]
pub(crate) enum Part {
    /// Takes messages until one ends it
    Listen,
    /// Sends messages, and prints how long each took until it was delivered
    Send {
        /// The task that listens
        to: TaskId,
        /// How many connections send at once, one message each
        #[arg(long)]
        senders: usize,
        /// How many messages each sends at most
        #[arg(long)]
        count: usize,
        /// How long each sends at most, in seconds
        #[arg(long)]
        seconds: u64,
    },
}

/// Plays a part.
pub(crate) async fn process(part: &Part) -> Result<()> {
    match part {
        Part::Listen => listen().await,
        Part::Send { to, senders, count, seconds } => {
            send(*to, *senders, *count, Duration::from_secs(*seconds)).await
        }
    }
}

async fn listen() -> Result<()> {
    let mut receivers = JoinSet::new();
    for _ in 0..RECEIVERS {
        receivers.spawn(receive());
    }
    receivers.join_next().await.context("there are no receivers")??
}

/// Takes messages until the last one.
async fn receive() -> Result<()> {
    let mut own = OwnSide::connect().await?;
    while !own.receive().await? {}
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the output of the task is what it measured")]
async fn send(to: TaskId, senders: usize, count: usize, within: Duration) -> Result<()> {
    let (mut running, started) = (JoinSet::new(), Instant::now());
    for _ in 0..senders {
        running.spawn(async move {
            let (mut own, mut times) = (OwnSide::connect().await?, Vec::new());
            while times.len() < count && started.elapsed() < within {
                let sent = Instant::now();
                own.send(to, &[b'x'; BODY]).await?;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.extend(done??);
    }
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    OwnSide::connect().await?.send(to, END).await?;
    ensure!(!times.is_empty(), "nothing was sent");
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&times, share));
    println!("{}", serde_json::json!({"rate": rate, "p50": p50, "p99": p99}));
    Ok(())
}

/// A connection to the endpoint's socket for tasks.
struct OwnSide {
    connection: HttpConnection,
    authorization: String,
}

impl OwnSide {
    async fn connect() -> Result<Self> {
        let of_task = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
        let connection = HttpConnection::connect(of_task("CLUTCH_SOCKET")?.as_ref()).await?;
        let authorization = format!("Bearer {}", of_task("CLUTCH_TOKEN")?);
        Ok(Self { connection, authorization })
    }

    async fn send(&mut self, to: TaskId, body: &[u8]) -> Result<()> {
        let path = format!("/v1/messages?to={to}&addressee=in");
        let authorization = ("authorization", &*self.authorization);
        self.connection.ask(["POST", &path], authorization, body.to_vec().into()).await.map(drop)
    }

    /// Takes a message; returns whether it is the last one.
    async fn receive(&mut self) -> Result<bool> {
        let authorization = ("authorization", &*self.authorization);
        let path = "/v1/messages?addressee=in&hold=connection";
        let given = self.connection.ask(["GET", path], authorization, Vec::new().into()).await?;
        let delivery = given.headers().get("clutch-delivery").context("no delivery")?.to_str()?;
        let path = format!("/v1/messages/{delivery}/ack");
        self.connection.ask(["POST", &path], authorization, Vec::new().into()).await?;
        Ok(given.body() == END)
    }
}
