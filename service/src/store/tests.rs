//! The records, on databases of their own.

use super::listing::index_of;
use super::results::Tally;
use super::*;
use crate::fake::{result, result_of};
use crate::model::{TaskSpec, TaskState};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::topology::QueueKind;
use clutch_common::wire::Presence;
use std::sync::Arc;
use tempfile::TempDir;

/// A fresh store; the folder lives as long as the first value.
pub(crate) async fn store() -> (TempDir, Store) {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&StateFolder::new(temp.path())).await.unwrap();
    (temp, store)
}

#[tokio::test]
async fn a_database_that_others_could_read_is_taken_from_them_with_its_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    let folder = StateFolder::new(temp.path().join("state"));
    let open_to_all = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let names = |end: &str| folder.path().join(format!("clutch.db{end}"));
    folder.prepare().unwrap();
    for first in [true, false] {
        if !first {
            open_to_all(folder.path());
            open_to_all(&names(""));
            folder.prepare().unwrap();
        }
        let store = Store::open(&folder).await.unwrap();
        for path in [folder.path(), &names(""), &names("-wal"), &names("-shm"), &names(".lock")] {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
        store.close().await;
    }
}

pub(crate) fn spec(argv: &[&str]) -> TaskSpec {
    serde_json::from_value(serde_json::json!({ "argv": argv })).unwrap()
}

fn specs(count: usize) -> Vec<TaskSpec> {
    (0..count).map(|number| spec(&["echo", &number.to_string()])).collect()
}

pub(super) fn chunk(endpoint: EndpointId, key: &str, specs: &[TaskSpec]) -> Chunk {
    let (total, specs) = (specs.len() as u64, specs.to_vec());
    Chunk {
        endpoint: endpoint.to_string(),
        key: key.to_owned(),
        total,
        first: 0,
        specs,
        now_ms: 1000,
    }
}

/// Records the tasks of a chunk; its endpoint is made known if nobody knows it.
pub(super) async fn begin(store: &Store, chunk: Chunk) -> Result<Vec<Begun>> {
    if store.endpoint(&chunk.endpoint).await?.is_none() {
        let id = chunk.endpoint.parse().ok();
        let name = chunk.endpoint.clone();
        let wanted = Registration { name, id, queue: None, lost_after: None, now_ms: 1 };
        store.register(wanted).await?;
    }
    Ok(store.begin_submission(chunk).await?.unwrap().1)
}

/// Records a task that the broker has, and its endpoint.
pub(crate) async fn submitted_task(store: &Store) -> EndpointId {
    let endpoint = EndpointId::new();
    let begun = begin(store, chunk(endpoint, "k", &[spec(&["a"])])).await.unwrap();
    store.mark_submitted(vec![begun[0].seq], 5).await.unwrap();
    endpoint
}

/// Records results, and presences after them.
pub(crate) async fn record(
    store: &Store,
    results: &[TaskResult],
    presences: &[Presence],
    now_ms: u64,
) -> Result<Tally> {
    let word = |presence: &Presence| Word { presence: presence.clone(), message: None, age: None };
    let words = presences.iter().map(word).collect();
    let mut own = Vec::new();
    for result in results {
        let known = store.task(result.task_id).await?;
        let endpoint_id = known.map_or(result.endpoint_id, |known| known.summary.endpoint);
        own.push(TaskResult { endpoint_id, ..result.clone() });
    }
    let batch = Batch { results: own, words, ..Batch::default() };
    store.record(Arc::new(batch), now_ms, |_| ()).await
}

pub(super) fn done(task: &Begun, attempt: u32, outcome: Outcome) -> TaskResult {
    result_of(Attempt { task_id: task.task.id, attempt }, outcome)
}

pub(super) async fn state(store: &Store, id: TaskId) -> (TaskState, Option<u32>) {
    let summary = store.task(id).await.unwrap().unwrap().summary;
    (summary.state, summary.attempt)
}

