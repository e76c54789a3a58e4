//! The daemon: runs the sessions with the broker and the API, and stops them in order.
//!
//! One `serve` runs per state folder, and watches it. If the socket was removed, it is opened
//! again. If the database was moved, deleted or replaced, the service saves its records at or
//! beside that path and ends. On TERM, INT, QUIT or HUP the API finishes its requests,
//! submissions of clients that are gone are finished, the session finishes its transaction, and
//! the process exits.

mod alarm;
mod folder_watch;
mod retention;
mod timers;

use crate::api::connections::{self, Bounds};
use crate::api::{Api, Signals};
use crate::broker::health::HealthState;
use crate::broker::management::Management;
use crate::broker::ownership::{self, Claimant};
use crate::broker::session::{LinkState, SessionContext, SessionError, keep_engaged};
use crate::cli::{LookaheadArgs, ServeArgs};
use crate::config::Settings;
use crate::failover::ConnectionCloser;
use crate::failure::{Failure, INTERNAL, REFUSED, advice};
use crate::messages::Rules;
use crate::publishing::Placements;
use crate::state_folder::StateFolder;
use crate::store::{Saved, Store};
use anyhow::Context as _;
use clutch_common::link::Fault;
use clutch_common::system::clock::now_ms;
use clutch_common::system::signals::StopSignals;
use clutch_common::text::secret::SecretUrl;
use folder_watch::{FileIdentity, FolderWatch};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the requests, then the submissions, and then the session may take to end.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a removal of the state folder may take until it is written anew.
const SETTLE: Duration = Duration::from_secs(1);

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When the state folder, the socket or the broker's URL cannot be used, or the
/// broker refuses the credentials at the first attempt.
pub(crate) async fn serve(settings: &Settings, args: &ServeArgs) -> anyhow::Result<()> {
    let signals = StopSignals::install()?;
    let transport = settings.transport()?;
    let given = args.management.as_ref().map(SecretUrl::expose);
    let management = Management::of(settings.broker()?, given)?;
    settings.state.prepare()?;
    let _lock = settings.state.lock().await?;
    let store = Store::open(&settings.state).await?;
    let claimant = Claimant { service: store.service_id().await?, take_over: args.take_over };
    let (link, link_state) =
        watch::channel(LinkState::Disengaged("it has not been up yet".to_owned()));
    let commits = watch::Sender::new(0);
    let ((news, _), (scheduled, _)) = (watch::channel(0), watch::channel(0));
    let (told, submissions) = (HealthState::default(), TaskTracker::new());
    let placements = Placements::load(&store).await?;
    let board = store.topic_board();
    let LookaheadArgs { topic_lookahead, clock_margin } = args.topics;
    board.with(|catalogue| catalogue.look_ahead(topic_lookahead, clock_margin));
    store.load_topics(now_ms()).await?;
    let context = SessionContext {
        transport,
        store: store.clone(),
        link,
        commits: commits.clone(),
        news: news.clone(),
        closer: management.clone().map(|it| Arc::new(it) as Arc<dyn ConnectionCloser>),
        management,
        ask_after: args.ask_after,
        claimant,
        told: told.clone(),
        submissions: submissions.clone(),
        placements: placements.clone(),
        rules: Rules {
            messages: args.messages.rule,
            children_at: args.messages.children_at.clone(),
        },
    };
    let stop = CancellationToken::new();
    let mut beside = JoinSet::new();
    let changes = Signals { recorded: commits, timers: scheduled, news };
    let timers = (placements.clone(), changes.clone());
    beside.spawn(timers::run(store.clone(), timers.0, timers.1, stop.clone()));
    let stop_api = stop.clone();
    let api = Api::new(store.clone(), link_state, changes, told, submissions, placements, stop_api);
    if let Some(keep) = args.keep {
        beside.spawn(retention::keep(store.clone(), keep, stop.clone()));
    }
    let ended = run(api, context, signals, &settings.state, &stop).await;
    stop.cancel();
    finish("forgetting, and timers", all(&mut beside)).await;
    if let Ok(StopCause::Displaced) = ended {
        return Err(save(store, &settings.state).await);
    }
    if let Err(error) = std::fs::remove_file(settings.state.socket()) {
        tracing::debug!(%error, "the socket was removed before");
    }
    store.close().await;
    if ended.is_ok() {
        tracing::info!("stopped");
    }
    ended.map(drop)
}

/// Why the service stops, other than by a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StopCause {
    /// It was asked for.
    Requested,
    /// The database is not at its path any more.
    Displaced,
}

/// Brings what is recorded to where it is found again, and says why the service ends.
async fn save(store: Store, state: &StateFolder) -> anyhow::Error {
    let why = format!(
        "the database in {} was moved, deleted or replaced while the service ran: the service \
         ends",
        state.database_folder().display()
    );
    let place = match state.named_database() {
        None => "that folder as --state",
        Some(_) => "that file as --database",
    };
    // The removal of the folder may still be under way.
    tokio::time::sleep(SETTLE).await;
    let what = match store.save().await {
        Ok(Saved::Back) => "all that was recorded is there again: start it again".to_owned(),
        Ok(Saved::Moved(path)) => format!(
            "the records are in {}: move them back, or give {place}, and start it again",
            path.display()
        ),
        Ok(Saved::Beside(path)) => format!(
            "what is there now was left as it is, and all that was recorded is in {}: choose one \
             of them, and start it again",
            path.display()
        ),
        Err(error) => format!("what was recorded is lost: {:#}", anyhow::Error::from(error)),
    };
    Failure::new(INTERNAL, format!("{why}; {what}")).into()
}

