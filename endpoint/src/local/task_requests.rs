//! The requests of tasks as they are written, and the words of their errors. Pure.

use super::types::Problem;
use crate::messages::mailbox::Wanted;
use crate::messages::outgoing::SendEnd;
use crate::messages::requests::{HoldFor, RequestError, Sending};
use clutch_common::id::TaskId;
use clutch_common::task::result::Outcome;
use clutch_common::wire::{DEFAULT_WAIT, MAX_ADDRESSEE, is_addressee};
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a receiver may have a message, where it does not say.
const HOLD: Duration = Duration::from_secs(30);
/// The most addressees of one receiver.
const ADDRESSEES_MAX: usize = 64;

/// The parameters of a request, in order.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what is behind the question mark of a target.
    pub(super) fn read(text: Option<&str>) -> Result<Self, Problem> {
        let parts = text.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let read = parts.map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        read.collect::<Result<_, Problem>>().map(Self)
    }

    /// Takes a parameter that may come once.
    fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let mut values = self.take_all(name).into_iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                let bad = |why| Problem::bad_request(format!("{name}={value}: {why}"));
                read(&value).map(Some).map_err(bad)
            }
            (Some(_), Some(_)) => Err(Problem::bad_request(format!("{name} comes twice"))),
        }
    }

    fn take_all(&mut self, name: &str) -> Vec<String> {
        self.0.extract_if(.., |(found, _)| found == name).map(|(_, value)| value).collect()
    }

    /// Refuses what is left.
    fn end(self, known: &str) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad_request(format!(
                "there is no parameter {name} here; there are {known}"
            ))),
        }
    }
}

fn decoded(text: &str) -> Result<String, Problem> {
    let text = text.replace('+', " ");
    match percent_decode_str(&text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(error) => Err(Problem::bad_request(format!("a parameter is no UTF-8: {error}"))),
    }
}

fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; it is such as 90s or 5m"))
}

fn task(text: &str) -> Result<TaskId, String> {
    text.parse().map_err(|_| "it is no task's id, which is a UUID".to_owned())
}

fn uuid(text: &str) -> Result<Uuid, String> {
    Uuid::parse_str(text).map_err(|_| "it is no UUID".to_owned())
}

fn number(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it is no number from 1 on".to_owned())
}

fn yes(text: &str) -> Result<bool, String> {
    match text {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("it is true or false".to_owned()),
    }
}

fn addressee(name: &str) -> Result<String, String> {
    is_addressee(name).then(|| name.to_owned()).ok_or_else(|| {
        format!("an addressee is 1 to {MAX_ADDRESSEE} bytes without control characters")
    })
}

fn hold(text: &str) -> Result<HoldFor, String> {
    match text {
        "connection" => Ok(HoldFor::Connection),
        _ => span(text).map(HoldFor::Span),
    }
}

/// Reads the parameters of a send; the body comes later.
pub(super) fn sending(mut query: Query) -> Result<Sending, Problem> {
    let missing = |name| Problem::bad_request(format!("the parameter {name} is missing"));
    let sending = Sending {
        to: query.take("to", task)?.ok_or_else(|| missing("to"))?,
        attempt: query.take("attempt", number)?,
        addressee: query.take("addressee", addressee)?.ok_or_else(|| missing("addressee"))?,
        body: Arc::from([]),
        id: query.take("id", uuid)?,
        wait: query.take("wait", span)?.unwrap_or(DEFAULT_WAIT),
        mailbox: query.take("mailbox", yes)?.unwrap_or(false),
    };
    query.end("to, addressee, attempt, id, mailbox and wait")?;
    Ok(sending)
}

/// The parameters of a receiver.
#[derive(Debug, PartialEq)]
pub(super) struct Receiving {
    /// The messages that it takes.
    pub(super) wanted: Wanted,
    /// How long it waits.
    pub(super) timeout: Option<Duration>,
    /// How long it may have a message.
    pub(super) hold: HoldFor,
}

/// Reads the parameters of a receiver.
pub(super) fn receiving(mut query: Query) -> Result<Receiving, Problem> {
    let names = query.take_all("addressee");
    if names.is_empty() || names.len() > ADDRESSEES_MAX {
        let words = format!("name an addressee, or up to {ADDRESSEES_MAX}: addressee=NAME");
        return Err(Problem::bad_request(words));
    }
    let named = |name: &String| {
        addressee(name).map_err(|why| Problem::bad_request(format!("addressee={name}: {why}")))
    };
    let addressees = names.iter().map(named).collect::<Result<_, _>>()?;
    let receiving = Receiving {
        wanted: Wanted { addressees, from: query.take("from", task)? },
        timeout: query.take("timeout", span)?,
        hold: query.take("hold", hold)?.unwrap_or(HoldFor::Span(HOLD)),
    };
    query.end("addressee, from, hold and timeout")?;
    Ok(receiving)
}

