//! A client of `GET /v1/events`, over the service's socket.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer that is being read.
pub struct Events(BufReader<UnixStream>);

/// An event.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Its id: the place behind it.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Its data.
    pub data: Value,
}

impl Events {
    /// Asks for the events of a query string, after the event with this id.
    pub fn open(socket: &Path, query: &str, after: Option<&str>) -> Result<Self> {
        let mut stream = UnixStream::connect(socket).context("asking the service")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let after = after.map(|id| format!("\r\nlast-event-id: {id}")).unwrap_or_default();
        // An answer of this version is not cut into chunks.
        write!(stream, "GET /v1/events?{query} HTTP/1.0\r\nhost: clutch{after}\r\n\r\n")?;
        let mut events = Self(BufReader::new(stream));
        let status = events.line()?;
        ensure!(status.contains(" 200 "), "{status}");
        while !events.line()?.is_empty() {}
        Ok(events)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).context("reading an event")?;
        ensure!(read > 0, "the answer ended without its last event");
        Ok(line.trim_end().to_owned())
    }

    /// The next event.
    ///
    /// # Errors
    /// When none comes for a minute, or the connection is lost.
    pub fn next_event(&mut self) -> Result<Event> {
        let mut event = Event { id: String::new(), kind: String::new(), data: Value::Null };
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("event", kind)) => kind.clone_into(&mut event.kind),
                Some(("data", data)) => event.data = serde_json::from_str(data)?,
                _ if line.is_empty() && !event.kind.is_empty() => return Ok(event),
                _ => (),
            }
        }
    }
}
