//! Which disk results come from, and how old it was. Pure.

use super::{RESULTS_TYPE, VERSION, packed};
use crate::id::{EndpointId, StateId};

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
    pub(super) fn of(state_id: Option<StateId>, age: Option<u64>) -> Option<Self> {
        state_id.zip(age).map(|(state_id, age)| Self { state_id, age })
    }
}

/// Packs results like [`pack_results`](super::pack_results), and says which disk they come from.
#[must_use]
pub fn pack_results_of<R: AsRef<[u8]>>(endpoint: EndpointId, disk: Disk, results: &[R]) -> Vec<u8> {
    let Disk { state_id, age } = disk;
    let head = format!(
        r#"{{"version":{VERSION},"type":"{RESULTS_TYPE}","endpoint":"{endpoint}","state":"{state_id}","age":{age},"results":["#
    );
    packed(&head, results)
}
