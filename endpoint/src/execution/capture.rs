//! Keeps the head and the tail of an output of any length. Pure.
//!
//! Promises that no more than the limit is held in memory while the output
//! is written, and twice that for a moment at its end.

/// The kept part of an output.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Captured {
    /// The bytes: all of them, or head and tail around an omission mark, which comes on
    /// top of the limit.
    pub(crate) bytes: Vec<u8>,
    /// How many bytes were left out; 0 if all of them are there.
    pub(crate) omitted: u64,
}

impl Captured {
    /// Keeps no more than `limit` bytes, the mark not counted: the first half of the limit
    /// as head, the rest as tail.
    pub(crate) fn truncate(&mut self, limit: usize) {
        // Where there is a mark, it lies in the middle.
        let marked = if self.omitted > 0 { omission(self.omitted).len() } else { 0 };
        let kept = self.bytes.len() - marked;
        if kept <= limit {
            return;
        }
        self.omitted += (kept - limit) as u64;
        let (head, tail) = (limit / 2, self.bytes.len() - (limit - limit / 2));
        self.bytes.splice(head..tail, omission(self.omitted).into_bytes());
    }
}

/// Returns the omission mark, which stands for bytes that were left out.
fn omission(omitted: u64) -> String {
    format!("\n[... {omitted} bytes omitted ...]\n")
}

/// Captures an output piece by piece.
#[derive(Debug)]
pub(crate) struct Capture {
    head: Vec<u8>,
    head_limit: usize,
    /// A ring once it is full: the oldest byte is at `oldest`.
    tail: Vec<u8>,
    tail_limit: usize,
    oldest: usize,
    total: u64,
}

impl Capture {
    /// Creates a capture of up to `limit` bytes: the first half of the limit as head, the
    /// rest as tail.
    pub(crate) fn new(limit: usize) -> Self {
        let head_limit = limit / 2;
        Self {
            head: Vec::new(),
            head_limit,
            tail: Vec::new(),
            tail_limit: limit - head_limit,
            oldest: 0,
            total: 0,
        }
    }

    /// Appends the next piece.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let (head, rest) = bytes.split_at(bytes.len().min(self.head_limit - self.head.len()));
        self.head.extend_from_slice(head);
        // Bytes that a whole tail follows are not part of the tail.
        let rest = &rest[rest.len().saturating_sub(self.tail_limit)..];
        let (fill, over) = rest.split_at(rest.len().min(self.tail_limit - self.tail.len()));
        self.tail.extend_from_slice(fill);
        self.overwrite(over);
    }

    /// Overwrites the oldest bytes of the tail with `bytes`, which are no more than it
    /// holds.
    fn overwrite(&mut self, bytes: &[u8]) {
        let (to_end, from_start) = bytes.split_at(bytes.len().min(self.tail.len() - self.oldest));
        self.tail[self.oldest..self.oldest + to_end.len()].copy_from_slice(to_end);
        self.tail[..from_start.len()].copy_from_slice(from_start);
        if !self.tail.is_empty() {
            self.oldest = (self.oldest + bytes.len()) % self.tail.len();
        }
    }

    /// Returns how many bytes were written.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Returns the kept bytes from a position of the output on: those of the head and those of
    /// the tail, each with the position of the first.
    pub(crate) fn kept(&self, from: u64) -> Vec<(u64, Vec<u8>)> {
        let mut tail = self.tail.clone();
        tail.rotate_left(self.oldest);
        let of_tail = self.total - tail.len() as u64;
        let kept = [(0, self.head.clone()), (of_tail, tail)];
        let after = kept.into_iter().map(|(at, bytes)| {
            let skipped = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX);
            (
                at + skipped.min(bytes.len()) as u64,
                bytes.get(skipped..).unwrap_or_default().to_vec(),
            )
        });
        after.filter(|(_, bytes)| !bytes.is_empty()).collect()
    }

    /// Returns the kept part.
    pub(crate) fn finish(mut self) -> Captured {
        let kept = self.head.len() + self.tail.len();
        let omitted = self.total - kept as u64;
        let mut bytes = self.head;
        if omitted > 0 {
            bytes.extend_from_slice(omission(omitted).as_bytes());
        }
        self.tail.rotate_left(self.oldest);
        bytes.append(&mut self.tail);
        Captured { bytes, omitted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capture(limit: usize, pieces: &[Vec<u8>]) -> Captured {
        let mut capture = Capture::new(limit);
        for piece in pieces {
            capture.push(piece);
            assert!(capture.head.len() + capture.tail.len() <= limit, "more held than allowed");
        }
        capture.finish()
    }

    #[test]
    fn what_fits_is_kept_whole_and_unmarked() {
        let kept = capture(8, &[b"1234".to_vec(), b"5678".to_vec()]);
        assert_eq!(kept, Captured { bytes: b"12345678".to_vec(), omitted: 0 });
    }

    #[test]
    fn one_byte_more_leaves_head_mark_and_tail() {
        let kept = capture(8, &[b"123456789".to_vec()]);
        assert_eq!(kept.omitted, 1);
        assert_eq!(kept.bytes, b"1234\n[... 1 bytes omitted ...]\n6789");
    }

    #[test]
    fn a_limit_of_zero_keeps_only_the_mark() {
        let kept = capture(0, &[b"123".to_vec()]);
        assert_eq!(kept.bytes, b"\n[... 3 bytes omitted ...]\n");
    }

    proptest! {
        #[test]
        fn head_and_tail_are_the_same_however_it_is_cut(
            limit in 0usize..40,
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..12),
        ) {
            let all = pieces.concat();
            let kept = capture(limit, &pieces);
            if all.len() <= limit {
                prop_assert_eq!(kept, Captured { bytes: all, omitted: 0 });
            } else {
                let omitted = all.len() - limit;
                let mut expected = all[..limit / 2].to_vec();
                expected.extend(format!("\n[... {omitted} bytes omitted ...]\n").as_bytes());
                expected.extend(&all[limit / 2 + omitted..]);
                prop_assert_eq!(kept, Captured { bytes: expected, omitted: omitted as u64 });
            }
        }

        #[test]
        fn cut_again_it_is_as_if_it_had_been_cut_so_at_once(
            limit in 0usize..40,
            less in 0usize..40,
            all in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut kept = capture(limit, std::slice::from_ref(&all));
            kept.truncate(less);
            prop_assert_eq!(kept, capture(less.min(limit), &[all]));
        }
    }
}