/// The counts that are kept, beside a count of the rows themselves.
pub(super) async fn assert_counts_agree(store: &Store, submission: i64) {
    let kept = store.submission_progress(submission, Age::Any).await.unwrap().states;
    let count = move |db: &Connection| {
        let rows = "SELECT state, count(*) FROM tasks WHERE submission = ? GROUP BY state";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        rows::all(db, rows, [submission], read).map_err(failed("counting"))
    };
    let rows: Vec<(String, i64)> = store.read("counting", count).await.unwrap();
    let counted = rows.into_iter().map(|(state, count)| (state, unsigned(count))).collect();
    assert_eq!(kept, counted);
}

#[tokio::test]
async fn submitting_again_records_nothing_twice_and_goes_on_where_it_stopped() {
    let (_temp, store) = store().await;
    let (endpoint, specs) = (EndpointId::new(), specs(250));
    let first = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let seqs: Vec<i64> = first.iter().take(100).map(|one| one.seq).collect();
    store.mark_submitted(seqs, 2000).await.unwrap();
    let again = begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let ids = |all: &[Begun]| all.iter().map(|one| one.task.id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    let open = again.iter().filter(|one| one.state == TaskState::Submitting).count();
    assert_eq!(open, 150);
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
    let progress = store.submission_progress(submission, Age::Any).await.unwrap();
    assert_eq!((progress.total, progress.states["submitted"]), (250, 100));
}

#[tokio::test]
async fn what_the_broker_did_not_take_is_submitted_again_and_no_news_undoes_better() {
    let (_temp, store) = store().await;
    let (endpoint, specs) = (EndpointId::new(), specs(3));
    let again = async || begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let begun = again().await;
    let submission = store.submission("k").await.unwrap().unwrap();
    let states = async || {
        assert_counts_agree(&store, submission).await;
        let mut states = Vec::new();
        for one in &begun {
            states.push(state(&store, one.task.id).await.0);
        }
        states
    };
    use TaskState::{Refused, Returned, Submitted, Submitting};
    store.mark_unplaced(vec![begun[0].seq, begun[1].seq], Returned).await.unwrap();
    store.mark_unplaced(vec![begun[2].seq], Refused).await.unwrap();
    assert_eq!(states().await, [Returned, Returned, Refused]);
    // A second request with the same key was under way, and had more luck.
    store.mark_submitted(vec![begun[1].seq], 2000).await.unwrap();
    store.mark_unplaced(vec![begun[1].seq], Refused).await.unwrap();
    assert_eq!(states().await, [Returned, Submitted, Refused]);
    let again: Vec<TaskState> = again().await.iter().map(|one| one.state).collect();
    assert_eq!(again, [Submitting, Submitted, Submitting]);
    assert_eq!(states().await, again);
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    store.mark_unplaced(vec![begun[0].seq], Returned).await.unwrap();
    assert_eq!(states().await[0], TaskState::Done(Outcome::Succeeded));
}

#[tokio::test]
async fn a_task_that_is_confirmed_twice_at_once_is_counted_once() {
    let (_temp, store) = store().await;
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(1))).await.unwrap();
    store.mark_submitted(vec![begun[0].seq; 2], 2000).await.unwrap();
    let submission = store.submission("k").await.unwrap().unwrap();
    assert_counts_agree(&store, submission).await;
}

#[tokio::test]
async fn a_key_cannot_be_used_for_other_tasks() {
    let (_temp, store) = store().await;
    let (endpoint, specs) = (EndpointId::new(), specs(3));
    begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let mut other = specs.clone();
    other[2] = spec(&["rm"]);
    let refused = async |chunk: Chunk| match begin(&store, chunk).await {
        Err(Error::Conflict(words)) => words,
        other => panic!("no conflict: {other:?}"),
    };
    assert!(refused(chunk(endpoint, "k", &other)).await.contains("task 2 differs"));
    assert!(refused(chunk(endpoint, "k", &specs[..2])).await.contains("it has 3 tasks"));
    assert!(refused(chunk(EndpointId::new(), "k", &specs)).await.contains("endpoint"));
    let page = store.tasks(&Filter { limit: 10, ..Filter::default() }).await.unwrap();
    assert_eq!(page.items.len(), 3);
}

