//! The output of one attempt that is followed, on its way to be published. Pure.
//!
//! Promises: a piece has the position that its first byte has in the stream; pieces of a
//! stream come in order; no more than [`BURST`] bytes are held, and no more than [`RATE`]
//! are taken in a second. What is beyond is left out, and the positions tell how much.

use clutch_common::wire::{Follow, StreamName};
use std::collections::VecDeque;

/// The most bytes of a piece.
pub(crate) const PIECE: usize = 64 * 1024;
/// How many bytes of one attempt are published in a second.
const RATE: u64 = 1024 * 1024;
/// How many bytes of one attempt may wait to be published.
const BURST: u64 = RATE;
/// The age at which a caller that is still behind a position has lost it, in milliseconds.
const SETTLED_MS: u64 = 2000;

/// Bytes of a stream, and the position of the first.
pub(crate) type Piece = (u64, Vec<u8>);

/// The output of one attempt that is followed.
#[derive(Debug)]
pub(super) struct Followed {
    until_ms: u64,
    /// How many bytes may be taken now, and when that was counted.
    room: u64,
    counted_at_ms: u64,
    streams: [Stream; 2],
}

/// A stream of it.
#[derive(Debug, Default)]
struct Stream {
    /// The position that the caller has asked for.
    from: u64,
    /// Whether the run has handed over what it keeps.
    attached: bool,
    pieces: VecDeque<Piece>,
    /// The end of what was published: now, and a while before.
    told: u64,
    told_before: [u64; 2],
}

fn index(stream: StreamName) -> usize {
    match stream {
        StreamName::Stdout => 0,
        StreamName::Stderr => 1,
    }
}

impl Followed {
    /// Begins to follow.
    pub(super) fn new(follow: &Follow, now_ms: u64) -> Self {
        let stream = |from| Stream { from, ..Stream::default() };
        Self {
            until_ms: now_ms.saturating_add(follow.for_ms),
            room: BURST,
            counted_at_ms: now_ms,
            streams: [stream(follow.stdout_from), stream(follow.stderr_from)],
        }
    }

    /// Goes on for longer. Where the caller has less than was published a while ago, the run
    /// is to hand over again what it keeps; returns whether it is to.
    pub(super) fn renew(&mut self, follow: &Follow, now_ms: u64) -> bool {
        self.until_ms = self.until_ms.max(now_ms.saturating_add(follow.for_ms));
        let mut again = false;
        for (stream, from) in self.streams.iter_mut().zip([follow.stdout_from, follow.stderr_from])
        {
            if from < stream.told_before[0] {
                *stream = Stream { from, ..Stream::default() };
                again = true;
            }
        }
        again
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.until_ms <= now_ms
    }

    /// From which position on the run is to hand over what it keeps of a stream; `None` if
    /// it has.
    pub(super) fn attach(&mut self, stream: StreamName) -> Option<u64> {
        let stream = &mut self.streams[index(stream)];
        (!std::mem::replace(&mut stream.attached, true)).then_some(stream.from)
    }

    /// Takes what the run kept. Where that is too much, the last of it counts.
    pub(super) fn kept(&mut self, stream: StreamName, kept: Vec<Piece>, now_ms: u64) {
        self.count(now_ms);
        let mut room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        for (from, bytes) in kept.into_iter().rev() {
            let skipped = bytes.len().saturating_sub(room);
            room -= bytes.len() - skipped;
            taken.push((from + skipped as u64, bytes[skipped..].to_vec()));
        }
        for (from, bytes) in taken.into_iter().rev() {
            self.room = self.room.saturating_sub(bytes.len() as u64);
            self.streams[index(stream)].push(from, &bytes);
        }
    }

    /// Takes output as it comes, if there is room for all of it.
    pub(super) fn output(&mut self, stream: StreamName, from: u64, bytes: &[u8], now_ms: u64) {
        if self.room < bytes.len() as u64 {
            self.count(now_ms);
        }
        if self.room >= bytes.len() as u64 {
            self.room -= bytes.len() as u64;
            self.streams[index(stream)].push(from, bytes);
        }
    }

    /// Whether there is something to publish.
    pub(super) fn is_ready(&self) -> bool {
        self.streams.iter().any(|stream| !stream.pieces.is_empty())
    }

    /// Takes pieces to publish: of about `max` bytes at most, one at least if there is one.
    pub(super) fn take(&mut self, max: usize, now_ms: u64) -> Vec<(StreamName, Piece)> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        for (stream, name) in self.streams.iter_mut().zip([StreamName::Stdout, StreamName::Stderr])
        {
            while bytes < max
                && let Some(piece) = stream.pieces.pop_front()
            {
                bytes += piece.1.len();
                stream.told = piece.0 + piece.1.len() as u64;
                taken.push((name, piece));
            }
        }
        self.count(now_ms);
        taken
    }

    /// Notes positions that grow old. To be called about once in [`SETTLED_MS`].
    pub(super) fn age(&mut self) {
        for stream in &mut self.streams {
            stream.told_before = [stream.told_before[1], stream.told];
        }
    }

    /// How often [`Followed::age`] is to be called, in milliseconds.
    pub(super) const AGE_MS: u64 = SETTLED_MS;

    fn count(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.counted_at_ms);
        self.room = BURST.min(self.room.saturating_add(passed.saturating_mul(RATE) / 1000));
        self.counted_at_ms = self.counted_at_ms.max(now_ms);
    }
}

