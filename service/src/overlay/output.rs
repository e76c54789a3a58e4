//! The output of tasks that are followed, as far as the service has it. Pure.
//!
//! Bounded: [`MAX_FOLLOWED`] tasks, and the last [`KEPT`] bytes of each stream. A task is
//! followed while a client asks for it at least every [`LEASE`]; several clients share it.

use clutch_common::id::{Attempt, TaskId};
use clutch_common::wire::{OutputEvent, StreamName};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How many tasks may be followed at once.
const MAX_FOLLOWED: usize = 64;
/// How many bytes of a stream are kept for clients that are behind.
const KEPT: usize = 1024 * 1024;
/// How many bytes of a stream are handed out at once, give or take one piece.
const HANDED_OUT: usize = 512 * 1024;
/// A client that did not ask for this long is gone.
const LEASE: Duration = Duration::from_secs(60);
/// For how long an endpoint is asked to publish.
pub(crate) const FOLLOW_FOR: Duration = Duration::from_secs(30);
/// When it is asked again.
const FOLLOW_AGAIN: Duration = Duration::from_secs(15);
/// The pause before an endpoint is asked again that did not seem to be there.
const RETRY: Duration = Duration::from_secs(2);

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The position of its first byte in the stream.
    pub(crate) from: u64,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Piece {
    /// The position behind its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.from.saturating_add(self.bytes.len() as u64)
    }
}

/// The end of a stream: pieces in order, which may leave gaps.
#[derive(Debug, Default)]
struct StreamEnd {
    pieces: VecDeque<Piece>,
    bytes: usize,
    end: u64,
}

impl StreamEnd {
    /// Appends what is new of a piece.
    fn push(&mut self, from: u64, bytes: &[u8]) {
        let known = usize::try_from(self.end.saturating_sub(from)).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) else { return };
        let piece = Piece { from: from.max(self.end), bytes: new.to_vec() };
        self.end = piece.end();
        self.bytes += new.len();
        self.pieces.push_back(piece);
        while self.bytes > KEPT
            && self.pieces.len() > 1
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.bytes -= oldest.bytes.len();
        }
    }

    /// The pieces from a position on, up to a number of bytes.
    fn after(&self, from: u64) -> Vec<Piece> {
        let mut bytes = 0;
        let mut found = Vec::new();
        for piece in self.pieces.iter().filter(|piece| piece.end() > from) {
            let known = usize::try_from(from.saturating_sub(piece.from)).unwrap_or(usize::MAX);
            let Some(new) = piece.bytes.get(known..) else { continue };
            bytes += new.len();
            found.push(Piece { from: piece.from.max(from), bytes: new.to_vec() });
            if bytes >= HANDED_OUT {
                break;
            }
        }
        found
    }
}

/// A task that is followed.
#[derive(Debug)]
struct FollowedTask {
    attempt: u32,
    /// Counts how often its output began anew: the attempt was started again.
    run: u64,
    /// The session of the endpoint that the last piece came from.
    instance: Option<Uuid>,
    stdout: StreamEnd,
    stderr: StreamEnd,
    asked_for: Instant,
    /// When the endpoint is to be asked to publish; see [`Followed::due`].
    due: Instant,
}

impl FollowedTask {
    fn new(attempt: u32, run: u64, now: Instant) -> Self {
        let (stdout, stderr) = (StreamEnd::default(), StreamEnd::default());
        Self { attempt, run, instance: None, stdout, stderr, asked_for: now, due: now }
    }

    fn stream(&mut self, name: StreamName) -> &mut StreamEnd {
        match name {
            StreamName::Stdout => &mut self.stdout,
            StreamName::Stderr => &mut self.stderr,
        }
    }
}

/// How far a client has read a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadUpTo {
    /// The stream.
    pub(crate) stream: StreamName,
    /// The attempt that it reads; 0 if it has read nothing.
    pub(crate) attempt: u32,
    /// The run of that attempt.
    pub(crate) run: u64,
    /// How many bytes it has.
    pub(crate) from: u64,
}

