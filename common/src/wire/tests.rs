//! Messages that were encoded are decoded, and those that cannot be decoded get an answer.

use super::*;
use crate::id::{Attempt, EndpointId, StateId, TaskId};
use crate::task::Process;
use crate::task::Task;
use crate::task::result::{Outcome, TaskResult};
use proptest::prelude::*;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn task(argv: Vec<String>) -> Task {
    let argv = argv.into_iter().map(Into::into).collect();
    Task::new(TaskId::new(), Process { argv, ..Process::default() })
}

fn reason(body: &str) -> String {
    let decoded = decode_tasks(body.as_bytes(), None);
    assert!(decoded.tasks.is_empty());
    decoded.unreadable[0].reason.clone().into()
}

proptest! {
    #[test]
    fn tasks_survive_the_wire(
        argvs in prop::collection::vec(prop::collection::vec("\\PC{0,8}", 0..4), 1..4)
    ) {
        let tasks: Vec<Task> = argvs.into_iter().map(task).collect();
        let body = encode_tasks(&tasks.iter().collect::<Vec<_>>());
        let decoded = decode_tasks(&body, None);
        prop_assert_eq!(decoded, Tasks { tasks, unreadable: vec![] });
    }

    #[test]
    fn no_body_panics_and_every_body_gets_an_answer(body: Vec<u8>) {
        let decoded = decode_tasks(&body, None);
        prop_assert!(!decoded.tasks.is_empty() || !decoded.unreadable.is_empty());
        prop_assert!(!decode_results(&body).unreadable.is_empty());
    }
}

#[test]
fn results_survive_the_wire() {
    let endpoint = EndpointId::new();
    let result = |n: u32| {
        let attempt = Attempt { task_id: TaskId::new(), attempt: n };
        TaskResult::not_run(attempt, Outcome::Expired, "late".into(), endpoint, 5)
    };
    let results = vec![result(1), result(2)];
    let encoded: Vec<Vec<u8>> = results.iter().map(encode_result).collect();
    let body = pack_results(endpoint, &encoded);
    let (endpoint_of_all, unreadable) = (Some(endpoint), vec![]);
    assert_eq!(
        decode_results(&body),
        Results { endpoint: endpoint_of_all, disk: None, results: results.clone(), unreadable }
    );
    let disk = Disk { state_id: StateId::new(), age: 7 };
    let of_disk = decode_results(&pack_results_of(endpoint, disk, 9, &encoded));
    let published = |result: &TaskResult| TaskResult { published_at_ms: Some(9), ..result.clone() };
    let published: Vec<TaskResult> = results.iter().map(published).collect();
    assert_eq!((of_disk.disk, &of_disk.results), (Some(disk), &published));
    let mixed = [encoded[0].clone(), br#"{"task_id":"x"}"#.to_vec()];
    let decoded = decode_results(&pack_results_of(endpoint, disk, 9, &mixed));
    assert_eq!((&decoded.results[..], decoded.unreadable.len()), (&published[..1], 1));
    let forged = decode_results(&pack_results(EndpointId::new(), &encoded));
    assert_eq!((forged.results, forged.unreadable.len()), (vec![], 2));

    let foreign = br#"{"task_id":"x"}"#.to_vec();
    let mixed = [encoded[0].clone(), foreign, encoded[1].clone()];
    let decoded = decode_results(&pack_results(endpoint, &mixed));
    assert_eq!((decoded.results, decoded.unreadable.len()), (results, 1));
}

#[test]
fn what_cannot_be_read_is_told_by_its_first_parts_and_counted() {
    let parts = vec!["{}"; 100_000];
    let tasks = decode_tasks(&pack_tasks(&parts), None);
    assert_eq!((tasks.tasks.len(), tasks.unreadable.len()), (0, 11));
    assert_eq!(&*tasks.unreadable[10].reason, "and 99990 more");
    let results = decode_results(&pack_results(EndpointId::new(), &parts));
    assert_eq!((results.results.len(), results.unreadable.len()), (0, 11));
    assert_eq!(&*results.unreadable[10], "and 99990 more");
}

#[test]
fn unknown_fields_are_tolerated_and_unknown_versions_refused() {
    let body = format!(
        r#"{{"version":1,"type":"clutch.tasks","extra":[],"tasks":[
            {{"id":"{ID}","colour":"red","work":{{"process":{{"argv":["true"],"x":1}}}}}}]}}"#
    );
    assert_eq!(decode_tasks(body.as_bytes(), None).tasks.len(), 1);
    assert!(reason(r#"{"version":2,"type":"clutch.tasks"}"#).contains("version 2"));
    assert!(reason(r#"{"type":"clutch.tasks"}"#).contains("no version"));
    assert!(reason(r#"{"version":1,"type":"clutch.results"}"#).contains("clutch.results"));
    assert!(reason(r#"{"version":1,"type":"clutch.tasks","tasks":[]}"#).contains("no tasks"));
}

#[test]
fn one_bad_task_does_not_spoil_the_others_and_keeps_its_id() {
    let good = task(vec!["true".into()]);
    let body = format!(
        r#"{{"version":1,"type":"clutch.tasks","tasks":[{{"id":"{ID}","attempt":3}},{},{{}}]}}"#,
        serde_json::to_string(&good).unwrap()
    );
    let decoded = decode_tasks(body.as_bytes(), None);
    assert_eq!(decoded.tasks, vec![good]);
    assert_eq!(
        decoded.unreadable[0].attempt,
        Some(Attempt { task_id: ID.parse().unwrap(), attempt: 3 })
    );
    assert_eq!(decoded.unreadable[1].attempt, None);
}

#[test]
fn a_truncated_body_is_still_named_by_its_correlation_id() {
    let decoded = decode_tasks(br#"{"version":1,"ty"#, Some(ID));
    assert_eq!(decoded.unreadable[0].attempt.unwrap().task_id.to_string(), ID);
}