impl Stream {
    /// Appends bytes to the last piece as far as they follow it and it has room.
    fn push(&mut self, mut from: u64, mut bytes: &[u8]) {
        // A position before the one asked for is not wanted.
        let skipped = usize::try_from(self.from.saturating_sub(from)).unwrap_or(usize::MAX);
        bytes = bytes.get(skipped..).unwrap_or_default();
        from += skipped as u64;
        if let Some((at, last)) = self.pieces.back_mut()
            && *at + last.len() as u64 == from
        {
            let (more, rest) = bytes.split_at(bytes.len().min(PIECE.saturating_sub(last.len())));
            last.extend_from_slice(more);
            from += more.len() as u64;
            bytes = rest;
        }
        for piece in bytes.chunks(PIECE) {
            self.pieces.push_back((from, piece.to_vec()));
            from += piece.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::capture::Capture;
    use clutch_common::id::{Attempt, TaskId};
    use proptest::prelude::*;

    fn follow(stdout_from: u64, for_ms: u64) -> Follow {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        Follow { attempt, stdout_from, stderr_from: 0, for_ms }
    }

    fn stdout(followed: &mut Followed, now_ms: u64) -> Vec<Piece> {
        followed.take(usize::MAX, now_ms).into_iter().map(|(_, piece)| piece).collect()
    }

    #[test]
    fn what_follows_is_one_piece_and_a_gap_begins_another() {
        let mut followed = Followed::new(&follow(2, 1000), 0);
        assert_eq!(followed.attach(StreamName::Stdout), Some(2));
        assert_eq!(followed.attach(StreamName::Stdout), None, "once");
        followed.output(StreamName::Stdout, 0, b"abcd", 0);
        followed.output(StreamName::Stdout, 4, b"ef", 0);
        followed.output(StreamName::Stdout, 9, b"x", 0);
        assert!(followed.is_ready());
        assert_eq!(stdout(&mut followed, 0), [(2, b"cdef".to_vec()), (9, b"x".to_vec())]);
        assert!(!followed.is_ready());
        let long = vec![b'y'; PIECE + 1];
        followed.output(StreamName::Stdout, 10, &long, 0);
        let sizes: Vec<usize> =
            stdout(&mut followed, 0).iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(sizes, [PIECE, 1]);
    }

    #[test]
    fn it_ends_unless_it_is_renewed() {
        let mut followed = Followed::new(&follow(0, 1000), 0);
        assert!(!followed.is_over(999) && followed.is_over(1000));
        assert!(!followed.renew(&follow(0, 1000), 500), "nothing was lost");
        assert!(!followed.is_over(1499) && followed.is_over(1500));
    }

    #[test]
    fn what_a_caller_has_lost_is_handed_over_again_and_what_is_on_its_way_is_not() {
        let mut followed = Followed::new(&follow(0, 1000), 0);
        followed.attach(StreamName::Stdout);
        followed.output(StreamName::Stdout, 0, b"abcd", 0);
        stdout(&mut followed, 0);
        followed.age();
        assert!(!followed.renew(&follow(0, 1000), 1), "it may be on its way");
        followed.age();
        assert!(!followed.renew(&follow(4, 1000), 2));
        assert!(followed.renew(&follow(1, 1000), 3));
        assert_eq!(followed.attach(StreamName::Stdout), Some(1));
    }

    #[test]
    fn no_more_than_a_mebibyte_a_second_is_taken_and_the_rest_is_left_out() {
        let mut followed = Followed::new(&follow(0, 100_000), 0);
        followed.attach(StreamName::Stdout);
        let chunk = vec![0; 32 * 1024];
        let (mut from, mut taken) = (0, 0);
        for now_ms in 0..10_000 {
            for _ in 0..3 {
                followed.output(StreamName::Stdout, from, &chunk, now_ms);
                from += chunk.len() as u64;
            }
            taken += stdout(&mut followed, now_ms).iter().map(|piece| piece.1.len()).sum::<usize>();
        }
        assert!(from > 900 << 20);
        assert!((10 << 20..=11 << 20).contains(&taken), "{taken}");
    }

    proptest! {
        #[test]
        fn positions_never_lie(
            limit in 0usize..200,
            asked in 0u64..300,
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), any::<bool>()), 0..20),
            attach in 0usize..20,
        ) {
            let (mut capture, mut all) = (Capture::new(limit), Vec::new());
            let mut followed = Followed::new(&follow(asked, 1000), 0);
            let (mut attached, mut end) = (false, 0);
            for (number, (bytes, take)) in pieces.iter().enumerate() {
                if number == attach && let Some(from) = followed.attach(StreamName::Stdout) {
                    followed.kept(StreamName::Stdout, capture.kept(from), 0);
                    attached = true;
                }
                let from = capture.total();
                capture.push(bytes);
                all.extend_from_slice(bytes);
                if attached {
                    followed.output(StreamName::Stdout, from, bytes, 0);
                }
                if !*take {
                    continue;
                }
                for (at, piece) in stdout(&mut followed, 0) {
                    prop_assert!(at >= end && at >= asked, "{at} {end} {asked}");
                    end = at + piece.len() as u64;
                    let at = usize::try_from(at).unwrap();
                    prop_assert_eq!(&all[at..at + piece.len()], &piece[..]);
                    prop_assert!(!piece.is_empty());
                }
            }
        }
    }
}
