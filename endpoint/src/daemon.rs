//! The daemon: opens what it needs, starts its parts, and stops them in order.
//!
//! Starting after a crash is ordinary running: the disk says what is pending.
//! Stopping goes intake, engine, outbox, link. A part that ends early stops
//! the daemon with a code that makes a supervisor restart it.

pub(crate) mod reload;
pub(crate) mod shutdown;

use crate::config::{Config, ResultsSection, functions};
use crate::daemon::reload::{Reloading, Source};
use crate::daemon::shutdown::Shutdown;
use crate::execution::dispatcher::Dispatcher;
use crate::execution::engine::{Engine, SlotCount};
use crate::execution::executor::Executor;
use crate::execution::function::FunctionExecutor;
use crate::execution::function::python::{self, Module};
use crate::execution::live::Live;
use crate::execution::live::progress_files::ProgressFiles;
use crate::execution::process::{ProcessConfig, ProcessExecutor, Swept};
use crate::execution::task_side::TaskSide;
use crate::exit::{Exit, Failure};
use crate::link::events::EventsPublisher;
use crate::link::events_request::EventsRequests;
use crate::link::instance::Instance;
use crate::link::session::Link;
use crate::link::steering::Steering;
use crate::local::server::{TaskServer, serve_tasks};
use crate::local::{self, Local};
use crate::messages::Messages;
use crate::pending::ledger::Ledger;
use crate::storage::journal::{self, Journal, JournalConfig, Origin, Recovered};
use crate::storage::sent::{SentConfig, SentLog};
use crate::system::descriptors;
use crate::system::troubles::Troubles;
use clutch_common::link::Transport;
use clutch_common::system::clock::now_ms;
use clutch_common::system::host;
use clutch_common::system::signals::{Asked, StopSignals};
use clutch_common::wire::{self, InstanceDetails};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// Free disk space below which nothing new is accepted, in bytes.
const DISK_RESERVE: u64 = 64 * 1024 * 1024;
/// How many finished tasks are remembered, to absorb late redeliveries.
pub(crate) const SEEN: usize = 1_000_000;

/// The share of a delay before dialling again that is random: after an outage not all
/// endpoints of a broker come back at the same moment.
const JITTER: f64 = 0.5;

/// How long closing the disk queue may take.
const CLOSING: Duration = Duration::from_secs(10);

/// The pause before a start is tried again on a host that lacks something.
const HOST_PAUSE: Duration = Duration::from_secs(1);

/// A part of the daemon that runs until it is told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Engine,
    Link,
}

/// How an instance shares its endpoint with others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing {
    /// It waits for as long as another instance is active.
    pub(crate) standby: bool,
    /// It replaces an instance with a lost state folder.
    pub(crate) replace: bool,
}

/// The details that the instance tells the service.
fn details(config: &Config) -> InstanceDetails {
    let (now, offer) = (now_ms(), config.offer());
    InstanceDetails {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host::name(),
        slots: config.slots() as u64,
        free: config.slots() as u64,
        topics: offer.told_topics(),
        functions: offer.told_functions(),
        started_at_ms: now,
        clock_ms: now,
        draining: false,
    }
}