#[tokio::test]
async fn an_expiry_counts_from_the_first_recording() {
    let (_temp, store) = store().await;
    let endpoint = EndpointId::new();
    let specs = [TaskSpec { expires_in_ms: Some(500), ..spec(&["true"]) }];
    begin(&store, chunk(endpoint, "k", &specs)).await.unwrap();
    let later = Chunk { now_ms: 9000, ..chunk(endpoint, "k", &specs) };
    let again = begin(&store, later).await.unwrap();
    assert_eq!(again[0].task.expires_at_ms, Some(1500));
}

#[tokio::test]
async fn the_first_result_of_an_attempt_wins_and_the_rest_is_counted() {
    let (_temp, store) = store().await;
    let specs = specs(1);
    let endpoint_id = EndpointId::new();
    let begun = begin(&store, chunk(endpoint_id, "k", &specs)).await.unwrap();
    let first = done(&begun[0], 1, Outcome::Succeeded);
    let first = TaskResult { stdout: "one".into(), endpoint_id, ..first };
    let second = TaskResult { stdout: "two".into(), ..done(&begun[0], 1, Outcome::Failed) };
    let tally = record(&store, &[first.clone(), second.clone()], &[], 5).await.unwrap();
    assert_eq!((tally.recorded, tally.duplicates, tally.strangers), (1, 1, 0));
    assert_eq!(record(&store, &[second], &[], 6).await.unwrap().duplicates, 1);
    let detail = store.task(begun[0].task.id).await.unwrap().unwrap();
    assert_eq!(detail.results.len(), 1);
    assert_eq!((&detail.results[0].result, detail.results[0].duplicates), (&first, 2));
    assert_eq!(detail.results[0].received_at_ms, 5);
    assert_eq!(detail.summary.state, TaskState::Done(Outcome::Succeeded));
}

#[tokio::test]
async fn a_later_attempt_supersedes_and_an_older_one_is_only_kept() {
    let (_temp, store) = store().await;
    let first = TaskResult { attempt: 2, ..result(Outcome::Failed) };
    let of = |attempt, outcome| TaskResult { attempt, outcome, ..first.clone() };
    let id = first.task_id;
    record(&store, std::slice::from_ref(&first), &[], 5).await.unwrap();
    record(&store, &[of(1, Outcome::Interrupted)], &[], 6).await.unwrap();
    assert_eq!(state(&store, id).await, (TaskState::Done(Outcome::Failed), Some(2)));
    let batch = [of(4, Outcome::Succeeded), of(3, Outcome::Failed)];
    record(&store, &batch, &[], 7).await.unwrap();
    assert_eq!(state(&store, id).await, (TaskState::Done(Outcome::Succeeded), Some(4)));
    let results = store.task(id).await.unwrap().unwrap().results;
    let attempts: Vec<u32> = results.iter().map(|one| one.result.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
}

#[tokio::test]
async fn only_the_endpoint_that_was_given_an_attempt_answers_for_it() {
    let (_temp, store) = store().await;
    let endpoint_id = EndpointId::new();
    let begun = begin(&store, chunk(endpoint_id, "k", &specs(1))).await.unwrap();
    let id = begun[0].task.id;
    let of = |endpoint_id, attempt, outcome| TaskResult {
        endpoint_id,
        ..done(&begun[0], attempt, outcome)
    };
    let send = async |result| {
        let batch = Batch { results: vec![result], ..Batch::default() };
        store.record(Arc::new(batch), 5, |_| ()).await.unwrap().refused
    };
    let open = state(&store, id).await;
    for (endpoint, attempt) in [(EndpointId::new(), 1), (endpoint_id, 2), (endpoint_id, 0)] {
        assert_eq!(send(of(endpoint, attempt, Outcome::Succeeded)).await, 1);
        assert_eq!(state(&store, id).await, open);
    }
    assert_eq!(send(of(endpoint_id, 1, Outcome::Failed)).await, 0);
    assert_eq!(send(of(endpoint_id, 2, Outcome::Succeeded)).await, 1);
    assert_eq!(state(&store, id).await, (TaskState::Done(Outcome::Failed), Some(1)));
    assert_eq!(store.task(id).await.unwrap().unwrap().results.len(), 1);
    let theirs = result(Outcome::Failed);
    assert_eq!(send(theirs.clone()).await, 0, "a task that another submitted");
    assert_eq!(send(TaskResult { endpoint_id, ..theirs }).await, 1);
}

#[tokio::test]
async fn a_result_that_overtakes_the_confirmation_stays() {
    let (_temp, store) = store().await;
    let specs = specs(1);
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs)).await.unwrap();
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    store.mark_submitted(vec![begun[0].seq], 6).await.unwrap();
    let detail = store.task(begun[0].task.id).await.unwrap().unwrap();
    assert_eq!(detail.summary.state, TaskState::Done(Outcome::Succeeded));
    assert_eq!(detail.summary.submitted_at_ms, Some(6));
}