/// The output that a client does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewOutput {
    /// The run that it belongs to; 0 if the task is not followed. Where it is another than
    /// the client's, the output begins anew.
    pub(crate) run: u64,
    /// The pieces.
    pub(crate) pieces: Vec<Piece>,
}

/// An attempt that its endpoint is to be asked to publish, from these positions on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FollowDue {
    /// The attempt.
    pub(crate) attempt: Attempt,
    /// How many bytes of standard output are here.
    pub(crate) stdout: u64,
    /// How many bytes of standard error are here.
    pub(crate) stderr: u64,
}

/// The tasks that are followed.
#[derive(Debug, Default)]
pub(crate) struct Followed(BTreeMap<TaskId, FollowedTask>);

impl Followed {
    /// Whether no task is followed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Follows an attempt for a client, or goes on to. Returns whether the endpoint is to be
    /// asked for it now; nothing if too many are followed. A client that has read of the
    /// attempt before this service followed it goes on from there.
    pub(crate) fn follow(
        &mut self,
        attempt: Attempt,
        read: ReadUpTo,
        now: Instant,
    ) -> Option<bool> {
        self.0.retain(|_, task| now.saturating_duration_since(task.asked_for) < LEASE);
        let number = attempt.attempt;
        if let Some(task) = self.0.get_mut(&attempt.task_id) {
            task.asked_for = now;
            if task.attempt >= number {
                return Some(false);
            }
            *task = FollowedTask::new(number, 1, now);
            return Some(true);
        }
        if self.0.len() >= MAX_FOLLOWED {
            return None;
        }
        let mut task = FollowedTask::new(number, 1, now);
        if read.attempt == number {
            task.run = read.run.max(1);
            task.stream(read.stream).end = read.from;
        }
        self.0.insert(attempt.task_id, task);
        Some(true)
    }

    /// Takes in output of a session of an endpoint; returns whether a client may wait for it.
    pub(crate) fn push(&mut self, event: &OutputEvent, instance: Uuid, now: Instant) -> bool {
        let Some(task) = self.0.get_mut(&event.attempt.task_id) else { return false };
        if task.attempt != event.attempt.attempt {
            return false;
        }
        let before = task.instance.replace(instance);
        let behind = event.from < task.stream(event.stream).end;
        // In another session the endpoint goes on from where it is asked to: if it does not, it
        // was started again, and the task too.
        if behind && before.map_or(event.from == 0, |before| before != instance) {
            let (run, asked_for) = (task.run + 1, task.asked_for);
            *task = FollowedTask { asked_for, ..FollowedTask::new(task.attempt, run, now) };
            task.instance = Some(instance);
        }
        task.stream(event.stream).push(event.from, &event.bytes.0);
        true
    }

    /// The output that a client does not have of the attempt that is followed.
    pub(crate) fn output(&self, task: TaskId, read: ReadUpTo) -> NewOutput {
        let Some(task) = self.0.get(&task) else { return NewOutput::default() };
        let same = (read.attempt, read.run) == (task.attempt, task.run);
        let stream = match read.stream {
            StreamName::Stdout => &task.stdout,
            StreamName::Stderr => &task.stderr,
        };
        NewOutput { run: task.run, pieces: stream.after(if same { read.from } else { 0 }) }
    }

    /// The attempts that endpoints are to be asked to publish, for the first time or again.
    /// They are due again after a while.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<FollowDue> {
        self.0.retain(|_, task| now.saturating_duration_since(task.asked_for) < LEASE);
        let mut due = Vec::new();
        for (&task_id, task) in self.0.iter_mut().filter(|(_, task)| task.due <= now) {
            task.due = now + FOLLOW_AGAIN;
            due.push(FollowDue {
                attempt: Attempt { task_id, attempt: task.attempt },
                stdout: task.stdout.end,
                stderr: task.stderr.end,
            });
        }
        due
    }

    /// Notes that an endpoint could not be asked.
    pub(crate) fn not_asked(&mut self, attempt: Attempt, now: Instant) {
        if let Some(task) = self.0.get_mut(&attempt.task_id) {
            task.due = now + RETRY;
        }
    }

    /// Has every endpoint asked again: a session began, on either side.
    pub(crate) fn ask_again(&mut self, now: Instant) {
        self.0.values_mut().for_each(|task| task.due = now);
    }

    /// Asks no more for tasks that have ended; their output is kept for a while.
    pub(crate) fn ended(&mut self, task: TaskId) {
        if let Some(task) = self.0.get_mut(&task) {
            task.due = task.asked_for + LEASE;
        }
    }

    /// When the next attempt is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|task| task.due).min()
    }
}

