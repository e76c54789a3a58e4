//! Forgetting at random, beside a model; and the size of the file.

use crate::model::TaskState;
use crate::state_folder::StateFolder;
use crate::store::conformance::{begin, chunk, done, record, specs, store};
use crate::store::{Error, Forgettable, RecordedTask, Store};
use clutch_common::id::EndpointId;
use clutch_common::task::result::{Outcome, TaskResult};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The keys that are used.
const KEYS: u8 = 3;
/// How many tasks a submission has.
const TASKS: usize = 4;

/// A step of the test.
#[derive(Clone, Debug)]
enum Step {
    Submit(u8),
    /// The outcome of a task of a submission.
    Record(u8, usize, Outcome),
    ForgetKey(u8),
    /// Forgets all outcomes recorded before the last so many steps.
    ForgetOlder(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![Just(Outcome::Succeeded), Just(Outcome::Failed)];
    prop_oneof![
        2 => (0..KEYS).prop_map(Step::Submit),
        6 => (0..KEYS, 0..TASKS, outcome).prop_map(|(key, index, outcome)| {
            Step::Record(key, index, outcome)
        }),
        1 => (0..KEYS).prop_map(Step::ForgetKey),
        1 => (0_u64..6).prop_map(Step::ForgetOlder),
    ]
}

/// A task as the model has it.
struct ModelTask {
    recorded: RecordedTask,
    /// The outcome, and when it was recorded.
    outcome: Option<(Outcome, u64)>,
    forgotten: bool,
}

/// The submissions by key.
#[derive(Default)]
struct Model(BTreeMap<u8, Vec<ModelTask>>);

impl Model {
    fn forget(&mut self, goes: impl Fn(u8, u64) -> bool) {
        for (key, tasks) in &mut self.0 {
            for task in tasks.iter_mut() {
                task.forgotten |= task.outcome.is_some_and(|(_, at)| goes(*key, at));
            }
        }
        self.0.retain(|_, tasks| !tasks.iter().all(|task| task.forgotten));
    }
}

async fn apply(store: &Store, model: &mut Model, endpoint: EndpointId, at: u64, step: &Step) {
    match step {
        Step::Submit(key) => {
            let chunk = chunk(endpoint, &key.to_string(), &specs(TASKS));
            let begun = begin(store, chunk).await;
            let known = model.0.get(key);
            if known.is_some_and(|tasks| tasks.iter().any(|task| task.forgotten)) {
                assert!(matches!(begun, Err(Error::Conflict(_))), "a task would run again");
            } else if let Some(known) = known {
                let ids = |task: &RecordedTask| task.task.id;
                let known: Vec<_> = known.iter().map(|task| ids(&task.recorded)).collect();
                assert_eq!(begun.unwrap().iter().map(ids).collect::<Vec<_>>(), known);
            } else {
                let new = |recorded| ModelTask { recorded, outcome: None, forgotten: false };
                model.0.insert(*key, begun.unwrap().into_iter().map(new).collect());
            }
        }
        Step::Record(key, index, outcome) => {
            let Some(task) = model.0.get_mut(key).map(|tasks| &mut tasks[*index]) else { return };
            if task.outcome.is_some() {
                return;
            }
            let result = TaskResult { endpoint_id: endpoint, ..done(&task.recorded, 1, *outcome) };
            record(store, &[result], &[], at).await.unwrap();
            task.outcome = Some((*outcome, at));
        }
        Step::ForgetKey(key) => {
            if let Some(submission) = store.submission(&key.to_string()).await.unwrap() {
                store.forget(Forgettable::Submission(submission), 0, false).await.unwrap();
            }
            model.forget(|of, _| of == *key);
        }
        Step::ForgetOlder(steps) => {
            let before = at - steps;
            store.forget(Forgettable::EndedBefore(before), 0, false).await.unwrap();
            model.forget(|_, recorded| recorded < before);
        }
    }
}

async fn compare(store: &Store, model: &Model) {
    for key in 0..KEYS {
        let submission = store.submission(&key.to_string()).await.unwrap();
        assert_eq!(submission.is_some(), model.0.contains_key(&key), "submission {key}");
        let (Some(submission), Some(tasks)) = (submission, model.0.get(&key)) else { continue };
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for task in tasks {
            let state = task.outcome.map_or(TaskState::Waiting, |(it, _)| TaskState::Done(it));
            *counted.entry(state.as_str().to_owned()).or_default() += 1;
            let found = store.task(task.recorded.task.id).await.unwrap();
            let expected = (!task.forgotten).then_some(state);
            assert_eq!(found.map(|task| task.summary.state), expected);
        }
        let progress = store.submission_progress(submission).await.unwrap().unwrap();
        assert_eq!(progress.states, counted, "the counts of {key}");
        let forgotten = tasks.iter().filter(|task| task.forgotten).count() as u64;
        let (counts, page) = store.results(submission, 0, 100).await.unwrap();
        assert_eq!(counts, (TASKS as u64, forgotten));
        assert_eq!(page.items.len() as u64, TASKS as u64 - forgotten);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_is_unfinished_stays_and_counts_are_right_however_tasks_are_forgotten(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_temp, store) = store().await;
            let (endpoint, mut model) = (EndpointId::new(), Model::default());
            // Later than the tasks of `chunk`, which are recorded at 1000.
            for (at, step) in (2000..).zip(&steps) {
                apply(&store, &mut model, endpoint, at, step).await;
                compare(&store, &model).await;
            }
        });
    }
}

#[tokio::test]
async fn the_file_shrinks_and_what_stays_is_whole() {
    let temp = tempfile::tempdir().unwrap();
    let folder = StateFolder::new(temp.path());
    let store = Store::open(&folder).await.unwrap();
    let size = || std::fs::metadata(folder.database()).unwrap().len();
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(400))).await.unwrap();
    let output = |task: &RecordedTask| TaskResult {
        stdout: vec![b'x'; 50_000].into(),
        ..done(task, 1, Outcome::Succeeded)
    };
    let results: Vec<TaskResult> = begun.iter().take(390).map(output).collect();
    record(&store, &results[..380], &[], 2000).await.unwrap();
    record(&store, &results[380..], &[], 3000).await.unwrap();
    store.close().await;
    let full = size();
    assert!(full > 19_000_000, "{full}");
    let store = Store::open(&folder).await.unwrap();
    let mut next = Some(0);
    while let Some(from) = next {
        next = store.forget(Forgettable::EndedBefore(3000), from, false).await.unwrap().next;
    }
    while store.release_pages().await.unwrap() {}
    store.close().await;
    let shrunk = size();
    assert!(shrunk < 2_500_000, "{shrunk} of {full}");
    let store = Store::open(&folder).await.unwrap();
    for (result, task) in results[380..].iter().zip(&begun[380..]) {
        let found = store.task(task.task.id).await.unwrap().unwrap();
        assert_eq!(found.results[0].result.stdout, result.stdout);
    }
}