#[tokio::test]
async fn a_strangers_task_is_recorded_by_its_result_with_every_field() {
    let (_temp, store) = store().await;
    let result = TaskResult {
        exit_code: Some(-3),
        signal: Some(9),
        value: Some("[1.50, null]".parse().unwrap()),
        stdout: vec![0, 255].into(),
        stdout_omitted: u64::MAX,
        started_at_ms: Some(1),
        cpu_ms: Some(2),
        peak_memory_bytes: Some(3),
        state_id: Some(clutch_common::id::StateId::new()),
        ..result_of(Attempt { task_id: TaskId::new(), attempt: 1 }, Outcome::Poisoned)
    };
    let tally = record(&store, std::slice::from_ref(&result), &[], 5).await.unwrap();
    assert_eq!((tally.strangers, tally.foreign), (1, 1));
    let detail = store.task(result.task_id).await.unwrap().unwrap();
    let expected = TaskResult { stdout_omitted: i64::MAX.unsigned_abs(), ..result };
    assert_eq!(detail.results[0].result, expected);
    assert_eq!((detail.summary.key, detail.task), (None, None));
}

#[tokio::test]
async fn pages_show_every_task_once_newest_first_under_every_filter() {
    let (_temp, store) = store().await;
    let (here, there) = (EndpointId::new(), EndpointId::new());
    let specs = specs(25);
    let begun = begin(&store, chunk(here, "a", &specs)).await.unwrap();
    begin(&store, chunk(there, "b", &specs)).await.unwrap();
    let failed: Vec<TaskResult> =
        begun.iter().take(9).map(|one| done(one, 1, Outcome::Failed)).collect();
    record(&store, &failed, &[], 5).await.unwrap();
    let submission = store.submission("a").await.unwrap();
    let state = Some(TaskState::Done(Outcome::Failed));
    let all = Filter { limit: 4, ..Filter::default() };
    let expected = [
        (all.clone(), 50),
        (Filter { endpoint: Some(there), ..all.clone() }, 25),
        (Filter { state, ..all.clone() }, 9),
        (Filter { state, endpoint: Some(here), ..all.clone() }, 9),
        (Filter { state, endpoint: Some(there), ..all.clone() }, 0),
        (Filter { submission, ..all.clone() }, 25),
        (Filter { submission, state, endpoint: Some(here), ..all }, 9),
    ];
    for (mut filter, count) in expected {
        let mut seen: Vec<TaskId> = Vec::new();
        loop {
            let page = store.tasks(&filter).await.unwrap();
            seen.extend(page.items.iter().map(|task| task.id));
            filter.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), count, "{filter:?}");
        assert!(seen.is_sorted_by(|a, b| a > b), "{filter:?}");
    }
}

