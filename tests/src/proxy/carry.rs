//! One connection through the proxy: two pumps, one for each direction, which
//! obey the proxy's orders between two reads.

use super::frames::Frames;
use super::{Carry, Shared, Way};
use crate::poll;
use socket2::SockRef;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a pump may sit on a socket before it looks at its orders.
const PATIENCE: Duration = Duration::from_millis(20);
/// The most that is carried at once; a slow proxy carries less.
const CHUNK: usize = 64 * 1024;
const SLOW_CHUNK: usize = 2 * 1024;

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const ENDING: u8 = 2;

/// A connection: the client's side and, once it is dialled, the broker's.
#[derive(Debug)]
pub(super) struct Line {
    near: TcpStream,
    far: OnceLock<Arc<TcpStream>>,
    state: AtomicU8,
}

impl Line {
    pub(super) fn new(near: TcpStream) -> Self {
        Self { near, far: OnceLock::new(), state: AtomicU8::new(OPEN) }
    }

    /// Whether neither side has closed it.
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) != CLOSED
    }

    fn goes_on(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// Makes both sides end with a reset.
    pub(super) fn cut(&self) {
        reset_on_close(&self.near);
        if let Some(far) = self.far.get() {
            reset_on_close(far);
        }
        self.end(ENDING);
    }

    /// Makes the client's side end with a reset, and hands out the broker's.
    pub(super) fn lose_client(&self) -> Option<Arc<TcpStream>> {
        reset_on_close(&self.near);
        let orphan = self.far.get().cloned().filter(|_| self.is_open());
        self.end(ENDING);
        orphan
    }

    fn end(&self, state: u8) {
        // What has ended stays ended in the way it did.
        self.state.compare_exchange(OPEN, state, Ordering::AcqRel, Ordering::Acquire).ok();
    }
}

fn reset_on_close(stream: &TcpStream) {
    // It fails where the socket is gone already.
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// Dials the broker once nothing holds that up, and carries both ways until
/// either side ends, or the proxy says so.
pub(super) fn run(shared: &Shared, line: &Line) {
    while line.goes_on() && shared.orders().carry == Carry::Stall {
        shared.hold();
    }
    if !line.goes_on() {
        return;
    }
    let Ok(far) = TcpStream::connect(shared.target) else {
        line.cut();
        line.state.store(CLOSED, Ordering::Release);
        return;
    };
    let far = line.far.get_or_init(|| Arc::new(far));
    let ready = [&line.near, &**far].into_iter().try_for_each(|stream| {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))
    });
    if ready.is_ok() {
        let pump = |way, from, to| Pump { shared, line, way, from, to }.run();
        std::thread::scope(|scope| {
            scope.spawn(|| pump(Way::There, &line.near, &**far));
            pump(Way::Back, &**far, &line.near);
        });
    }
    line.end(CLOSED);
}

/// The confirms of one direction that are held back.
#[derive(Default)]
struct HeldConfirms {
    /// The part that has come of a frame that may be a confirm.
    frame: Vec<u8>,
    held: Vec<u8>,
}

impl HeldConfirms {
    fn is_amid_frame(&self) -> bool {
        !self.frame.is_empty()
    }

    /// Whether what is held can go on between two frames.
    fn is_due(&self) -> bool {
        !self.held.is_empty() && !self.is_amid_frame()
    }
}

struct Pump<'a> {
    shared: &'a Shared,
    line: &'a Line,
    way: Way,
    from: &'a TcpStream,
    to: &'a TcpStream,
}