/// Runs the endpoint until a signal stops it.
///
/// # Errors
/// It cannot start, or a part of it failed.
pub(crate) async fn run(
    mut config: Config,
    source: Source,
    sharing: Sharing,
) -> Result<(), Failure> {
    let mut signals = StopSignals::install().map_err(|error| {
        Failure::new(Exit::Internal, format!("installing signal handlers: {error}"))
    })?;
    let started_at_ms = now_ms();
    let slots = descriptors::provide(config.slots(), config.functions.len());
    let as_configured = config.clone();
    config.engine.slots = Some(slots);
    let transport = config.transport()?;
    let troubles = Troubles::default();
    let Some(ledger) = open(&config, &troubles, &mut signals).await? else { return Ok(()) };
    ledger.set_offer(config.offer());
    let messages = Arc::new(Messages::new(Arc::clone(&ledger), config.messages.allow));
    let (tasks_listener, side) = task_side(&config, &ledger, &messages)?.unzip();
    let executor = executor(&config, &ledger, &troubles, side.clone()).await?;
    let shutdown = Shutdown::new(config.shutdown.deadline, config.engine.grace);

    let slots = SlotCount::new(config.slots());
    let dispatcher = Arc::clone(&executor);
    let live = Arc::new(live(&config).await?);
    let engine = Engine {
        ledger: Arc::clone(&ledger),
        executor,
        live: Arc::clone(&live),
        slots: slots.clone(),
    };
    let (events, requests) = EventsRequests::new();
    let (telling, steering) = (Arc::clone(&live), Steering::new(events));
    let link = Link {
        events: Some(EventsPublisher::new(telling, requests, slots.clone(), troubles.clone())),
        messages: Some(Arc::clone(&messages)),
        ..link(&config, sharing, transport, &ledger, &shutdown, steering)
    };
    // Until the link has the lease, or is known to be down.
    ledger.shut();
    let local = Arc::new(Local {
        name: config.endpoint.name.clone(),
        state: config.state_path()?,
        address: link.transport.address(),
        started_at_ms,
        ledger: Arc::clone(&ledger),
        instance: Arc::clone(&link.instance),
        dispatcher: Arc::clone(&dispatcher),
        slots,
        troubles,
        changing: tokio::sync::Mutex::default(),
    });
    local.restore_drain();
    let reloading = Reloading {
        source,
        config: as_configured,
        ledger: Arc::clone(&ledger),
        instance: Arc::clone(&link.instance),
        slots: local.slots.clone(),
    };
    let mut answering = JoinSet::new();
    answering.spawn(local::server::serve(Arc::clone(&local)));
    if let Some(listener) = tasks_listener {
        let connections = descriptors::connections(config.slots(), config.functions.len());
        let server = TaskServer { local: Arc::clone(&local), messages, live, connections };
        answering.spawn(serve_tasks(listener, Arc::new(server)));
    }
    let mut parts = start(engine, link, &shutdown);
    let outcome = supervise(&mut parts, shutdown, signals, reloading).await;
    parts.shutdown().await;
    answering.shutdown().await;
    local::close(&local.state, side.as_deref());
    dispatcher.close().await;
    close(&ledger).await;
    outcome
}

/// Starts the parts.
fn start(engine: Engine, link: Link, shutdown: &Shutdown) -> JoinSet<(Part, Result<(), Failure>)> {
    let mut parts = JoinSet::new();
    let (intake, kill) = (shutdown.intake.clone(), shutdown.kill.clone());
    parts.spawn(async move {
        let ended = engine.run(intake, kill).await;
        (Part::Engine, ended.map_err(|error| Failure::new(Exit::Internal, error.to_string())))
    });
    parts.spawn(async move { (Part::Link, Box::pin(link.run()).await) });
    parts
}

/// Prepares the link to the broker.
fn link(
    config: &Config,
    sharing: Sharing,
    transport: Arc<dyn Transport>,
    ledger: &Arc<Ledger>,
    shutdown: &Shutdown,
    steering: Steering,
) -> Link {
    let (chance, _) = uuid::Uuid::new_v4().as_u64_pair();
    let instance = Instance::new(wire::session_name(chance, ledger.age, 0), sharing.standby)
        .replacing(sharing.replace)
        .copied(matches!(ledger.origin, Origin::Copied { .. }))
        .describing(details(config));
    Link {
        transport,
        ledger: Arc::clone(ledger),
        instance: Arc::new(instance),
        steering,
        inlet: config.inlet(),
        results: config.results(),
        events: None,
        messages: None,
        heartbeat: config.broker.heartbeat,
        jitter: JITTER,
        intake: shutdown.intake.clone(),
        drain: shutdown.drain.clone(),
    }
}

/// Closes the ledger, and says what is left in it.
async fn close(ledger: &Ledger) {
    if let Err(error) = ledger.hand_back().await {
        tracing::error!(%error, "tasks whose acknowledgement was not confirmed stay in the inbox");
    }
    if tokio::time::timeout(CLOSING, ledger.close()).await.is_err() {
        tracing::error!(
            "the disk queue did not close in time; the next start goes on with what the disk has"
        );
    }
    let (tasks, results) = (ledger.tasks(), ledger.undelivered());
    tracing::info!(
        tasks,
        results,
        "stopped; tasks and results that are pending go on at the next start"
    );
}

