//! A TCP proxy before a broker, that treats what it carries as bad networks do:
//! resets, stalls, one side gone while the other sees nothing, a trickle, a cut
//! in the middle of a frame, a flipped bit. It listens on loopback, on threads of its own, for
//! as long as it exists.
//!
//! Every order is carried out when its call returns, but for those that wait
//! for a frame to come by; their counts say when they were.

mod carry;
mod frames;
#[cfg(test)]
mod tests;

use crate::broker::free_ports;
use crate::poll;
use anyhow::{Context as _, Result};
use carry::Line;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at what there is to do.
const LOOK: Duration = Duration::from_millis(5);

/// How what comes is treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carry {
    /// It is carried on.
    Pass,
    /// Nothing moves in either direction; the sockets stay, and new ones are
    /// accepted and treated alike.
    Stall,
    /// Nothing listens. What is open is carried on.
    Refuse,
    /// So many bytes a second, both directions of all connections together.
    Slow(u32),
}

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client to the broker.
    There,
    /// From the broker to the client.
    Back,
}

/// A running proxy; all that it carries is reset when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    orders: Mutex<Orders>,
    lines: Mutex<Vec<Arc<Line>>>,
    /// The broker's sides of connections without a client.
    orphans: Mutex<Vec<Arc<TcpStream>>>,
    ended: AtomicBool,
    /// Whether nothing may move; locked for reading while something does.
    stalled: RwLock<bool>,
    /// How often something had to wait for the end of a stall.
    held: AtomicUsize,
    bytes: AtomicU64,
    left: AtomicUsize,
    torn: AtomicUsize,
    forged: AtomicUsize,
    /// How many confirms were held back.
    confirms_held: AtomicUsize,
    /// How many bodies came by while some were damaged, there and back.
    bodies: [AtomicUsize; 2],
    /// Whether a listener is there.
    listening: AtomicBool,
}

#[derive(Debug)]
struct Orders {
    carry: Carry,
    tear: Option<Way>,
    forge: bool,
    hold_confirms: bool,
    /// One body of so many is damaged.
    damage: Option<usize>,
    /// When a slow proxy may carry on.
    free_at: Instant,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bodies(&self, way: Way) -> &AtomicUsize {
        match way {
            Way::There => &self.bodies[0],
            Way::Back => &self.bodies[1],
        }
    }