impl Pump<'_> {
    fn run(&self) {
        let mut frames = Frames::new(self.way == Way::There);
        let mut confirms = HeldConfirms::default();
        let mut buffer = vec![0; CHUNK];
        let mut from = self.from;
        while self.line.goes_on() {
            let carry = self.shared.orders().carry;
            self.release(&mut confirms);
            let most = match carry {
                Carry::Stall => {
                    self.shared.hold();
                    continue;
                }
                Carry::Slow(_) => SLOW_CHUNK,
                Carry::Pass | Carry::Refuse => CHUNK,
            };
            match from.read(&mut buffer[..most]) {
                Ok(0) => {
                    if self.way == Way::There {
                        self.shared.left.fetch_add(1, Ordering::Relaxed);
                    }
                    // The other direction may have more to say.
                    self.act(|| drop(self.to.shutdown(Shutdown::Write)));
                    return;
                }
                Ok(count) => {
                    if let Carry::Slow(rate) = carry {
                        self.wait_turn(count, rate);
                    }
                    // The order may have come while this waited to read.
                    let hold = self.release(&mut confirms);
                    if hold || confirms.is_amid_frame() {
                        self.sift(&mut frames, &mut confirms, &buffer[..count]);
                    } else {
                        self.obey(&mut frames, &mut buffer[..count]);
                    }
                }
                Err(error) if is_pause(&error) => (),
                Err(_) => self.line.cut(),
            }
        }
    }

    /// Passes on the confirms that are held, unless the orders hold them; says whether they do.
    fn release(&self, confirms: &mut HeldConfirms) -> bool {
        let hold = self.shared.orders().hold_confirms && self.way == Way::Back;
        if !hold && confirms.is_due() {
            self.send(&std::mem::take(&mut confirms.held));
        }
        hold
    }

    fn wait_turn(&self, count: usize, rate: u32) {
        let takes = Duration::from_secs_f64(count as f64 / f64::from(rate.max(1)));
        let until = {
            let mut orders = self.shared.orders();
            orders.free_at = orders.free_at.max(Instant::now()) + takes;
            orders.free_at
        };
        poll::pause(until.saturating_duration_since(Instant::now()));
    }

    /// Carries bytes on, as far as the orders let it.
    fn obey(&self, frames: &mut Frames, bytes: &mut [u8]) {
        let (tear, forge, damage) = {
            let orders = self.shared.orders();
            let forge = orders.forge && self.way == Way::There;
            (orders.tear == Some(self.way), forge, orders.damage)
        };
        let mut sent = 0;
        for index in 0..bytes.len() {
            frames.push(bytes[index]);
            if let Some(every) = damage
                && frames.is_amid_body()
                && self.shared.bodies(self.way).fetch_add(1, Ordering::Relaxed) % every == every - 1
            {
                bytes[index] ^= 1;
            }
            if tear && frames.is_inside() && self.shared.orders().tear.take().is_some() {
                self.send(&bytes[sent..=index]);
                self.shared.torn.fetch_add(1, Ordering::Relaxed);
                self.line.cut();
                return;
            }
            if forge
                && let Some(channel) = frames.acknowledged()
                && std::mem::take(&mut self.shared.orders().forge)
            {
                self.send(&bytes[sent..=index]);
                sent = index + 1;
                self.send(&Frames::acknowledgement_of_nothing(channel));
                self.shared.forged.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.send(&bytes[sent..]);
    }

    /// Carries whole frames on, but for confirms.
    fn sift(&self, frames: &mut Frames, confirms: &mut HeldConfirms, bytes: &[u8]) {
        for byte in bytes {
            let begins = frames.is_between();
            frames.push(*byte);
            // The rest of a frame that went on before is not held.
            if !begins && !confirms.is_amid_frame() {
                self.send(&[*byte]);
                continue;
            }
            confirms.frame.push(*byte);
            if !frames.is_between() {
                continue;
            }
            let frame = std::mem::take(&mut confirms.frame);
            if frames.is_acknowledgement() {
                self.shared.confirms_held.fetch_add(1, Ordering::Relaxed);
                confirms.held.extend(frame);
            } else {
                self.send(&frame);
            }
        }
    }

    fn send(&self, mut bytes: &[u8]) {
        let mut to = self.to;
        while !bytes.is_empty() && self.line.goes_on() {
            let written = self.act(|| {
                let count = to.write(bytes)?;
                self.shared.bytes.fetch_add(count as u64, Ordering::Relaxed);
                Ok(count)
            });
            match written {
                Some(Ok(count)) => bytes = &bytes[count..],
                Some(Err(error)) if is_pause(&error) => (),
                Some(Err(_)) | None => self.line.cut(),
            }
        }
    }

    /// Does something while there is no stall, and begins none meanwhile; nothing once
    /// the line has ended.
    fn act<T>(&self, action: impl FnOnce() -> T) -> Option<T> {
        while self.line.goes_on() {
            let stalled = self.shared.stalled.read().unwrap_or_else(PoisonError::into_inner);
            if !*stalled {
                return Some(action());
            }
            drop(stalled);
            self.shared.hold();
        }
        None
    }
}

/// Whether a socket only had nothing to do for a while.
fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