/// Opens the ledger; `None` if stopped before the host has room for that.
async fn open(
    config: &Config,
    troubles: &Troubles,
    signals: &mut StopSignals,
) -> Result<Option<Arc<Ledger>>, Failure> {
    let path = config.state_path()?;
    let journal_config = JournalConfig {
        path: path.clone(),
        endpoint_id: config.endpoint.id,
        reserve_bytes: DISK_RESERVE,
        seen_max: SEEN,
        troubles: troubles.clone(),
    };
    let Some((journal, recovered)) = open_journal(journal_config, signals).await? else {
        return Ok(None);
    };
    tracing::info!(
        endpoint = %config.endpoint.id,
        name = config.endpoint.name,
        state = %path.display(),
        slots = config.slots(),
        tasks = recovered.tasks.len(),
        results = recovered.outbox,
        "starting"
    );
    log_origin(&recovered, &path);
    let ledger = Ledger::new(journal, recovered, config.endpoint.id, config.limits());
    Ok(Some(Arc::new(keep_sent(ledger, config, path.join("sent")))))
}

/// Logs that a state folder was copied, or put back from a backup.
fn log_origin(recovered: &Recovered, path: &Path) {
    let (state, tasks) = (path.display(), recovered.tasks.len());
    match &recovered.origin {
        Origin::Own => (),
        Origin::PutBack { .. } => tracing::warn!(
            %state,
            tasks,
            "the state folder was put back from a backup, or replaced by a copy of itself: the tasks \
             in it are not run but handed back, as they may have run meanwhile. The service submits \
             again what is not answered, or ends it as interrupted where it must not run again"
        ),
        Origin::Copied { from } => tracing::warn!(
            %state,
            from,
            tasks,
            "the state folder is a copy of another one: the tasks in it are not run but handed back, \
             and stay with the other one until that has been silent for `provision --lost-after`. If \
             that one is gone for good, start with --replace to have them submitted again at once"
        ),
    }
}

/// Opens the log of delivered results, if it is configured. An endpoint without it works
/// too, so a failure is logged only.
fn keep_sent(ledger: Ledger, config: &Config, path: PathBuf) -> Ledger {
    let ResultsSection { keep, keep_bytes } = config.results;
    if keep_bytes == 0 {
        return ledger;
    }
    let folder = path.display().to_string();
    match SentLog::open(SentConfig { path, keep, keep_bytes }) {
        Ok(sent) => ledger.with_sent_log(sent),
        Err(error) => {
            tracing::warn!(
                %error,
                folder,
                "results that are delivered will not be kept, to be sent again if the service \
                 loses them: the folder for them cannot be used"
            );
            ledger
        }
    }
}

/// Opens the journal, once the host has what that takes: a state folder on a full disk is
/// not damaged, and no task is started before its end can be recorded.
async fn open_journal(
    config: JournalConfig,
    signals: &mut StopSignals,
) -> Result<Option<(Journal, Recovered)>, Failure> {
    let mut warned = false;
    loop {
        let config = config.clone();
        let opened = tokio::task::spawn_blocking(move || journal::open(config)).await;
        let opened = opened.map_err(|error| {
            Failure::new(Exit::Internal, format!("opening the state folder: {error}"))
        })?;
        match opened {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) if error.may_pass() => {
                if !std::mem::replace(&mut warned, true) {
                    let why = format!("{:#}", anyhow::Error::from(error));
                    tracing::error!(why, "the endpoint waits for its host before it starts");
                }
            }
            Err(error) => return Err(Failure::new(Exit::State, error.to_string())),
        }
        tokio::select! {
            () = signals.stop() => return Ok(None),
            () = tokio::time::sleep(HOST_PAUSE) => (),
        }
    }
}

