//! Events of a running task, from the executor to a sink, and to readers while it runs
//! ([`Live`]).
//!
//! Touches nothing. Promises that a task without a sink costs no allocation and no call.

use super::live::Live;
use super::live::progress::ProgressLine;
use clutch_common::id::Attempt;
use clutch_common::system::clock::now_ms;
use clutch_common::wire::StreamName;
use std::path::PathBuf;
use std::sync::Arc;

/// Something that happened to a running task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event<'a> {
    /// Its process was started, or its call was sent to a worker; again, if that worker
    /// ended before it read the call and another one got it.
    Started {
        /// The time, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// Its process wrote output.
    Output {
        /// The stream.
        stream: StreamName,
        /// The bytes, which follow those of the event before on this stream.
        bytes: &'a [u8],
    },
}

/// Takes the events of one task, in order. It is called on the thread that runs the
/// task, and must not block.
pub(crate) trait EventSink: Send + Sync {
    /// Takes one event.
    fn take(&self, event: Event<'_>);
}

/// The way to a task's sink, if there is one, and to readers while it runs.
#[derive(Clone, Default)]
pub(crate) struct Events {
    sink: Option<Arc<dyn EventSink>>,
    live: Option<(Attempt, Arc<Live>)>,
}

impl Events {
    /// Sends events to `sink`.
    pub(crate) fn to(sink: Arc<dyn EventSink>) -> Self {
        Self { sink: Some(sink), live: None }
    }

    /// Drops events.
    pub(crate) fn ignored() -> Self {
        Self::default()
    }

    /// Sends what `attempt` tells to `live` as well.
    pub(crate) fn live(self, attempt: Attempt, live: Arc<Live>) -> Self {
        Self { live: Some((attempt, live)), ..self }
    }

    /// Returns the same without the sink.
    pub(crate) fn without_sink(&self) -> Self {
        Self { sink: None, live: self.live.clone() }
    }

    /// Hands an event to the sink.
    pub(crate) fn emit(&self, event: Event<'_>) {
        if let Some(sink) = &self.sink {
            sink.take(event);
        }
    }

    /// Tells the progress of a call.
    pub(crate) fn progress(&self, told: ProgressLine) {
        if let Some((attempt, live)) = &self.live {
            live.tell_progress(*attempt, told.at(now_ms()));
        }
    }

    /// Returns the file that the task may tell its progress in.
    pub(crate) fn progress_file(&self) -> Option<PathBuf> {
        let (attempt, live) = self.live.as_ref()?;
        live.progress_file(*attempt)
    }

    /// Waits until more is to be followed than at `seen`, and returns the new state of that;
    /// for ever where it cannot be.
    pub(crate) async fn asked(&self, seen: u64) -> u64 {
        match &self.live {
            Some((_, live)) => live.asked(seen).await,
            None => std::future::pending().await,
        }
    }

    /// Whether the output can be followed.
    pub(crate) fn can_be_followed(&self) -> bool {
        self.live.is_some()
    }

    /// Hands over what is kept of a stream, from a position on, if that was asked for. Returns
    /// whether the output is followed.
    pub(crate) fn attach(
        &self,
        stream: StreamName,
        kept: impl FnOnce(u64) -> Vec<(u64, Vec<u8>)>,
    ) -> bool {
        self.live.as_ref().is_some_and(|(attempt, live)| live.attach(*attempt, stream, kept))
    }

    /// Hands over output that comes. Returns whether it is followed.
    pub(crate) fn follow(&self, stream: StreamName, from: u64, bytes: &[u8]) -> bool {
        self.live.as_ref().is_some_and(|(attempt, live)| live.take(*attempt, stream, from, bytes))
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.sink.is_some() { "Events(to a sink)" } else { "Events(no sink)" })
    }
}

/// A sink for tests, which keeps the starts of a task and its output by stream.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Noted(std::sync::Mutex<NotedEvents>);

#[cfg(test)]
type NotedEvents = (Vec<u64>, std::collections::BTreeMap<StreamName, Vec<u8>>);

#[cfg(test)]
impl Noted {
    /// Returns the way to this sink.
    pub(crate) fn events(self: &Arc<Self>) -> Events {
        Events::to(Arc::clone(self) as _)
    }

    /// Returns the events up to now.
    pub(crate) fn taken(&self) -> NotedEvents {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[cfg(test)]
impl EventSink for Noted {
    fn take(&self, event: Event<'_>) {
        let mut noted = self.0.lock().unwrap();
        match event {
            Event::Started { at_ms } => {
                assert!(noted.1.is_empty(), "output before the start");
                noted.0.push(at_ms);
            }
            Event::Output { stream, bytes } => {
                noted.1.entry(stream).or_default().extend_from_slice(bytes);
            }
        }
    }
}
