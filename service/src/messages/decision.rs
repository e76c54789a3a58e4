//! The decision over a message between tasks: what becomes of a request to send, and what its
//! sender is told for a verdict. Pure.
//!
//! A *first copy* is the first of a message that left its sender's endpoint: no process can have
//! taken the message, and the records answer for a target that cannot take it any more. A
//! further copy goes to the endpoint that its target was given to, as an earlier one may have
//! been taken there; the records speak only where that endpoint does not have the target.

use crate::store::{StoredState, TaskFacts};
use clutch_common::id::EndpointId;
use clutch_common::task::kinship::MessageRule;
use clutch_common::task::reason::Reason;
use clutch_common::wire::{Judgement, Reply, TargetVerdict, TaskMessage, TaskRequest};

/// The way of a message that is to be sent.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Sending {
    /// Its sender is told this.
    Answer(Reply),
    /// The message goes to its target's endpoint.
    Deliver {
        /// The endpoint.
        to: EndpointId,
        /// The answer to its sender where that endpoint has no queue any more.
        if_gone: Reply,
    },
}

/// The consequence of a verdict.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum VerdictEffect {
    /// The sender is told this.
    Answer(Reply),
    /// The target has ended at its endpoint, and its result is not recorded yet: that says
    /// whether it runs again.
    AwaitResult,
    /// Nothing: the endpoint was not given the target.
    Nothing,
}

/// The reason for which a task may not ask for anything; nothing if it may.
pub(super) fn refused(request: &TaskRequest, source: Option<&TaskFacts>) -> Option<Reply> {
    let words = match source {
        None => "this service has no record of the task that asks",
        Some(source) if source.endpoint != request.endpoint_id => {
            "the task that asks was given to another endpoint"
        }
        Some(_) => return None,
    };
    Some(forbidden(words))
}

/// The target of a message, if the rules let the task that asks reach it.
fn reachable<'t>(
    request: &TaskRequest,
    rule: MessageRule,
    source: Option<&TaskFacts>,
    target: Option<&'t TaskFacts>,
) -> Result<&'t TaskFacts, Reply> {
    if rule == MessageRule::None {
        return Err(forbidden(
            "this service takes no messages between tasks (`serve --messages none`)",
        ));
    }
    if let Some(refused) = refused(request, source) {
        return Err(refused);
    }
    let target = target.ok_or(Reply::Unknown)?;
    if !source.is_some_and(|source| rule.permits(&source.kin, &target.kin)) {
        return Err(forbidden(
            "the target is not of the same submission, nor the parent or a child of the task that \
             sends (`serve --messages any` lets it)",
        ));
    }
    Ok(target)
}

/// Decides over a request to keep a message: its target, or what its sender is told. A copy
/// of a message that is kept already comes here as well while the target has no outcome.
pub(super) fn keep<'t>(
    request: &TaskRequest,
    message: &TaskMessage,
    rule: MessageRule,
    source: Option<&TaskFacts>,
    target: Option<&'t TaskFacts>,
) -> Result<&'t TaskFacts, Reply> {
    let target = reachable(request, rule, source, target)?;
    let known = by_records(Some(target), message.attempt);
    // An earlier copy may be kept.
    if known == Reply::NotStarted || request.copy > 1 { Ok(target) } else { Err(known) }
}

/// Decides over a request to send.
pub(super) fn send(
    request: &TaskRequest,
    message: &TaskMessage,
    rule: MessageRule,
    source: Option<&TaskFacts>,
    target: Option<&TaskFacts>,
) -> Sending {
    let target = match reachable(request, rule, source, target) {
        Ok(target) => target,
        Err(reply) => return Sending::Answer(reply),
    };
    let by_records = by_records(Some(target), message.attempt);
    // Its endpoint never had it, so nothing can have been taken.
    let recorded = matches!(
        target.state,
        StoredState::Scheduled | StoredState::InTopic | StoredState::Waiting
    );
    let unsent = target.attempt == 1 && recorded;
    let pauses = recorded || target.state == StoredState::Paused;
    if unsent || request.copy == 1 && (pauses || by_records != Reply::NotStarted) {
        return Sending::Answer(by_records);
    }
    Sending::Deliver { to: target.endpoint, if_gone: by_records }
}

/// Decides what the sender of a message is told for a verdict.
pub(super) fn verdict(verdict: &TargetVerdict, target: Option<&TaskFacts>) -> VerdictEffect {
    if target.is_some_and(|target| target.endpoint != verdict.endpoint_id) {
        return VerdictEffect::Nothing;
    }
    let by_records = || by_records(target, verdict.attempt);
    VerdictEffect::Answer(match verdict.verdict {
        Judgement::Held => Reply::Held,
        Judgement::Taken(attempt) => Reply::Delivered(attempt),
        Judgement::NotListening => Reply::NotListening,
        Judgement::Superseded(attempt) => Reply::Superseded(attempt),
        Judgement::NoRoom => Reply::NoRoom,
        Judgement::NotHere => by_records(),
        Judgement::Ended(outcome) => match (target, by_records()) {
            (None, _) => Reply::Finished(outcome),
            (Some(_), Reply::NotStarted) => return VerdictEffect::AwaitResult,
            (Some(_), known) => known,
        },
    })
}

/// Whether a verdict needs no look into the records, where its endpoint was sent the message.
pub(super) const fn is_by_endpoint_alone(verdict: Judgement) -> bool {
    match verdict {
        Judgement::Held
        | Judgement::Taken(_)
        | Judgement::NotListening
        | Judgement::Superseded(_)
        | Judgement::NoRoom => true,
        Judgement::NotHere | Judgement::Ended(_) => false,
    }
}

/// The answer of the records about a target that does not run at its endpoint.
pub(super) fn by_records(target: Option<&TaskFacts>, pinned: Option<u32>) -> Reply {
    let Some(target) = target else { return Reply::Unknown };
    if pinned.is_some_and(|pinned| pinned < target.attempt) {
        return Reply::Superseded(target.attempt);
    }
    match target.state {
        StoredState::Done(outcome) => Reply::Finished(outcome),
        StoredState::Scheduled
        | StoredState::InTopic
        | StoredState::Waiting
        | StoredState::Paused
        | StoredState::Submitting
        | StoredState::Submitted => Reply::NotStarted,
    }
}

pub(super) fn forbidden(words: &str) -> Reply {
    Reply::Forbidden(Reason::from(words))
}

#[cfg(test)]
mod tests;
