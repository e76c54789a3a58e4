//! Truncates the outputs of a task until its result fits a message. Pure.
//!
//! A result is one message, and brokers limit the size of a message. A task that is too
//! large is refused before it is recorded, but the size of its outputs is known only
//! after it ran. So their head and tail are kept, and the result says how much is
//! missing. Where the broker takes less than was assumed, a result that is on disk is
//! truncated again before it is sent.

use super::capture::Captured;
use super::executor::Report;
use clutch_common::task::blob::encoded_len;
use clutch_common::task::reason::Reason;
use clutch_common::task::removed_files::RemovedFiles;
use clutch_common::task::result::TaskResult;
use clutch_common::wire::MAX_RESULT;

/// The most that all but the outputs, the value, the reason and the error take, in bytes.
const FIXED: usize = 1024;
/// The most that an omission mark and the encoding of its stream take, in bytes.
const MARK: usize = 128;

impl Report {
    /// Truncates the outputs until the encoded result is no larger than [`MAX_RESULT`].
    pub(crate) fn truncate(&mut self) {
        self.truncate_to(MAX_RESULT);
    }

    fn truncate_to(&mut self, limit: usize) {
        let value = self.value.as_ref().map_or(0, |value| value.text().len());
        // Every character of the reason may take six.
        let reason = self.reason.as_ref().map_or(0, |reason| 6 * reason.len().min(Reason::MAX));
        let files = self.removed_files.as_deref().map_or(0, encoded_files);
        let mut error = self.error.as_ref().map_or(0, |error| error.longest());
        if error > limit / 4 {
            self.error = self.error.take().map(|error| Box::new(error.cut()));
            error = self.error.as_ref().map_or(0, |error| error.longest());
        }
        let room = limit.saturating_sub(FIXED + value + reason + files + error);
        // No bytes take more than as base64: where that fits, nothing need be counted.
        let longest = |bytes: usize| bytes.div_ceil(3) * 4 + MARK;
        let (out, err) = (self.stdout.bytes.len(), self.stderr.bytes.len());
        if longest(out) + longest(err) <= room {
            return;
        }
        let (out, err) = (encoded_len(&self.stdout.bytes), encoded_len(&self.stderr.bytes));
        if out + err <= room {
            return;
        }
        // The shorter one stays whole if it has less than half.
        let half = room / 2;
        let share =
            |own: usize, other: usize| if own <= half { own } else { room - other.min(half) };
        let (out, err) = (share(out, err), share(err, out));
        for (stream, share) in [(&mut self.stdout, out), (&mut self.stderr, err)] {
            if encoded_len(&stream.bytes) > share {
                stream.truncate(share.saturating_sub(2 * MARK) / 4 * 3);
            }
        }
    }
}

/// Truncates a result so that it takes no more than `limit` bytes encoded, where that is
/// possible. Its outcome stays; its reason says what is missing, and why.
pub(crate) fn truncate_result(result: TaskResult, limit: usize) -> TaskResult {
    let value = result.value.as_ref().map_or(0, |value| value.text().len());
    let too_much = value > limit.saturating_sub(FIXED);
    let dropped =
        if too_much { format!("; its value of {value} bytes is left out") } else { String::new() };
    let before = result.reason.map(|reason| format!("{reason}; ")).unwrap_or_default();
    let reason = format!(
        "{before}the broker takes no result of more than {limit} bytes: what the task wrote is \
         cut{dropped}; pass large data by file, or have the broker's max_message_size raised"
    );
    let mut report = Report {
        stdout: Captured { bytes: result.stdout.0, omitted: result.stdout_omitted },
        stderr: Captured { bytes: result.stderr.0, omitted: result.stderr_omitted },
        value: result.value.filter(|_| !too_much),
        error: result.error,
        reason: Some(Reason::from(reason).into()),
        removed_files: result.removed_files.map(without_names),
        ..Report::blank(result.outcome)
    };
    report.truncate_to(limit);
    TaskResult {
        value: report.value,
        error: report.error,
        reason: report.reason.map(Into::into),
        stdout: report.stdout.bytes.into(),
        stdout_omitted: report.stdout.omitted,
        stderr: report.stderr.bytes.into(),
        stderr_omitted: report.stderr.omitted,
        removed_files: report.removed_files.map(|files| *files),
        ..result
    }
}

fn without_names(files: RemovedFiles) -> Box<RemovedFiles> {
    Box::new(RemovedFiles { names: Vec::new(), ..files })
}

/// How many bytes the names of files take encoded, at most.
fn encoded_files(files: &RemovedFiles) -> usize {
    let names = files.names.iter().map(|name| 6 * name.len() + MARK);
    MARK + names.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::task::blob::Blob;
    use proptest::prelude::*;

    fn captured(bytes: Vec<u8>) -> Captured {
        Captured { bytes, omitted: 0 }
    }

    fn encoded(report: &Report) -> usize {
        let len = |captured: &Captured| {
            serde_json::to_string(&Blob(captured.bytes.clone())).unwrap().len()
        };
        len(&report.stdout) + len(&report.stderr)
    }

    #[test]
    fn fifteen_mebibytes_of_text_are_whole() {
        let text = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
        let bytes: Vec<u8> = text.iter().copied().cycle().take(15 << 20).collect();
        let mut report =
            Report { stdout: captured(bytes.clone()), ..Report::not_run("x".to_owned()) };
        report.truncate();
        assert_eq!(report.stdout, captured(bytes));
    }

    #[test]
    fn fifteen_mebibytes_of_anything_else_lose_their_middle() {
        let mut report =
            Report { stdout: captured(vec![0xff; 15 << 20]), ..Report::not_run("x".to_owned()) };
        report.truncate();
        let kept = 15 * (1 << 20) - report.stdout.omitted;
        assert!((12 << 20) - 4096 < kept && kept < 12 << 20, "{kept}");
        assert!(encoded(&report) <= MAX_RESULT);
    }

    proptest! {
        #[test]
        fn whatever_was_written_fits_and_the_shorter_stream_is_spared(
            out in prop::collection::vec(prop_oneof![Just(b'x'), Just(1), any::<u8>()], 0..6000),
            err in prop::collection::vec(prop_oneof![Just(b'x'), Just(1), any::<u8>()], 0..6000),
            limit in 3000usize..8000,
        ) {
            let mut report = Report {
                stdout: captured(out.clone()),
                stderr: captured(err.clone()),
                ..Report::not_run(String::new())
            };
            let before = encoded(&report);
            report.truncate_to(limit);
            let room = limit - FIXED;
            prop_assert!(encoded(&report) <= room);
            if before <= room {
                prop_assert_eq!((report.stdout.omitted, report.stderr.omitted), (0, 0));
            }
            let shorter =
                if out.len() < err.len() { (&report.stdout, out) } else { (&report.stderr, err) };
            if serde_json::to_string(&Blob(shorter.1.clone())).unwrap().len() <= room / 2 {
                prop_assert_eq!(&shorter.0.bytes, &shorter.1);
            }
        }
    }
}
