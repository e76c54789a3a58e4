//! The publisher of messages between tasks: requests of tasks here, and verdicts about messages
//! that came here.
//!
//! It has an outlet of its own on the connection that results go by, opened with the first
//! message. Promises: while there is nothing to publish it waits for that alone; at most
//! [`OPEN_MAX`] messages and about [`OPEN_BYTES`] bytes are unconfirmed; a verdict is published
//! until the broker has confirmed it, over sessions; a request is not, as its sender has further
//! copies published; and none of its faults ends a session.

use super::optional::{settled, until};
use crate::messages::Messages;
use clutch_common::link::{Connection, Destination, Fault, Message, Outlet, Settlement, Ticket};
use clutch_common::system::clock::now_ms;
use clutch_common::wire::{
    PostToService, REQUEST_TYPE, VERDICT_TYPE, encode_request, encode_verdict,
};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Most messages that are sent and not confirmed.
const OPEN_MAX: usize = 256;
/// Most bytes that are sent and not confirmed, give or take one message.
const OPEN_BYTES: usize = 16 * 1024 * 1024;
/// The pause after a fault of the outlet.
const PAUSE: Duration = Duration::from_secs(1);

/// Publishes on a connection for as long as it is polled.
pub(super) async fn publish(
    connection: &dyn Connection,
    destination: &Destination,
    messages: &Messages,
) {
    let session = PostSession {
        connection,
        destination,
        messages,
        outlet: None,
        open: HashMap::new(),
        open_bytes: 0,
        paused_until: None,
    };
    session.work().await;
}

/// The publisher in one session.
struct PostSession<'a> {
    connection: &'a dyn Connection,
    destination: &'a Destination,
    messages: &'a Messages,
    /// Opened when there is something to publish.
    outlet: Option<Box<dyn Outlet>>,
    /// The messages that are not confirmed, with their sizes.
    open: HashMap<Ticket, (PostToService, usize)>,
    open_bytes: usize,
    paused_until: Option<Instant>,
}

/// A verdict that is not confirmed is not known to have arrived.
impl Drop for PostSession<'_> {
    fn drop(&mut self) {
        self.put_back_all();
    }
}

impl PostSession<'_> {
    async fn work(mut self) {
        loop {
            self.paused_until = self.paused_until.filter(|until| Instant::now() < *until);
            if self.paused_until.is_none() {
                self.send_all().await;
            }
            let has_room = self.has_room() && self.paused_until.is_none();
            let outlet = self.outlet.as_deref_mut();
            tokio::select! {
                biased;
                settled = settled(outlet), if !self.open.is_empty() => self.settle(settled),
                () = until(self.paused_until), if self.paused_until.is_some() => (),
                () = self.messages.post_ready(), if has_room => (),
            }
        }
    }

    fn has_room(&self) -> bool {
        self.open.len() < OPEN_MAX && self.open_bytes < OPEN_BYTES
    }

    async fn send_all(&mut self) {
        while self.has_room()
            && let Some(post) = self.messages.next_post()
        {
            if let Err(fault) = self.send(post).await {
                return self.failed(&fault);
            }
        }
    }

    async fn send(&mut self, post: PostToService) -> Result<(), Fault> {
        let (kind, body) = match &post {
            PostToService::Request(request) => (REQUEST_TYPE, encode_request(request)),
            PostToService::Verdict(verdict) => (VERDICT_TYPE, encode_verdict(verdict)),
        };
        let outlet = match &mut self.outlet {
            Some(outlet) => outlet,
            None => match self.connection.outlet().await {
                Ok(outlet) => self.outlet.insert(outlet),
                Err(fault) => {
                    self.put_back(post);
                    return Err(fault);
                }
            },
        };
        let size = body.len();
        if size > outlet.limit() {
            self.too_large(&post);
            return Ok(());
        }
        let message = Message {
            message_id: Some(Uuid::new_v4().to_string()),
            kind: Some(kind.to_owned()),
            timestamp_ms: Some(now_ms()),
            body,
            ..Message::default()
        };
        match outlet.publish(self.destination, message).await {
            Ok(ticket) => {
                self.open.insert(ticket, (post, size));
                self.open_bytes += size;
                Ok(())
            }
            Err(fault) => {
                self.put_back(post);
                Err(fault)
            }
        }
    }

    fn settle(&mut self, settled: Result<Vec<(Ticket, Settlement)>, Fault>) {
        let settled = match settled {
            Ok(settled) => settled,
            Err(fault) => return self.failed(&fault),
        };
        for (ticket, settlement) in settled {
            let Some((post, size)) = self.open.remove(&ticket) else { continue };
            self.open_bytes -= size;
            match settlement {
                Settlement::Confirmed => {}
                Settlement::TooLarge(_) => self.too_large(&post),
                Settlement::Doubt => self.put_back(post),
                Settlement::Returned(_) | Settlement::Refused => {
                    tracing::debug!(?settlement, "the broker does not take a message of a task");
                    self.put_back(post);
                    self.paused_until = Some(Instant::now() + PAUSE);
                }
            }
        }
    }

    /// Pauses after a fault of the outlet. If the connection is lost, the session ends by it.
    fn failed(&mut self, fault: &Fault) {
        tracing::debug!(%fault, "messages of tasks are published a little later");
        self.put_back_all();
        self.outlet = None;
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    fn put_back_all(&mut self) {
        self.open_bytes = 0;
        for (_, (post, _)) in std::mem::take(&mut self.open) {
            self.put_back(post);
        }
    }

    /// Has a verdict published again. A request has further copies.
    fn put_back(&self, post: PostToService) {
        match post {
            PostToService::Verdict(verdict) => self.messages.put_back(verdict),
            PostToService::Request(_) => (),
        }
    }

    fn too_large(&self, post: &PostToService) {
        if let PostToService::Request(request) = post {
            self.messages.too_large((request.source.task_id, request.request));
        }
    }
}
