//! Events of a running task, from the executor to a sink.
//!
//! Touches nothing. Promises that a task without a sink costs no allocation and no call.

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
        stream: OutputStream,
        /// The bytes, which follow those of the event before on this stream.
        bytes: &'a [u8],
    },
}

/// An output stream of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes the events of one task, in order. It is called on the thread that runs the
/// task, and must not block.
pub(crate) trait EventSink: Send + Sync {
    /// Takes one event.
    fn take(&self, event: Event<'_>);
}

/// The way to a task's sink, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Events(Option<Arc<dyn EventSink>>);

impl Events {
    /// Sends events to `sink`.
    pub(crate) fn to(sink: Arc<dyn EventSink>) -> Self {
        Self(Some(sink))
    }

    /// Drops events.
    pub(crate) fn ignored() -> Self {
        Self(None)
    }

    /// Hands an event to the sink.
    pub(crate) fn emit(&self, event: Event<'_>) {
        if let Some(sink) = &self.0 {
            sink.take(event);
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Events(to a sink)" } else { "Events(ignored)" })
    }
}

/// A sink for tests, which keeps the starts of a task and its output by stream.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Noted(std::sync::Mutex<NotedEvents>);

#[cfg(test)]
type NotedEvents = (Vec<u64>, std::collections::BTreeMap<OutputStream, Vec<u8>>);

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
