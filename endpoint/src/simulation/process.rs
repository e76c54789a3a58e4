//! One process of an instance, from its start on a disk to its end: the daemon's
//! own parts, joined as the daemon joins them.

use super::broker::Net;
use super::claims::SKEW_MS;
use super::disk::{self, Node};
use super::executor::Sleeper;
use super::freeze::Gate;
use super::wire::Wire;
use super::world::{World, lock};
use crate::daemon::shutdown::Shutdown;
use crate::execution::engine::{Engine, SlotCount};
use crate::exit::{Exit, Failure};
use crate::link::events_request::EventsRequests;
use crate::link::instance::Instance;
use crate::link::session::Link;
use crate::link::steering::Steering;
use crate::pending::Limits;
use crate::pending::ledger::Ledger;
use crate::storage::journal::Running;
use clutch_common::id::EndpointId;

use clutch_common::link::{Destination, Fault, InletOptions, Terms, Transport};
use clutch_common::{topology, wire};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The endpoint that all instances are of.
pub(super) const ENDPOINT: EndpointId = EndpointId(uuid::Uuid::nil());

/// How often a daemon may die while a task runs.
pub(super) const POISON_AFTER: u64 = 3;

/// Whether a process goes on, and its connections.
pub(super) struct Life {
    pub(super) instance: usize,
    pub(super) name: String,
    /// Whether it is frozen.
    pub(super) gate: Arc<Gate>,
    /// A number that tells its session name from others.
    nonce: u64,
    world: Arc<World>,
    over: CancellationToken,
    wires: Mutex<Vec<Arc<Wire>>>,
    running: OnceLock<Arc<Running>>,
}

impl Life {
    /// The life of a process that starts.
    pub(super) fn new(world: &Arc<World>, instance: usize, number: u64) -> Arc<Self> {
        let life = Arc::new(Self {
            instance,
            name: format!("{}.{number}", ["A", "B", "C", "D", "E"][instance]),
            gate: Arc::new(Gate::new()),
            nonce: ((instance as u64) << 32) | number,
            world: Arc::clone(world),
            over: CancellationToken::new(),
            wires: Mutex::default(),
            running: OnceLock::new(),
        });
        world.lives().push(Arc::clone(&life));
        world.note(format_args!("{}: begins", life.name));
        life
    }

    /// The process is killed.
    pub(super) fn crash(&self, when: &str) {
        if !self.is_over() {
            self.world.note(format_args!("{}: dies {when}", self.name));
            self.end();
        }
    }

    /// The process is gone: nothing of it goes on, and the broker learns of it.
    pub(super) fn end(&self) {
        self.over.cancel();
        self.running.get().into_iter().for_each(|running| running.die());
        self.world.tell(|oracle| oracle.gone(self.instance));
        self.cut_all("the process is gone");
    }

    /// It notes there which tasks run.
    pub(super) fn runs(&self, running: &Arc<Running>) {
        self.running.get_or_init(|| Arc::clone(running));
    }

    /// Its connections are lost.
    pub(super) fn cut_all(&self, why: &str) {
        for wire in lock(&self.wires).drain(..) {
            wire.sever(Fault::Closed(why.to_owned()));
        }
    }

    /// It has a new connection.
    pub(super) fn dialled(&self, wire: &Arc<Wire>) {
        let mut wires = lock(&self.wires);
        wires.retain(|wire| !wire.is_severed());
        wires.push(Arc::clone(wire));
    }

    /// Whether the process is gone.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Resolves when the process is gone.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }
}

/// Lives until it is stopped in order, or a part of it fails. `stop` is the
/// signal.
pub(super) async fn live(
    world: Arc<World>,
    life: Arc<Life>,
    node: Arc<Node>,
    broker: Arc<dyn Transport>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let Some((journal, recovered, writer)) = disk::open(&world, &life, &node) else {
        return Ok(());
    };
    let mut writing = JoinSet::new();
    writing.spawn(writer.serve());
    let limits = Limits { bounds: world.plan.bounds, poison_after: POISON_AFTER };
    let ledger = Ledger::new(journal, recovered, ENDPOINT, limits);
    // Some clocks are behind the service's, and some ahead.
    let skew = [0, -1, 1, -1, 1][life.instance] * SKEW_MS as i64;
    let clock = Arc::clone(&world);
    let ledger = ledger.with_clock(Arc::new(move || clock.clock_ms().saturating_add_signed(skew)));
    let ledger = Arc::new(ledger);
    ledger.shut();
    let shutdown = Shutdown::new(Duration::from_secs(30), Duration::from_secs(5));
    let parts = start(&world, &life, &broker, &ledger, &shutdown);
    let outcome = supervise(parts, shutdown, stop).await;
    // A disk that has failed says so.
    drop(ledger.hand_back().await);
    ledger.close().await;
    outcome
}

type Parts = JoinSet<(bool, Result<(), Failure>)>;

/// Starts engine and link; the flag tells them apart.
fn start(
    world: &Arc<World>,
    life: &Arc<Life>,
    broker: &Arc<dyn Transport>,
    ledger: &Arc<Ledger>,
    shutdown: &Shutdown,
) -> Parts {
    let engine = Engine {
        ledger: Arc::clone(ledger),
        executor: Arc::new(Sleeper { world: Arc::clone(world), life: Arc::clone(life) }),
        live: Arc::default(),
        slots: SlotCount::new(world.plan.slots),
    };
    let link = Link {
        transport: Arc::new(Net::new(world, life, broker)),
        ledger: Arc::clone(ledger),
        inlet: InletOptions {
            queue: topology::tasks_queue(ENDPOINT),
            prefetch: world.plan.prefetch,
            lease: Some(topology::lease_queue(ENDPOINT)),
            one_by_one: false,
        },
        results: Destination {
            exchange: topology::RESULTS_EXCHANGE.to_owned(),
            routing_key: topology::results_key(ENDPOINT),
        },
        events: None,
        messages: None,
        instance: Arc::new(Instance::new(
            wire::session_name(life.nonce, ledger.age, 0),
            world.plan.is_careful(),
        )),
        steering: Steering::new(EventsRequests::new().0),
        heartbeat: Terms::default().heartbeat,
        jitter: 0.0,
        intake: shutdown.intake.clone(),
        drain: shutdown.drain.clone(),
    };
    let mut parts = JoinSet::new();
    let (intake, kill) = (shutdown.intake.clone(), shutdown.kill.clone());
    parts.spawn(async move {
        let ended = engine.run(intake, kill).await;
        (true, ended.map_err(|error| Failure::new(Exit::Internal, error.to_string())))
    });
    parts.spawn(async move { (false, link.run().await) });
    parts
}

async fn supervise(
    mut parts: Parts,
    mut shutdown: Shutdown,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let mut outcome = Ok(());
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = parts.join_next() => match ended {
                None | Some(Ok((false, Ok(())))) => return outcome,
                Some(Ok((true, Ok(())))) => shutdown.engine_ended(),
                Some(Ok((is_engine, Err(failure)))) => {
                    outcome = outcome.and(Err(failure));
                    if is_engine { shutdown.engine_ended() } else { shutdown.begin() }
                }
                Some(Err(panic)) => return Err(Failure::new(Exit::Internal, panic.to_string())),
            },
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                shutdown.signalled();
            }
            () = shutdown.due() => if shutdown.escalate() { return outcome },
        }
    }
}