#[tokio::test]
async fn results_come_in_the_order_of_submission_in_pages_bounded_by_bytes() {
    let (_temp, store) = store().await;
    let specs = specs(7);
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs)).await.unwrap();
    let large = |one: &Begun| TaskResult {
        stdout: vec![b'x'; 1_500_000].into(),
        ..done(one, 1, Outcome::Succeeded)
    };
    let results: Vec<TaskResult> = begun.iter().rev().skip(1).map(large).collect();
    record(&store, &results, &[], 5).await.unwrap();
    let submission = store.submission("k").await.unwrap().unwrap();
    let (mut from, mut indices, mut open) = (Some(0), Vec::new(), 0);
    while let Some(index) = from {
        let (_, page) = store.results(submission, index, 100).await.unwrap();
        assert!(page.items.len() <= 2);
        indices.extend(page.items.iter().filter_map(|one| one.summary.index));
        open += page.items.iter().filter(|one| one.result.is_none()).count();
        from = page.next;
    }
    assert_eq!((indices, open), ((0..7).collect(), 1));
}

#[tokio::test]
async fn an_endpoint_keeps_its_id_and_contradictions_are_told() {
    let (_temp, store) = store().await;
    let wanted = |name: &str, id, queue| Registration {
        name: name.to_owned(),
        id,
        queue,
        lost_after: None,
        now_ms: 1,
    };
    let (lab, new) = store.register(wanted("lab", None, None)).await.unwrap();
    assert!(new);
    assert_eq!(
        store.register(wanted("lab", Some(lab.id), None)).await.unwrap(),
        (lab.clone(), false)
    );
    let refused = async |wanted| store.register(wanted).await.unwrap_err().to_string();
    assert!(refused(wanted("lab", Some(EndpointId::new()), None)).await.contains("leave --id out"));
    assert!(refused(wanted("other", Some(lab.id), None)).await.contains("endpoint 'lab'"));
    let quorum = Some(QueueKind::Quorum);
    let (changed, _) = store.register(wanted("lab", None, quorum)).await.unwrap();
    assert_eq!(changed.queue, QueueKind::Quorum, "until it is declared, the kind may change");
    let (changed, _) = store.register(wanted("lab", None, None)).await.unwrap();
    assert_eq!(changed.queue, QueueKind::Classic, "and a kind that failed does not stick");
    store.register(wanted("lab", None, quorum)).await.unwrap();
    store.declared(lab.id, QueueKind::Classic).await.unwrap();
    let words = refused(wanted("lab", None, Some(QueueKind::Classic))).await;
    assert!(words.contains("has a quorum queue"), "{words}");
    assert_eq!(store.shared_queue_kind().await.unwrap(), Some(QueueKind::Classic));
    assert_eq!(store.endpoint(&lab.id.to_string()).await.unwrap().unwrap().name, "lab");
    assert_eq!(store.endpoint("nobody").await.unwrap(), None);
}

#[tokio::test]
async fn many_may_open_a_fresh_folder_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let folder = StateFolder::new(temp.path());
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let folder = folder.clone();
        opening.spawn(async move { Store::open(&folder).await });
    }
    while let Some(opened) = opening.join_next().await {
        opened.unwrap().unwrap();
    }
}