    /// Waits a moment of a stall.
    fn hold(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
        poll::pause(LOOK);
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Proxy {
    /// A proxy before an address, that passes everything on.
    pub fn before(target: SocketAddr) -> Result<Self> {
        let [own] = free_ports()?;
        let shared = Arc::new(Shared {
            target,
            orders: Mutex::new(Orders {
                carry: Carry::Pass,
                tear: None,
                forge: false,
                hold_confirms: false,
                damage: None,
                free_at: Instant::now(),
            }),
            lines: Mutex::default(),
            orphans: Mutex::default(),
            ended: AtomicBool::new(false),
            stalled: RwLock::new(false),
            held: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            torn: AtomicUsize::new(0),
            forged: AtomicUsize::new(0),
            confirms_held: AtomicUsize::new(0),
            bodies: Default::default(),
            listening: AtomicBool::new(true),
        });
        let listener = listen(own)?;
        let serving = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || accept(&serving, own, listener))
            .context("starting a proxy")?;
        Ok(Self { port: own, shared, acceptor: Some(acceptor) })
    }

    /// The port it listens at, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Treats everything so from here on.
    pub fn carry(&self, how: Carry) -> Result<()> {
        self.shared.orders().carry = how;
        *self.shared.stalled.write().unwrap_or_else(PoisonError::into_inner) = how == Carry::Stall;
        let wanted = how != Carry::Refuse;
        poll::until("the proxy's listener", Duration::from_secs(10), || {
            Ok((self.shared.listening.load(Ordering::Acquire) == wanted).then_some(()))
        })
    }

    /// Resets both sides of all that is open, and says how many connections
    /// that were.
    pub fn cut(&self) -> usize {
        self.end_lines(|line| line.cut())
    }

    /// Resets the client's side of all that is open; the broker goes on seeing
    /// its connections, on which nothing comes. Says how many there were.
    pub fn lose_clients(&self) -> usize {
        self.end_lines(|line| {
            let orphan = line.lose_client();
            let mut orphans = self.shared.orphans.lock().unwrap_or_else(PoisonError::into_inner);
            orphans.extend(orphan);
        })
    }

    fn end_lines(&self, end: impl Fn(&Line)) -> usize {
        let lines = std::mem::take(&mut *self.shared.lines());
        lines.iter().for_each(|line| end(line));
        let mut open = 0;
        for line in lines {
            open += usize::from(line.is_open());
            while Arc::strong_count(&line) > 1 {
                poll::pause(LOOK);
            }
        }
        open
    }

    /// Resets the connection on which the next frame comes by that goes this
    /// way, after a part of its payload.
    pub fn tear(&self, way: Way) {
        self.shared.orders().tear = Some(way);
    }

    /// How many connections were reset inside a frame.
    #[must_use]
    pub fn torn(&self) -> usize {
        self.shared.torn.load(Ordering::Relaxed)
    }

    /// After the next acknowledgement that a client sends, sends another one
    /// for a delivery that never was, which makes the broker close the channel.
    pub fn forge_acknowledgement(&self) {
        self.shared.orders().forge = true;
    }

    /// How many acknowledgements were forged.
    #[must_use]
    pub fn forged(&self) -> usize {
        self.shared.forged.load(Ordering::Relaxed)
    }

    /// Holds back what the broker confirms of messages that are published, and nothing else;
    /// or passes on what was held back, and what comes.
    pub fn hold_confirms(&self, hold: bool) {
        self.shared.orders().hold_confirms = hold;
    }

    /// How many confirms were held back so far. One may be of several messages.
    #[must_use]
    pub fn confirms_held(&self) -> usize {
        self.shared.confirms_held.load(Ordering::Relaxed)
    }

    /// Flips a bit in one of so many bodies of messages, each way; none where there is
    /// no number.
    pub fn damage(&self, one_of: Option<NonZeroUsize>) {
        self.shared.orders().damage = one_of.map(NonZeroUsize::get);
    }

    /// How many bodies came by this way while some were damaged.
    #[must_use]
    pub fn bodies(&self, way: Way) -> usize {
        self.shared.bodies(way).load(Ordering::Relaxed)
    }

    /// How many bytes were carried so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// How many connections their clients have closed so far.
    #[must_use]
    pub fn left(&self) -> usize {
        self.shared.left.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.lines().iter().filter(|line| line.is_open()).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.cut();
        // A panic there was told on stderr.
        drop(self.acceptor.take().map(JoinHandle::join));
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("opening a proxy")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes connections in until the proxy ends, and waits for their threads.
fn accept(shared: &Arc<Shared>, port: u16, listener: TcpListener) {
    let mut listener = Some(listener);
    let mut carrying: Vec<JoinHandle<()>> = Vec::new();
    while !shared.ended() {
        if shared.orders().carry == Carry::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = listen(port).ok();
        }
        shared.listening.store(listener.is_some(), Ordering::Release);
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((near, _))) => {
                let line = Arc::new(Line::new(near));
                let serving = Arc::clone(shared);
                shared.lines().push(Arc::clone(&line));
                carrying.retain(|thread| !thread.is_finished());
                carrying.push(std::thread::spawn(move || {
                    carry::run(&serving, &line);
                    // With the last of the line its sockets are closed.
                    serving.lines().retain(|other| !Arc::ptr_eq(other, &line));
                }));
            }
            Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => break,
            Some(Err(_)) | None => poll::pause(LOOK),
        }
    }
    for line in std::mem::take(&mut *shared.lines()) {
        line.cut();
    }
    for thread in carrying {
        // A panic there was told on stderr.
        drop(thread.join());
    }
}