/// Opens the API's socket, private from its first moment, over a stale one.
fn bind(state: &StateFolder) -> anyhow::Result<UnixListener> {
    let socket = state.socket();
    let doing = || format!("cannot listen at {}", socket.display());
    let fresh = socket.with_extension("new");
    if fresh.exists() {
        std::fs::remove_file(&fresh).with_context(doing)?;
    }
    let listener = UnixListener::bind(&fresh).with_context(doing)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).with_context(doing)?;
    std::fs::rename(&fresh, &socket).with_context(doing)?;
    Ok(listener)
}

/// The API on its socket, and again on the next where the socket was removed.
struct Answering {
    api: Api,
    stop: CancellationToken,
    servers: JoinSet<std::io::Result<()>>,
    /// Ends the newest one's intake; its requests end with the API.
    intake: CancellationToken,
    socket: FileIdentity,
}

impl Answering {
    fn open(api: Api, state: &StateFolder, stop: &CancellationToken) -> anyhow::Result<Self> {
        let listener = bind(state)?;
        let socket = FileIdentity::at(&state.socket())?;
        let (servers, intake) = (JoinSet::new(), stop.child_token());
        let mut answering = Self { api, stop: stop.clone(), servers, intake, socket };
        answering.serve(listener);
        Ok(answering)
    }

    fn serve(&mut self, listener: UnixListener) {
        let (router, told) = (self.api.clone().router(), self.intake.clone());
        self.servers.spawn(async move {
            connections::serve(listener, router, Bounds::default(), told).await
        });
    }

    /// Opens the socket again if it was removed.
    fn look(&mut self, state: &StateFolder) {
        if self.socket.is_there() {
            return;
        }
        let opened =
            bind(state).and_then(|listener| Ok((listener, FileIdentity::at(&state.socket())?)));
        match opened {
            Ok((listener, socket)) => {
                tracing::warn!(
                    socket = %state.socket().display(),
                    "the API's socket was removed, and is open again"
                );
                self.socket = socket;
                self.intake.cancel();
                self.intake = self.stop.child_token();
                self.serve(listener);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the API's socket was removed, and cannot be opened again");
            }
        }
    }

    /// Returns when it has ended without being told to.
    async fn ended(&mut self) -> anyhow::Error {
        loop {
            match self.servers.join_next().await {
                Some(Ok(Ok(()))) if !self.servers.is_empty() => {}
                ended => return anyhow::anyhow!("the API ended: {ended:?}"),
            }
        }
    }
}

/// Runs the API and the sessions; if one ends early, the other ends too.
async fn run(
    api: Api,
    context: SessionContext,
    mut signals: StopSignals,
    state: &StateFolder,
    stop: &CancellationToken,
) -> anyhow::Result<StopCause> {
    let session_stop = CancellationToken::new();
    let mut session = JoinSet::new();
    let (store, submissions) = (context.store.clone(), context.submissions.clone());
    let guard = FolderWatch::over(&[state.path(), state.database_folder()]);
    let mut answering = Answering::open(api, state, stop)?;
    session.spawn(keep_engaged_and_tell(context, state.clone(), session_stop.clone()));
    let ended = loop {
        tokio::select! {
            () = signals.next() => break Ok(StopCause::Requested),
            () = store.displaced() => break Ok(StopCause::Displaced),
            ended = session.join_next() => break why_session(ended).map(|()| StopCause::Requested),
            error = answering.ended() => break Err(error),
            () = guard.changed() => {
                store.check_place();
                answering.look(state);
            }
        }
    };
    tracing::info!("stopping");
    stop.cancel();
    finish("requests under way", all(&mut answering.servers)).await;
    submissions.close();
    finish("submissions under way", submissions.wait()).await;
    session_stop.cancel();
    finish("the broker session", all(&mut session)).await;
    ended
}

/// Keeps the link engaged and says once that the service is serving.
async fn keep_engaged_and_tell(
    context: SessionContext,
    state: StateFolder,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let (told, socket) = (std::sync::Once::new(), state.socket());
    let engaged = move || {
        told.call_once(|| tracing::info!(socket = %socket.display(), "serving"));
    };
    let ended = keep_engaged(&context, engaged, &stop).await;
    ended.map_err(|ended| refusal(&ended, &context.transport.address(), context.claimant, &state))
}

type SessionEnd = Option<Result<Result<(), Failure>, tokio::task::JoinError>>;

/// Why the session ended before it was told to.
fn why_session(ended: SessionEnd) -> anyhow::Result<()> {
    match ended {
        Some(Ok(Err(refused))) => Err(refused.into()),
        other => Err(Failure::new(INTERNAL, format!("the broker session ended: {other:?}")).into()),
    }
}

/// The words for a session that there is no point in trying again.
fn refusal(
    ended: &SessionError,
    address: &str,
    claimant: Claimant,
    state: &StateFolder,
) -> Failure {
    let words = match ended {
        SessionError::NotOurs(words) => {
            let refused = ownership::refused(Some(claimant.service), state, words);
            format!("cannot collect at {address}: {refused}")
        }
        SessionError::Lost(Fault::Locked(holder)) => format!(
            "another clutch-service is collecting results at {address}: stop that one, or use it, \
             with its --state ({holder})"
        ),
        SessionError::Lost(fault) => {
            format!("{address} cannot be used: {fault}; {}", advice(fault))
        }
    };
    Failure::new(REFUSED, words)
}

async fn all<T: 'static>(tasks: &mut JoinSet<T>) {
    while tasks.join_next().await.is_some() {}
}

/// Waits for a part to end, up to the deadline.
async fn finish(what: &str, part: impl Future<Output = ()>) {
    if tokio::time::timeout(DEADLINE, part).await.is_err() {
        tracing::warn!(what, "did not end in time: the service ends without it");
    }
}