/// The pieces of a recorded output from a position on. Where bytes of it were left out, head
/// and tail are kept around a mark, and the head is half of what is kept.
#[must_use]
pub(crate) fn recorded(kept: &[u8], omitted: u64, from: u64) -> Vec<Piece> {
    let mark =
        if omitted > 0 { format!("\n[... {omitted} bytes omitted ...]\n") } else { String::new() };
    let head = kept.len().saturating_sub(mark.len()) / 2;
    let marked = kept.get(head..).is_some_and(|rest| rest.starts_with(mark.as_bytes()));
    let (head, tail) = match (omitted, marked) {
        (0, _) | (_, false) => (kept, &[][..]),
        (_, true) => (&kept[..head], &kept[head + mark.len()..]),
    };
    let mut stream = StreamEnd::default();
    stream.pieces.push_back(Piece { from: 0, bytes: head.to_vec() });
    let behind = (head.len() as u64).saturating_add(omitted);
    stream.pieces.push_back(Piece { from: behind, bytes: tail.to_vec() });
    let after = |piece: &Piece| {
        let known = usize::try_from(from.saturating_sub(piece.from)).unwrap_or(usize::MAX);
        let new = piece.bytes.get(known..).filter(|new| !new.is_empty())?;
        Some(Piece { from: piece.from.max(from), bytes: new.to_vec() })
    };
    stream.pieces.iter().filter_map(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u32) -> Attempt {
        Attempt { task_id: TaskId(Uuid::from_u128(1)), attempt: number }
    }

    fn event(number: u32, from: u64, bytes: &str) -> OutputEvent {
        let (stream, bytes) = (StreamName::Stdout, bytes.as_bytes().to_vec().into());
        OutputEvent { attempt: attempt(number), stream, from, bytes }
    }

    fn text(pieces: &[Piece]) -> Vec<(u64, String)> {
        let text = |piece: &Piece| (piece.from, String::from_utf8(piece.bytes.clone()).unwrap());
        pieces.iter().map(text).collect()
    }

    fn read(from: u64) -> ReadUpTo {
        ReadUpTo { stream: StreamName::Stdout, attempt: 1, run: 1, from }
    }

    const NOTHING: ReadUpTo = ReadUpTo { stream: StreamName::Stdout, attempt: 0, run: 0, from: 0 };
    const ONE: Uuid = Uuid::from_u128(1);
    const TWO: Uuid = Uuid::from_u128(2);

    #[test]
    fn each_client_reads_on_from_where_it_is_and_gaps_show_in_the_positions() {
        let now = Instant::now();
        let mut followed = Followed::default();
        assert_eq!(followed.follow(attempt(1), NOTHING, now), Some(true));
        assert_eq!(followed.follow(attempt(1), NOTHING, now), Some(false), "they share it");
        assert!(followed.push(&event(1, 0, "abc"), ONE, now));
        assert!(followed.push(&event(1, 2, "cd"), ONE, now));
        assert!(followed.push(&event(1, 10, "xy"), ONE, now));
        assert!(!followed.push(&event(2, 0, "of another attempt"), ONE, now));
        let new = followed.output(attempt(1).task_id, read(1));
        let expected = [(1, "bc"), (3, "d"), (10, "xy")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(text(&new.pieces), expected);
        assert_eq!(followed.output(attempt(1).task_id, read(12)).pieces, []);
    }

    #[test]
    fn a_task_that_runs_anew_is_read_from_its_beginning() {
        let now = Instant::now();
        let mut followed = Followed::default();
        followed.follow(attempt(1), NOTHING, now);
        followed.push(&event(1, 0, "abc"), ONE, now);
        // Another session of the endpoint, and the same process: nothing begins anew.
        followed.push(&event(1, 3, "d"), TWO, now);
        assert_eq!(followed.output(attempt(1).task_id, read(4)).run, 1);
        followed.push(&event(1, 0, "ab"), ONE, now);
        let new = followed.output(attempt(1).task_id, read(4));
        assert_eq!((new.run, text(&new.pieces)), (2, vec![(0, "ab".to_owned())]));
        assert_eq!(followed.follow(attempt(2), NOTHING, now), Some(true));
        assert_eq!(followed.output(attempt(1).task_id, read(4)).pieces, []);
    }

    #[test]
    fn a_client_goes_on_where_it_was_when_the_service_was_started_again() {
        let now = Instant::now();
        let before = ReadUpTo { run: 3, ..read(5) };
        let mut followed = Followed::default();
        followed.follow(attempt(1), before, now);
        assert_eq!(followed.due(now)[0].stdout, 5);
        followed.push(&event(1, 4, "ef"), ONE, now);
        let new = followed.output(attempt(1).task_id, before);
        assert_eq!((new.run, text(&new.pieces)), (3, vec![(5, "f".to_owned())]));
        let mut followed = Followed::default();
        followed.follow(attempt(1), before, now);
        followed.push(&event(1, 0, "anew"), ONE, now);
        assert_eq!(followed.output(attempt(1).task_id, before).run, 4);
    }

    #[test]
    fn an_endpoint_is_asked_again_until_the_last_client_is_gone() {
        let mut now = Instant::now();
        let mut followed = Followed::default();
        followed.follow(attempt(1), NOTHING, now);
        followed.push(&event(1, 0, "abc"), ONE, now);
        let due = FollowDue { attempt: attempt(1), stdout: 3, stderr: 0 };
        assert_eq!(followed.due(now), [due]);
        assert_eq!(followed.due(now), []);
        followed.not_asked(attempt(1), now);
        assert_eq!(followed.due(now + RETRY), [due]);
        now += FOLLOW_AGAIN + RETRY;
        assert_eq!(followed.due(now), [due]);
        followed.ask_again(now);
        assert_eq!(followed.next_due(), Some(now));
        followed.ended(attempt(1).task_id);
        assert_eq!(followed.due(now), []);
        assert_eq!(followed.due(now + LEASE), []);
        assert!(followed.is_empty() && followed.next_due().is_none());
    }

    #[test]
    fn what_is_kept_and_how_many_are_followed_is_bounded() {
        let now = Instant::now();
        let mut followed = Followed::default();
        for number in 0..MAX_FOLLOWED as u128 {
            let task_id = TaskId(Uuid::from_u128(number));
            assert_eq!(followed.follow(Attempt { task_id, attempt: 1 }, NOTHING, now), Some(true));
        }
        let one_more = Attempt { task_id: TaskId::new(), attempt: 1 };
        assert_eq!(followed.follow(one_more, NOTHING, now), None);
        assert_eq!(followed.follow(one_more, NOTHING, now + LEASE), Some(true));
        let mut stream = StreamEnd::default();
        for number in 0..10 {
            stream.push(number * KEPT as u64 / 4, &vec![b'x'; KEPT / 4]);
        }
        assert!(stream.bytes <= KEPT);
        assert_eq!(stream.after(0)[0].from, 6 * KEPT as u64 / 4);
    }

    #[test]
    fn a_recorded_output_is_read_around_its_mark() {
        let kept = b"abc\n[... 94 bytes omitted ...]\nxyz";
        let expected = [(1, "bc".to_owned()), (97, "xyz".to_owned())];
        assert_eq!(text(&recorded(kept, 94, 1)), expected);
        assert_eq!(text(&recorded(kept, 94, 98)), [(98, "yz".to_owned())]);
        assert_eq!(text(&recorded(b"abc", 0, 2)), [(2, "c".to_owned())]);
        assert_eq!(text(&recorded(b"abc", 0, 3)), []);
    }
}