/// Reads the one parameter of a request that waits.
pub(super) fn waiting(mut query: Query, name: &str) -> Result<Option<Duration>, Problem> {
    let wait = query.take(name, span)?;
    query.end(name)?;
    Ok(wait)
}

/// Reads the key of a submission, and how long to wait for its answer.
pub(super) fn submitting(mut query: Query) -> Result<(Option<Uuid>, Option<Duration>), Problem> {
    let found = (query.take("id", uuid)?, query.take("wait", span)?);
    query.end("id and wait")?;
    Ok(found)
}

impl Problem {
    /// A problem of a kind.
    fn new(kind: &str, status: u16, detail: String) -> Self {
        Self { kind: kind.to_owned(), status, detail, ..Self::default() }
    }

    /// The request cannot be understood.
    pub(super) fn bad_request(detail: String) -> Self {
        Self::new("bad_request", 400, detail)
    }

    /// The path is of nothing here.
    pub(super) fn not_found(detail: String) -> Self {
        Self::new("not_found", 404, detail)
    }

    /// The daemon failed.
    pub(super) fn internal(detail: String) -> Self {
        Self::new("internal", 500, detail)
    }

    /// The delivery is of no message that its task has.
    pub(super) fn not_held(delivery: u64) -> Self {
        let words = format!(
            "the task does not hold the delivery {delivery}: it was acknowledged or given back, or \
             held for too long; the message may be given again"
        );
        Self::new("not_held", 409, words)
    }

    /// The body is too large.
    pub(super) fn too_large(most: usize) -> Self {
        let words =
            format!("the body may have {most} bytes: nothing was sent. Pass large data by file");
        Self::new("too_large", 413, words)
    }

    /// The token opens nothing.
    pub(super) fn bad_token(detail: String) -> Self {
        Self::new("bad_token", 401, detail)
    }

    /// The answer to a request that was not done as it was meant; `Err` has an answer that was.
    pub(super) fn of(end: SendEnd) -> Result<Self, SendEnd> {
        Ok(match end {
            SendEnd::Unknown => Self::new("unknown", 404, "there is no such task".to_owned()),
            SendEnd::Finished { outcome, certain } => {
                let cancelled = outcome == Outcome::Cancelled;
                let kind = if cancelled { "cancelled" } else { "finished" };
                let words = format!("the task has ended as {outcome}{}", taken(certain));
                let problem = Self { outcome: Some(outcome), ..Self::new(kind, 410, words) };
                Self { may_have_been_taken: !certain, ..problem }
            }
            SendEnd::Superseded { attempt, certain } => {
                let words = format!("attempt {attempt} of the task is there{}", taken(certain));
                let problem =
                    Self { attempt: Some(attempt), ..Self::new("superseded", 409, words) };
                Self { may_have_been_taken: !certain, ..problem }
            }
            SendEnd::NotListening => {
                let words = "no process of the task received on the addressee within the wait: the \
                             message was not taken";
                Self::new("not_listening", 504, words.to_owned())
            }
            SendEnd::TimedOut => {
                let words = "no answer came within the wait: the message may have been taken. Sent \
                             again with the same id, it is taken once";
                let problem = Self::new("timed_out", 504, words.to_owned());
                Self { may_have_been_taken: true, ..problem }
            }
            SendEnd::NoRoom => {
                let words = "too much waits for the task, or at its endpoint: the message was not \
                             taken. Send it again later";
                Self::new("no_room", 429, words.to_owned())
            }
            SendEnd::TooLarge => {
                let words = "the broker takes no message as large: it was not sent. Pass large \
                             data by file";
                Self::new("too_large", 413, words.to_owned())
            }
            SendEnd::Unreachable => {
                let words = "the endpoint has no link to the service, and the task is not here: \
                             nothing was sent";
                Self::new("unreachable", 503, words.to_owned())
            }
            SendEnd::Forbidden(why) => Self::new("forbidden", 403, String::from(why)),
            SendEnd::Refused(why) => Self::new("refused", 422, String::from(why)),
            SendEnd::Delivered(_)
            | SendEnd::Kept
            | SendEnd::Submitted(_)
            | SendEnd::Ended(_)
            | SendEnd::NotEnded => return Err(end),
        })
    }
}

