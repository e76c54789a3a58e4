//! Promises that only SQLite makes: private files, indexes, and commits that wait for a sync.

use crate::model::TaskState;
use crate::state_folder::StateFolder;
use crate::store::StoredState;
use crate::store::conformance::{begin, chunk, done, record, spec, state, store};
use crate::store::engine::{Db, values};
use crate::store::overdue::FIRST_TIME;
use crate::store::rows::index_condition;
use crate::store::{Store, Write};
use clutch_common::id::EndpointId;
use clutch_common::task::result::Outcome;
use std::path::Path;

#[tokio::test]
async fn a_database_and_its_folder_are_made_private() {
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
        (format!("t.state = 's'{}", index_condition(StoredState::Waiting)), "t.seq"),
        ("t.endpoint = 1 AND t.state = 's'".to_owned(), "t.seq"),
        ("t.submission = 1".to_owned(), "t.idx"),
        ("t.submission = 1 AND t.state = 's'".to_owned(), "t.idx"),
    ] {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT t.id FROM tasks t WHERE {order} >= 1 AND {order} < 9 \
             AND {condition} ORDER BY {order} DESC"
        );
        let explain = move |db: &Db<'_>| db.all::<(i64, i64, i64, String)>(&sql, &[]);
        let steps = store.read("explaining", explain).await.unwrap();
        let indexed = steps.len() == 1 && steps[0].3.starts_with("SEARCH t USING INDEX");
        assert!(indexed, "{condition}: {steps:?}");
    }
}

#[tokio::test]
async fn the_search_for_overdue_tasks_begins_with_the_submissions_that_have_open_ones() {
    let (_temp, store) = store().await;
    let sql = format!("EXPLAIN QUERY PLAN {FIRST_TIME}");
    let explain = move |db: &Db<'_>| db.all::<(i64, i64, i64, String)>(&sql, values![0_i64]);
    let steps = store.read("explaining", explain).await.unwrap();
    assert!(steps[0].3.starts_with("SCAN c"), "{steps:?}");
    assert!(steps[1].3.starts_with("SEARCH t USING INDEX tasks_by_submission"), "{steps:?}");
}

#[tokio::test]
async fn a_database_that_was_full_records_again_when_there_is_room() {
    let (_temp, store) = store().await;
    let specs = [spec(&["a"])];
    let task = &begin(&store, chunk(EndpointId::new(), "k", &specs)).await.unwrap()[0];
    let mut result = done(task, 1, Outcome::Succeeded);
    result.stdout = vec![b'x'; 1 << 20].into();
    // The connection that is told so takes no more pages than there are.
    let allow = async |pages: i64| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        let allow = move |write: &mut Write<'_>| write.db.only::<(i64,)>(&pragma, &[]);
        store.record_only("testing", allow, |_| ()).await.unwrap();
    };
    allow(1).await;
    let error = record(&store, std::slice::from_ref(&result), &[], 2000).await.unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(error)).contains("full"));
    allow(1 << 20).await;
    record(&store, &[result], &[], 3000).await.unwrap();
    assert_eq!(state(&store, task.task.id).await, (TaskState::Done(Outcome::Succeeded), Some(1)));
}

#[tokio::test]
async fn a_record_that_was_only_noted_is_on_disk_after_the_next_sync() {
    let (_temp, store) = store().await;
    let begun =
        begin(&store, chunk(EndpointId::new(), "k", &[spec(&["a"]), spec(&["b"])])).await.unwrap();
    let (first, second) = (begun[0].seq, begun[1].seq);
    assert!(store.durability.is_durable(), "a submission is on disk when it is recorded");
    store.note_submitted(vec![(first, 1)], 5).await.unwrap();
    assert!(!store.durability.is_durable());
    store.durable().await.unwrap();
    assert!(store.durability.is_durable());
    store.note_submitted(vec![(second, 1)], 6).await.unwrap();
    begin(&store, chunk(EndpointId::new(), "other", &[spec(&["a"])])).await.unwrap();
    assert!(store.durability.is_durable(), "the sync of a submission is for all before it");
    for one in &begun {
        assert_eq!(state(&store, one.task.id).await.0, TaskState::Submitted);
    }
}
