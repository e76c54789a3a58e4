//! One connection between an endpoint and the broker, as both ends see it: it may
//! be gone for one and not yet for the other.

use super::freeze::Gate;
use super::plan::Mishap;
use super::world::{World, lock};
use clutch_common::link::Fault;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The state of a connection.
pub(super) struct Wire {
    pub(super) name: String,
    world: Arc<World>,
    /// Of the process at this end.
    gate: Arc<Gate>,
    fault: Mutex<Option<Fault>>,
    /// Nothing travels any more.
    severed: CancellationToken,
    /// The endpoint knows.
    told: CancellationToken,
    /// The broker knows, and has what was on its way.
    pub(super) ended: CancellationToken,
}

impl Wire {
    /// A connection that works.
    pub(super) fn new(world: &Arc<World>, gate: &Arc<Gate>, name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            world: Arc::clone(world),
            gate: Arc::clone(gate),
            fault: Mutex::new(None),
            severed: CancellationToken::new(),
            told: CancellationToken::new(),
            ended: CancellationToken::new(),
        })
    }

    /// The connection is lost, and the endpoint knows at once.
    pub(super) fn cut(&self, fault: Fault) {
        self.sever(fault);
        self.told.cancel();
    }

    /// The connection is lost; the endpoint may learn it late.
    pub(super) fn sever(&self, fault: Fault) {
        if !self.severed.is_cancelled() {
            self.world.note(format_args!("{}: lost: {fault}", self.name));
            *lock(&self.fault) = Some(fault);
            self.severed.cancel();
        }
    }

    /// The endpoint closes the connection in order.
    pub(super) fn close(&self) {
        self.severed.cancel();
        self.told.cancel();
    }

    /// Resolves when nothing travels any more.
    pub(super) async fn severed(&self) {
        self.severed.cancelled().await;
    }

    /// Whether nothing travels any more.
    pub(super) fn is_severed(&self) -> bool {
        self.severed.is_cancelled()
    }

    /// Resolves when the endpoint knows that the connection is gone.
    pub(super) async fn lost(&self) -> Fault {
        self.told.cancelled().await;
        self.fault()
    }

    /// The fault, if the endpoint knows of it.
    pub(super) fn alive(&self) -> Result<(), Fault> {
        if self.told.is_cancelled() { Err(self.fault()) } else { Ok(()) }
    }

    fn fault(&self) -> Fault {
        let closed = || Fault::Closed("it was closed on this side".to_owned());
        lock(&self.fault).clone().unwrap_or_else(closed)
    }

    /// How much of what is on its way still arrives, once nothing is sent any
    /// more: all of it when the connection was closed in order.
    pub(super) fn still_arrives(&self) -> usize {
        let in_order = lock(&self.fault).is_none();
        if in_order { usize::MAX } else { self.world.within(0..4) as usize }
    }

    /// Lets both ends learn that the connection is gone, one of them late now
    /// and then. Gives how long the broker takes.
    pub(super) fn fade(&self) -> Duration {
        let in_order = lock(&self.fault).is_none();
        let frozen = self.gate.is_frozen();
        let late = !in_order && self.world.mishap(Mishap::HalfOpen);
        let (endpoint, broker) = match (late, self.world.flip()) {
            // It reads what had come before that.
            (false, _) if frozen => (self.world.millis(1..1_000), Duration::ZERO),
            (false, _) => (Duration::ZERO, Duration::ZERO),
            (true, true) => (Duration::ZERO, self.world.millis(1_000..35_000)),
            (true, false) => (self.world.millis(1_000..20_000), Duration::ZERO),
        };
        if !endpoint.is_zero() && !self.told.is_cancelled() {
            let world = &self.world;
            world.note(format_args!("{}: the endpoint learns of it late", self.name));
            let (told, gate) = (self.told.clone(), Arc::clone(&self.gate));
            world.network.spawn(async move {
                gate.awake().await;
                tokio::time::sleep(endpoint).await;
                told.cancel();
            });
        } else {
            self.told.cancel();
        }
        if !broker.is_zero() {
            self.world.note(format_args!("{}: the broker learns of it late", self.name));
        }
        broker
    }
}