/// Whether a process took the message of which this is told.
fn taken(certain_not: bool) -> &'static str {
    if certain_not {
        ", and has not taken the message"
    } else {
        ": whether it took the message before is not known"
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let (kind, status) = match error {
            RequestError::BadToken => ("bad_token", 401),
            RequestError::TooMany => ("too_many", 429),
        };
        Self::new(kind, status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn query(text: &str) -> Query {
        Query::read(Some(text)).unwrap()
    }

    fn refused<T: std::fmt::Debug>(read: Result<T, Problem>) -> String {
        let problem = read.unwrap_err();
        assert_eq!((problem.kind.as_str(), problem.status), ("bad_request", 400));
        problem.detail
    }

    #[test]
    fn a_send_names_its_target_and_may_say_more() {
        let plain = sending(query(&format!("to={ID}&addressee=in"))).unwrap();
        assert_eq!((plain.wait, plain.id, plain.mailbox), (DEFAULT_WAIT, None, false));
        let text = format!("addressee=a%20b%C3%A9&to={ID}&wait=1m&attempt=2&id={ID}&mailbox");
        let full = sending(query(&text)).unwrap();
        assert_eq!((full.addressee.as_str(), full.attempt), ("a bé", Some(2)));
        assert_eq!((full.wait.as_secs(), full.mailbox), (60, true));
        for (text, words) in [
            ("addressee=in", "to is missing"),
            ("to=7&addressee=in", "to=7: it is no task's id"),
            (&format!("to={ID}"), "addressee is missing"),
            (&format!("to={ID}&addressee="), "1 to 128 bytes"),
            (&format!("to={ID}&addressee=in&wait=soon"), "such as 90s"),
            (&format!("to={ID}&addressee=in&attempt=0"), "from 1 on"),
            (&format!("to={ID}&addressee=in&adressee=x"), "no parameter adressee"),
            (&format!("to={ID}&to={ID}&addressee=in"), "to comes twice"),
        ] {
            let detail = refused(sending(query(text)));
            assert!(detail.contains(words), "{detail}");
        }
        assert!(refused(Query::read(Some("a=%ff"))).contains("UTF-8"));
    }

    #[test]
    fn a_receiver_names_its_addressees_and_may_say_more() {
        let plain = receiving(query("addressee=in")).unwrap();
        assert_eq!((plain.timeout, plain.hold), (None, HoldFor::Span(HOLD)));
        let text = format!("addressee=in&addressee=out&timeout=1s&hold=connection&from={ID}");
        let full = receiving(query(&text)).unwrap();
        assert_eq!(full.wanted.addressees, ["in", "out"]);
        assert_eq!(full.wanted.from, Some(ID.parse().unwrap()));
        assert_eq!((full.timeout, full.hold), (Some(Duration::from_secs(1)), HoldFor::Connection));
        assert!(refused(receiving(query("timeout=1s"))).contains("name an addressee"));
        assert!(refused(receiving(query("addressee=in&hold=x"))).contains("hold=x"));
    }

    #[test]
    fn each_answer_is_a_problem_of_its_own_or_none() {
        let finished = |outcome| SendEnd::Finished { outcome, certain: true };
        let problems = [
            (SendEnd::Unknown, "unknown", 404),
            (finished(Outcome::Failed), "finished", 410),
            (finished(Outcome::Cancelled), "cancelled", 410),
            (SendEnd::Superseded { attempt: 2, certain: true }, "superseded", 409),
            (SendEnd::NotListening, "not_listening", 504),
            (SendEnd::TimedOut, "timed_out", 504),
            (SendEnd::NoRoom, "no_room", 429),
            (SendEnd::TooLarge, "too_large", 413),
            (SendEnd::Unreachable, "unreachable", 503),
            (SendEnd::Forbidden("x".into()), "forbidden", 403),
            (SendEnd::Refused("x".into()), "refused", 422),
        ];
        for (end, kind, status) in problems {
            let problem = Problem::of(end).unwrap();
            assert_eq!((problem.kind.as_str(), problem.status), (kind, status));
        }
        let told = Problem::of(finished(Outcome::Failed)).unwrap();
        assert_eq!((told.outcome, told.may_have_been_taken), (Some(Outcome::Failed), false));
        assert!(told.detail.contains("failed, and has not taken"), "{}", told.detail);
        let doubt = SendEnd::Finished { outcome: Outcome::Failed, certain: false };
        let told = Problem::of(doubt).unwrap();
        assert!(told.may_have_been_taken && told.detail.contains("not known"), "{}", told.detail);
        assert_eq!(Problem::of(SendEnd::Delivered(1)), Err(SendEnd::Delivered(1)));
    }
}
