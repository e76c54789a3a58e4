//! Results in an envelope: encoding, and decoding each result by itself. Pure.

use super::envelope::{Head, Sound, encode_into, head, packed, sound};
use super::{RESULTS_TYPE, VERSION, each};
use crate::id::{EndpointId, StateId};
use crate::task::reason::Reason;
use crate::task::result::TaskResult;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The results of a message, and why the rest of it could not be read.
#[derive(PartialEq, Debug, Default)]
pub struct Results {
    /// The endpoint that they come from: each says the same.
    pub endpoint: Option<EndpointId>,
    /// The disk that they come from, as it was then.
    pub disk: Option<Disk>,
    /// The results, in the order of the message.
    pub results: Vec<TaskResult>,
    /// Why the rest cannot be read: for each of the first ones.
    pub unreadable: Vec<Reason>,
}

/// A state folder at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Which.
    pub state_id: StateId,
    /// How many commits it had seen at least. One that has seen fewer later went back in
    /// time.
    pub age: u64,
}

impl Disk {
    fn of(state_id: Option<StateId>, age: Option<u64>) -> Option<Self> {
        state_id.zip(age).map(|(state_id, age)| Self { state_id, age })
    }
}

/// The origin of the results of a message.
#[derive(Deserialize)]
struct Sender {
    endpoint: EndpointId,
    #[serde(default)]
    state: Option<StateId>,
    #[serde(default)]
    age: Option<u64>,
    #[serde(default)]
    published_at_ms: Option<u64>,
}

/// The size of a result without output and value, in bytes, roughly.
const FIXED_RESULT: usize = 416;

/// Encodes one result as it stands in an envelope. What [`pack_results`] takes.
#[must_use]
pub fn encode_result(result: &TaskResult) -> Vec<u8> {
    // As large as most get, where the end of a line takes two bytes: they may be kept
    // for long, a thousand of them, and one that has to grow takes twice its size.
    let output = result.output();
    let mut encoded = Vec::with_capacity(FIXED_RESULT + output + output / 16);
    encode_into(&mut encoded, result);
    encoded
}

/// Packs results, each encoded by [`encode_result`], into one body.
#[must_use]
pub fn pack_results<R: AsRef<[u8]>>(endpoint: EndpointId, results: &[R]) -> Vec<u8> {
    let head = format!(
        r#"{{"version":{VERSION},"type":"{RESULTS_TYPE}","endpoint":"{endpoint}","results":["#
    );
    packed(&head, results)
}

/// Packs results like [`pack_results`], and says which disk they come from, and when they are
/// handed to the link.
#[must_use]
pub fn pack_results_of<R: AsRef<[u8]>>(
    endpoint: EndpointId,
    disk: Disk,
    now_ms: u64,
    results: &[R],
) -> Vec<u8> {
    let Disk { state_id, age } = disk;
    let head = format!(
        r#"{{"version":{VERSION},"type":"{RESULTS_TYPE}","endpoint":"{endpoint}","state":"{state_id}","age":{age},"published_at_ms":{now_ms},"results":["#
    );
    packed(&head, results)
}

/// Decodes one result as [`encode_result`] wrote it.
pub fn decode_result(bytes: &[u8]) -> Result<TaskResult, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// The results of a body of which all can be read.
pub(super) fn sound_results(body: &[u8]) -> Option<Results> {
    let Sound { endpoint, state, age, published_at_ms, parts: mut results, .. } =
        sound::<TaskResult>(body, RESULTS_TYPE)?;
    let (endpoint, disk) = (endpoint?, Disk::of(state, age));
    let agree = results.iter_mut().all(|result| {
        result.published_at_ms = published_at_ms;
        result.endpoint_id == endpoint
    });
    agree.then_some(Results { endpoint: Some(endpoint), disk, results, unreadable: Vec::new() })
}

/// Decodes the body of a message that carries results.
#[must_use]
pub fn decode_results(body: &[u8]) -> Results {
    sound_results(body).unwrap_or_else(|| results(head(body), body))
}

/// The results of a body; `head` is its head, or why that cannot be read.
pub(super) fn results(head: Result<Head, String>, body: &[u8]) -> Results {
    let whole = |reason: String| Results { unreadable: vec![reason.into()], ..Results::default() };
    if let Err(reason) = head.and_then(|head| head.expect(RESULTS_TYPE)) {
        return whole(reason);
    }
    listed_results(body)
        .unwrap_or_else(|error| whole(format!("the list of results cannot be read: {error}")))
}

/// The results of a list, each read by itself.
fn listed_results(body: &[u8]) -> serde_json::Result<Results> {
    let Sender { endpoint, state, age, published_at_ms } = serde_json::from_slice(body)?;
    let disk = Disk::of(state, age);
    let mut decoded = Results { endpoint: Some(endpoint), disk, ..Results::default() };
    let mut unreadable = 0_usize;
    let mut read = |raw: &RawValue| {
        let reason = match serde_json::from_str::<TaskResult>(raw.get()) {
            Ok(result) if result.endpoint_id == endpoint => {
                return decoded.results.push(TaskResult { published_at_ms, ..result });
            }
            Ok(result) => format!(
                "a result says that it is of the endpoint {}, and its message that it is of \
                 {endpoint}",
                result.endpoint_id
            ),
            Err(error) => format!("a result cannot be read: {error}"),
        };
        unreadable += 1;
        if unreadable <= each::REASONS {
            decoded.unreadable.push(reason.into());
        }
    };
    each::each(body, "results", &mut read)?;
    if let Some(more) = unreadable.checked_sub(each::REASONS).filter(|more| *more > 0) {
        decoded.unreadable.push(each::and_more(more));
    }
    Ok(decoded)
}
