//! `dead-letters`: lists messages that could not be read or delivered, puts them back into their
//! queues or drops them. Uses the broker alone, and needs no running service.
//!
//! One letter is in memory at a time. The broker holds the letters that were looked at until the
//! command ends, so only one such command can run at a time.

mod letter;
mod settle;
mod show;

use crate::cli::output;
use crate::cli::{DeadLetters, Letters};
use crate::config::Settings;
use crate::failure::{self, Failure, GENERAL, REFUSED};
use clutch_common::link::{Connection, Fault, HeldMessage, Outlet, QueueBrowser, Transport};
use clutch_common::topology::{DEAD_LETTER_LEASE, DEAD_LETTER_QUEUE};
use letter::Letter;
use settle::Done;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How long another command's hold on the letters may last that is just ending.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// Does what is asked about dead letters, and returns the exit code: 1 if some
/// letter that was meant is still there, or is not known.
///
/// # Errors
/// When the broker cannot be used, or another such command is at work.
pub(crate) async fn run(settings: &Settings, what: &DeadLetters) -> anyhow::Result<u8> {
    let transport = settings.transport()?;
    let address = transport.address();
    let failed = |fault: Fault| unusable(&fault, &address);
    let looking = connect(transport.as_ref()).await.map_err(failed)?;
    let done = match open(looking.as_ref()).await {
        Ok(browser) => {
            let mut desk = LetterCommand { browser, address: address.clone(), json: settings.json };
            desk.work(transport.as_ref(), what).await
        }
        Err(fault) => Err(unusable(&fault, &address).into()),
    };
    looking.close().await;
    done
}

async fn connect(transport: &dyn Transport) -> Result<Box<dyn Connection>, Fault> {
    transport.connect("clutch/service/dead-letters").await
}

/// Opens the dead-letter queue, after a moment for a command that is ending.
async fn open(connection: &dyn Connection) -> Result<Box<dyn QueueBrowser>, Fault> {
    let until = Instant::now() + PREDECESSOR_ENDS;
    loop {
        match connection.browse(DEAD_LETTER_QUEUE, DEAD_LETTER_LEASE).await {
            Err(Fault::Locked(_)) if Instant::now() < until => tokio::time::sleep(PAUSE).await,
            opened => return opened,
        }
    }
}

/// The failure for letters that cannot be got at.
fn unusable(fault: &Fault, address: &str) -> Failure {
    let (code, advice) = match fault {
        Fault::Missing(_) => {
            (failure::code(fault), "nothing was provisioned there: `clutch-service provision`")
        }
        Fault::Locked(_) => (REFUSED, "another such command is running: wait for its end"),
        Fault::Forbidden(_)
        | Fault::Credentials(_)
        | Fault::Refused(_)
        | Fault::Unreachable(_)
        | Fault::Tls(_)
        | Fault::Closed(_)
        | Fault::Blocked { .. }
        | Fault::ConfirmTimeout(_)
        | Fault::Limited(_)
        | Fault::Rejected(_)
        | Fault::Mismatch(_)
        | Fault::Protocol(_) => (failure::code(fault), failure::advice(fault)),
    };
    let separator = if advice.is_empty() { "" } else { "; " };
    Failure::new(code, format!("the dead letters at {address}: {fault}{separator}{advice}"))
}

/// A command on the open dead-letter queue.
struct LetterCommand {
    browser: Box<dyn QueueBrowser>,
    address: String,
    json: bool,
}

/// The action on letters.
#[derive(Clone, Copy)]
enum Verb {
    Requeue,
    Drop { yes: bool },
}

impl LetterCommand {
    async fn work(&mut self, transport: &dyn Transport, what: &DeadLetters) -> anyhow::Result<u8> {
        match what {
            DeadLetters::List(args) => self.list(args.limit).await,
            DeadLetters::Show(args) => {
                let found = self.find(&args.handle).await;
                let (held, letter) = found
                    .map_err(|fault| unusable(&fault, &self.address))?
                    .ok_or_else(|| unknown(&[args.handle.as_str()]))?;
                show::whole(held, &letter, args.raw, self.json)?;
                Ok(0)
            }
            DeadLetters::Requeue(letters) => self.settle(transport, letters, Verb::Requeue).await,
            DeadLetters::Drop(args) => {
                self.settle(transport, &args.letters, Verb::Drop { yes: args.yes }).await
            }
        }
    }