#[tokio::test]
async fn every_listing_but_that_of_a_common_state_is_served_by_an_index() {
    let (_temp, store) = store().await;
    for (condition, order) in [
        ("t.endpoint = 1".to_owned(), "t.seq"),
        (format!("t.state = 's'{}", index_of(TaskState::Refused)), "t.seq"),
        ("t.endpoint = 1 AND t.state = 's'".to_owned(), "t.seq"),
        ("t.submission = 1".to_owned(), "t.idx"),
        ("t.submission = 1 AND t.state = 's'".to_owned(), "t.idx"),
    ] {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT t.id FROM tasks t WHERE {condition} ORDER BY {order} DESC"
        );
        let explain = move |db: &Connection| {
            rows::all(db, &sql, [], |row| row.get::<_, String>(3)).map_err(failed("explaining"))
        };
        let steps = store.read("explaining", explain).await.unwrap();
        assert!(steps.len() == 1 && steps[0].starts_with("SEARCH"), "{condition}: {steps:?}");
    }
}

#[tokio::test]
async fn a_database_that_was_full_records_again_when_there_is_room() {
    let (_temp, store) = store().await;
    let specs = specs(1);
    let task = &begin(&store, chunk(EndpointId::new(), "k", &specs)).await.unwrap()[0];
    let mut result = done(task, 1, Outcome::Succeeded);
    result.stdout = vec![b'x'; 1 << 20].into();
    // The connection that is told so takes no more pages than there are.
    let allow = async |pages: i64| {
        let allow = move |writer: &mut Writer, _| {
            writer.connection.pragma_update(None, "max_page_count", pages).unwrap();
        };
        store.writer.run(allow).await.unwrap();
    };
    allow(1).await;
    let error = record(&store, std::slice::from_ref(&result), &[], 2000).await.unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(error)).contains("full"));
    allow(1 << 20).await;
    record(&store, &[result], &[], 3000).await.unwrap();
    assert_eq!(state(&store, task.task.id).await, (TaskState::Done(Outcome::Succeeded), Some(1)));
}

#[tokio::test]
async fn what_is_fresh_is_read_as_it_was_recorded_and_nothing_is_once_it_is_closed() {
    let (_temp, store) = store().await;
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(2))).await.unwrap();
    let submission = store.submission("k").await.unwrap().unwrap();
    let ids: Vec<TaskId> = begun.iter().map(|one| one.task.id).chain([TaskId::new()]).collect();
    record(&store, &[done(&begun[0], 1, Outcome::Succeeded)], &[], 5).await.unwrap();
    for age in [Age::Fresh, Age::Any] {
        let (progress, unknown) = store.tasks_progress(&ids, age).await.unwrap();
        assert_eq!((progress.total, progress.done, unknown), (3, 1, vec![ids[2]]));
        let progress = store.submission_progress(submission, age).await.unwrap();
        assert_eq!((progress.total, progress.done), (2, 1));
    }
    store.near.close();
    let elsewhere = store.submission_progress(submission, Age::Fresh).await.unwrap();
    assert_eq!((elsewhere.total, elsewhere.done), (2, 1), "what is near failed");
    store.close().await;
    let closed = store.submission_progress(submission, Age::Fresh).await;
    assert!(matches!(closed, Err(Error::Silent)));
}

#[tokio::test]
async fn what_nobody_waits_for_is_on_disk_when_it_is_asked_for() {
    let (_temp, store) = store().await;
    let begun = begin(&store, chunk(EndpointId::new(), "k", &specs(2))).await.unwrap();
    let (first, second) = (begun[0].seq, begun[1].seq);
    assert!(store.log.is_synced(), "a submission is on disk when it is recorded");
    store.note_submitted(vec![first], 5).await.unwrap();
    assert!(!store.log.is_synced());
    store.durable().await.unwrap();
    assert!(store.log.is_synced());
    store.note_submitted(vec![second], 6).await.unwrap();
    begin(&store, chunk(EndpointId::new(), "other", &specs(1))).await.unwrap();
    assert!(store.log.is_synced(), "the sync of a submission is for all before it");
    for one in &begun {
        assert_eq!(state(&store, one.task.id).await.0, TaskState::Submitted);
    }
}
