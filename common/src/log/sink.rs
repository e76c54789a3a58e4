//! A bounded queue of lines and the thread that writes them: a caller that logs neither
//! waits for the reader of the stream nor fails with it.
//!
//! Touches: what it is given to write to, and one thread of its own. Promises that
//! saying something never blocks and never fails, that what is held is bounded,
//! that lines which were lost are counted, and that lines come out in their order
//! and whole as long as what they go to takes them.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many bytes may wait to be written.
const HELD_MAX: usize = 1024 * 1024;
/// The pause before something that takes nothing for now is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// A queue of lines on their way to a stream; clones are the same one.
#[derive(Clone)]
pub struct Sink(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Told, on the sink's thread, how many lines were lost once some get through
    /// again.
    lost: fn(u64),
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// How many bytes the lines have together.
    held: usize,
    /// How many lines were lost since that was told last.
    lost: u64,
    /// Whether the thread is busy with lines that it took.
    writing: bool,
    /// The stream, until a thread has it.
    target: Option<Box<dyn Write + Send>>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sink")
    }
}

impl Sink {
    /// A sink before `target`. Once lines get through again after some were lost,
    /// `lost` is called with how many; it may say something into the same sink.
    #[must_use]
    pub fn before(target: impl Write + Send + 'static, lost: fn(u64)) -> Self {
        let state = State { target: Some(Box::new(target)), ..State::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), lost }))
    }

    /// Has a line written, its end included, soon.
    pub fn say(&self, line: &[u8]) {
        let mut state = self.lock();
        self.start(&mut state);
        if state.held + line.len() > HELD_MAX || state.target.is_some() {
            state.lost += 1;
            return;
        }
        state.held += line.len();
        state.lines.push_back(line.to_owned());
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until all that was said is written, `limit` at most.
    pub fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        while state.writing || !state.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts the thread with the first line; a system that has no thread to spare is
    /// asked again with the next.
    fn start(&self, state: &mut State) {
        let Some(target) = state.target.take() else { return };
        let place = Arc::new(Mutex::new(Some(target)));
        let (theirs, sink) = (Arc::clone(&place), self.clone());
        let started = thread::Builder::new().name("log".to_owned()).spawn(move || {
            let target = theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(target) = target {
                sink.work(target);
            }
        });
        if started.is_err() {
            state.target = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    fn work(&self, mut target: Box<dyn Write + Send>) {
        let mut state = self.lock();
        loop {
            if state.lines.is_empty() {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let lines = std::mem::take(&mut state.lines);
            state.held = 0;
            state.writing = true;
            drop(state);
            let lost = lines.iter().filter(|line| write(target.as_mut(), line).is_err()).count();
            let through = lost < lines.len();
            state = self.lock();
            state.lost += lost as u64;
            let untold = if through { std::mem::take(&mut state.lost) } else { 0 };
            if untold > 0 {
                drop(state);
                (self.0.lost)(untold);
                state = self.lock();
            }
            state.writing = false;
            self.0.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a line; to something that does not block, as a shared terminal may be, for as
/// long as it takes.
fn write(target: &mut dyn Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match target.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => line = &line[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(PAUSE),
            Err(error) => return Err(error),
        }
    }
    target.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::sync::atomic::{AtomicU64, Ordering};

    const SOON: Duration = Duration::from_secs(60);

    fn nothing(_: u64) {}

    /// Takes lines while it is told to.
    struct Moody(Arc<AtomicU64>, Arc<Mutex<Vec<u8>>>);

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.load(Ordering::SeqCst) == 0 {
                return Err(io::Error::from_raw_os_error(28));
            }
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (read, written) = io::pipe().unwrap();
        let sink = Sink::before(written, nothing);
        for number in 0..1000 {
            sink.say(format!("{number}\n").as_bytes());
        }
        let lines: Vec<String> = BufReader::new(read).lines().take(1000).flatten().collect();
        assert!(lines.iter().enumerate().all(|(number, line)| *line == number.to_string()));
        sink.flush(SOON);
    }

    #[test]
    fn a_pipe_that_is_not_read_holds_nobody_up_and_what_is_lost_is_told_when_it_is() {
        static LOST: AtomicU64 = AtomicU64::new(0);
        let (mut read, written) = io::pipe().unwrap();
        let sink = Sink::before(written, |lost| {
            LOST.fetch_add(lost, Ordering::SeqCst);
        });
        let line = [b'x'; 4096];
        for _ in 0..1000 {
            sink.say(&line);
        }
        let begun = Instant::now();
        sink.flush(Duration::from_millis(50));
        assert!(begun.elapsed() < SOON, "a reader that never comes holds up the end");
        let held = sink.lock().held;
        assert!(held <= HELD_MAX, "{held} bytes are held");
        let reading = thread::spawn(move || {
            let mut bytes = Vec::new();
            read.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        sink.flush(SOON);
        let lost = LOST.load(Ordering::SeqCst);
        assert!((1..1000).contains(&lost), "{lost} lines were lost");
        // Its thread lives on; so does the pipe, and its reader is left to wait.
        drop((sink, reading));
    }

    #[test]
    fn a_disk_that_is_full_loses_lines_and_is_told_of_once_there_is_room() {
        static LOST: AtomicU64 = AtomicU64::new(0);
        let (takes, taken) = (Arc::new(AtomicU64::new(0)), Arc::default());
        let moody = Moody(Arc::clone(&takes), Arc::clone(&taken));
        let sink = Sink::before(moody, |lost| {
            LOST.fetch_add(lost, Ordering::SeqCst);
        });
        for _ in 0..3 {
            sink.say(b"lost\n");
            sink.flush(SOON);
        }
        assert_eq!(LOST.load(Ordering::SeqCst), 0, "there is nobody to tell yet");
        takes.store(1, Ordering::SeqCst);
        sink.say(b"kept\n");
        sink.flush(SOON);
        assert_eq!(LOST.load(Ordering::SeqCst), 3);
        assert_eq!(*taken.lock().unwrap(), b"kept\n");
    }

    #[test]
    fn a_reader_that_is_gone_ends_nobody() {
        let (read, written) = io::pipe().unwrap();
        drop(read);
        let sink = Sink::before(written, nothing);
        sink.say(b"line\n");
        sink.flush(SOON);
        assert_eq!(sink.lock().lost, 1);
    }
}