    async fn list(&mut self, limit: u64) -> anyhow::Result<u8> {
        if !self.json {
            show::heading()?;
        }
        for _ in 0..limit {
            let next = self.browser.next().await;
            let Some(held) = next.map_err(|fault| unusable(&fault, &self.address))? else { break };
            show::row(&Letter::read(&held.message), self.json)?;
        }
        let more = self.browser.waiting().await.map_err(|fault| unusable(&fault, &self.address))?;
        if more > 0 {
            output::note(&format!(
                "{more} more: --limit {} shows them too",
                limit.saturating_add(more)
            ));
        }
        Ok(0)
    }

    /// Looks through all letters for one.
    async fn find(&mut self, handle: &str) -> Result<Option<(HeldMessage, Letter)>, Fault> {
        while let Some(held) = self.browser.next().await? {
            let letter = Letter::read(&held.message);
            if letter.handle == handle {
                return Ok(Some((held, letter)));
            }
        }
        Ok(None)
    }

    /// Does something with letters. What comes meanwhile is left alone: it may be
    /// one that has just been put back.
    async fn settle(
        &mut self,
        transport: &dyn Transport,
        letters: &Letters,
        verb: Verb,
    ) -> anyhow::Result<u8> {
        let failed = |fault: &Fault| unusable(fault, &self.address);
        let connection = connect(transport).await.map_err(|fault| failed(&fault))?;
        let settled = match connection.outlet().await {
            Ok(mut outlet) => self.settle_each(outlet.as_mut(), letters, verb).await,
            Err(fault) => Err(failed(&fault).into()),
        };
        connection.close().await;
        settled
    }

    async fn settle_each(
        &mut self,
        outlet: &mut dyn Outlet,
        letters: &Letters,
        verb: Verb,
    ) -> anyhow::Result<u8> {
        let address = self.address.clone();
        let failed = |fault: Fault| unusable(&fault, &address);
        let mut wanted: BTreeSet<&str> = letters.handles.iter().map(String::as_str).collect();
        let mut kept = false;
        for _ in 0..self.browser.waiting().await.map_err(failed)? {
            if wanted.is_empty() && !letters.all {
                break;
            }
            let Some(held) = self.browser.next().await.map_err(failed)? else { break };
            let letter = Letter::read(&held.message);
            if !letters.all && !wanted.remove(letter.handle.as_str()) {
                continue;
            }
            let browser = self.browser.as_mut();
            let done = match verb {
                Verb::Requeue => settle::requeue(browser, outlet, held, &letter).await,
                Verb::Drop { yes } => settle::discard(browser, outlet, &held, &letter, yes).await,
            };
            let done = done.map_err(|fault| interrupted(&fault, &letter, &address))?;
            kept |= matches!(done, Done::Kept { .. });
            show::done(&letter, &done, self.json)?;
        }
        if wanted.is_empty() {
            return Ok(if kept { GENERAL } else { 0 });
        }
        Err(unknown(&wanted.into_iter().collect::<Vec<_>>()).into())
    }
}

/// The failure for letters that are not there.
fn unknown(handles: &[&str]) -> Failure {
    let words = format!(
        "there is no dead letter {}: `clutch-service dead-letters list` lists them",
        handles.join(", ")
    );
    Failure::new(GENERAL, words)
}

/// The failure for a link that was lost in the midst of the work.
fn interrupted(fault: &Fault, letter: &Letter, address: &str) -> Failure {
    let words = format!(
        "the dead letters at {address}: {fault}; the letters printed before are done, {} may be: \
         run this again, a task or result that comes twice does no harm",
        letter.handle
    );
    Failure::new(failure::code(fault), words)
}