/// Opens the socket of tasks, and puts the Python module that speaks with it in its place. An
/// endpoint without them works too, so a failure is logged only.
fn task_side(
    config: &Config,
    ledger: &Ledger,
    messages: &Arc<Messages>,
) -> Result<Option<(UnixListener, Arc<TaskSide>)>, Failure> {
    let state = config.state_path()?;
    let python = config.worker_defaults(&state).python;
    let opened = (|| {
        python::install(&python)?;
        let module = Module::within(&python)?;
        let (listener, socket) = local::socket::bind_for_tasks(&state, ledger.state_id)?;
        let messages = Arc::clone(messages);
        std::io::Result::Ok((listener, Arc::new(TaskSide { messages, socket, module })))
    })();
    Ok(opened.map_or_else(
        |error| {
            let state = state.display();
            tracing::warn!(
                %error,
                %state,
                "the socket of tasks cannot be made: they send and receive no messages, and have no                  CLUTCH_SOCKET; all else works. See what is at tasks.sock and python in the state                  folder"
            );
            None
        },
        Some,
    ))
}

async fn executor(
    config: &Config,
    ledger: &Ledger,
    troubles: &Troubles,
    side: Option<Arc<TaskSide>>,
) -> Result<Arc<Dispatcher>, Failure> {
    let process_config = ProcessConfig {
        grace: config.engine.grace,
        capture_limit: config.engine.capture_limit,
        sandbox: config.engine.sandbox,
        sandbox_root: config.state_path()?.join("sandbox"),
        endpoint_id: ledger.endpoint_id,
        state_id: ledger.state_id,
        was: match ledger.origin {
            Origin::PutBack { was } => Some(was),
            Origin::Own | Origin::Copied { .. } => None,
        },
        troubles: troubles.clone(),
        side,
    };
    let processes = ProcessExecutor::new(process_config).map_err(|error| {
        Failure::new(Exit::Internal, format!("preparing to run tasks: {error}"))
    })?;
    let swept = processes.sweep_stale().await;
    if swept != Swept::default() {
        tracing::warn!(?swept, "ended what an earlier start had left running");
    }
    let defaults = config.worker_defaults(&config.state_path()?);
    let (named, prepared) = (config.functions.clone(), defaults.clone());
    let prepare = move || functions::prepare(&named, &prepared);
    let functions = tokio::task::spawn_blocking(prepare).await;
    let functions = functions
        .map_err(|error| Failure::new(Exit::Internal, format!("preparing workers: {error}")))?
        .map_err(|reason| Failure::new(Exit::State, reason))?;
    let functions = FunctionExecutor::new(functions, &processes.spawner());
    ledger.limit(functions.limits());
    Ok(Arc::new(Dispatcher::new(processes, functions)))
}

/// Prepares what running tasks tell. An endpoint without progress files works too, so a
/// failure is logged only.
async fn live(config: &Config) -> Result<Live, Failure> {
    let folder = config.state_path()?.join("progress");
    let shown = folder.display().to_string();
    let made = tokio::task::spawn_blocking(move || ProgressFiles::below(&folder)).await;
    Ok(match made.map_err(std::io::Error::other).flatten() {
        Ok(files) => Live::with_files(files),
        Err(error) => {
            tracing::warn!(
                %error,
                folder = shown,
                "processes cannot tell their progress: the folder for that cannot be used"
            );
            Live::default()
        }
    })
}

/// Waits for the parts, and stops them in order.
async fn supervise(
    parts: &mut JoinSet<(Part, Result<(), Failure>)>,
    mut shutdown: Shutdown,
    mut signals: StopSignals,
    mut reloading: Reloading,
) -> Result<(), Failure> {
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            ended = parts.join_next() => match ended {
                None => return outcome,
                Some(Ok((Part::Engine, Ok(())))) => shutdown.engine_ended(),
                Some(Ok((Part::Link, Ok(())))) => return outcome,
                Some(Ok((part, Err(failure)))) => {
                    outcome = outcome.and(Err(failure));
                    match part {
                        Part::Engine => shutdown.engine_ended(),
                        Part::Link => shutdown.begin(),
                    }
                }
                Some(Err(panic)) => {
                    let message = format!("a part of the daemon ended in a panic: {panic}");
                    outcome = outcome.and(Err(Failure::new(Exit::Internal, message)));
                    shutdown.begin();
                }
            },
            asked = signals.next_or_reload() => match asked {
                Asked::Stop => shutdown.signalled(),
                Asked::Reload => reloading.reload(&mut shutdown).await,
            },
            () = shutdown.due() => if shutdown.escalate() { return outcome },
        }
    }
}
