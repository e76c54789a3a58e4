//! The broker as an endpoint in a run meets it: the one in memory, at the other
//! end of a network that loses connections, is slow, and tells either end late.

use super::inlet::NetInlet;
use super::outlet::NetOutlet;
use super::plan::Mishap;
use super::process::Life;
use super::wire::Wire;
use super::world::World;
use async_trait::async_trait;

use clutch_common::link::{
    Connection, Fault, Inlet, InletOptions, Outlet, QueueBrowser, Transport,
};
use clutch_common::topology::Topology;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The way of one process to the broker.
pub(super) struct Net {
    world: Arc<World>,
    life: Arc<Life>,
    broker: Arc<dyn Transport>,
    dialled: AtomicU64,
}

impl Net {
    /// The way of `life` to `broker`.
    pub(super) fn new(world: &Arc<World>, life: &Arc<Life>, broker: &Arc<dyn Transport>) -> Self {
        let (world, life, broker) = (Arc::clone(world), Arc::clone(life), Arc::clone(broker));
        Self { world, life, broker, dialled: AtomicU64::new(0) }
    }

    async fn reach(&self) -> Result<(), Fault> {
        self.world.travel().await;
        let (down, cut_off) = {
            let conditions = self.world.conditions();
            (conditions.broker_down, conditions.cut_off.contains(&self.life.instance))
        };
        if cut_off {
            tokio::time::sleep(Duration::from_secs(3)).await;
            return Err(Fault::Unreachable("the network is gone".to_owned()));
        }
        if down { Err(Fault::Refused("the broker is down".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Transport for Net {
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, Fault> {
        self.life.gate.awake().await;
        self.reach().await?;
        let fails = self.world.mishap(Mishap::Dial);
        if fails && self.world.flip() {
            return Err(some_fault(&self.world));
        }
        let inner: Arc<dyn Connection> = Arc::from(self.broker.connect(name).await?);
        if fails {
            return Err(some_fault(&self.world));
        }
        let number = self.dialled.fetch_add(1, Ordering::Relaxed);
        let wire = format!("{}/{number}", self.life.name);
        let wire = Wire::new(&self.world, &self.life.gate, wire);
        self.life.dialled(&wire);
        let (world, life) = (Arc::clone(&self.world), Arc::clone(&self.life));
        Ok(Box::new(NetConnection { world, life, wire, inner }))
    }

    fn address(&self) -> String {
        "memory:".to_owned()
    }
}

/// A connection through the network.
struct NetConnection {
    world: Arc<World>,
    life: Arc<Life>,
    wire: Arc<Wire>,
    inner: Arc<dyn Connection>,
}

impl NetConnection {
    /// A request on a connection that is lost has no answer; the endpoint learns why. While
    /// nothing is sent on it, this is the only way that it does.
    async fn lost_before(&self) -> Result<(), Fault> {
        self.wire.alive()?;
        if !self.wire.is_severed() {
            return Ok(());
        }
        let _: Duration = self.wire.fade();
        Err(self.wire.lost().await)
    }
}

#[async_trait]
impl Connection for NetConnection {
    async fn declare(&self, topology: &Topology) -> Result<(), Fault> {
        self.wire.alive()?;
        self.inner.declare(topology).await
    }

    async fn remove_queue(&self, queue: &str) -> Result<(), Fault> {
        self.wire.alive()?;
        self.inner.remove_queue(queue).await
    }

    async fn waiting(&self, queue: &str) -> Result<u64, Fault> {
        self.wire.alive()?;
        self.inner.waiting(queue).await
    }

    async fn inlet(&self, options: &InletOptions) -> Result<Box<dyn Inlet>, Fault> {
        self.life.gate.awake().await;
        self.world.travel().await;
        self.lost_before().await?;
        let fails = self.world.mishap(Mishap::Lease);
        if fails && self.world.flip() {
            self.wire.cut(some_fault(&self.world));
        }
        self.wire.alive()?;
        let taken = self.inner.inlet(options).await;
        let taken = taken.inspect_err(|fault| {
            self.world.note(format_args!("{}: {fault}", self.wire.name));
        })?;
        self.world.note(format_args!("{}: consumes", self.wire.name));
        if fails {
            self.wire.cut(some_fault(&self.world));
        }
        let (world, life, wire) = (&self.world, &self.life, &self.wire);
        let takes_tasks = options.lease.is_some();
        Ok(Box::new(NetInlet::open(world, life, wire, &self.inner, taken, takes_tasks)))
    }

    async fn outlet(&self) -> Result<Box<dyn Outlet>, Fault> {
        self.world.travel().await;
        self.lost_before().await?;
        let inner = self.inner.outlet().await?;
        Ok(Box::new(NetOutlet::open(&self.world, &self.life, &self.wire, inner)))
    }

    async fn browse(&self, queue: &str, lease: &str) -> Result<Box<dyn QueueBrowser>, Fault> {
        self.wire.alive()?;
        self.inner.browse(queue, lease).await
    }

    async fn close(&self) {
        self.wire.close();
        self.world.travel().await;
    }
}

/// The fault that a link fails with; mostly one that mends by itself.
pub(super) fn some_fault(world: &World) -> Fault {
    let words = || "by chance".to_owned();
    match world.within(0..12) {
        0 => Fault::Missing(words()),
        1 => Fault::Protocol(words()),
        2 => Fault::Forbidden(words()),
        3 | 4 => Fault::Unreachable(words()),
        _ => Fault::Closed(words()),
    }
}
