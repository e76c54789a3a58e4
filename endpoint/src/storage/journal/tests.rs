//! The journal: what its commits promise, and what it does when the disk fails.

use super::*;
use crate::system::troubles::Troubles;
use clutch_common::id::{Attempt, EndpointId};
use clutch_common::task::Process;
use std::cell::Cell;
use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::path::Path;
use std::process::{Command as Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const KILLED: &str = "CLUTCH_TEST_JOURNAL_TO_BE_KILLED";

fn config(path: &Path) -> JournalConfig {
    JournalConfig {
        path: path.to_owned(),
        endpoint_id: EndpointId(uuid::Uuid::nil()),
        reserve_bytes: 0,
        seen_max: 1000,
        troubles: Troubles::default(),
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn task() -> Arc<Task> {
    let argv = vec!["true".to_owned()];
    Arc::new(Task::new(
        TaskId::new(),
        Process { argv: argv.into_iter().map(Into::into).collect(), ..Process::default() },
    ))
}

fn tasks(count: usize) -> Vec<Arc<Task>> {
    (0..count).map(|_| task()).collect()
}

fn finished(attempt: Attempt) -> Arc<Finished> {
    Arc::new(Finished { attempt, bytes: attempt.to_string().into_bytes() })
}

async fn durable<T>(submitted: Result<(T, Commit), JournalError>) -> T {
    let (named, commit) = submitted.unwrap();
    commit.await.unwrap();
    named
}

/// A journal, and the sequence numbers that it gives to tasks and results.
struct Numbered {
    journal: Journal,
    next: Cell<(u64, u64)>,
}

/// Opens a journal.
fn numbered(config: JournalConfig) -> (Numbered, Recovered) {
    let (journal, found) = open(config).unwrap();
    let next = Cell::new((found.next_task.0, found.next_out.0));
    (Numbered { journal, next }, found)
}

fn numbered_with(config: JournalConfig, probe: Probe, limit: Duration) -> Numbered {
    let (journal, _) = open_with(config, probe, limit).unwrap();
    Numbered { journal, next: Cell::default() }
}

/// A journal that keeps 1,000 bytes free, on a disk with as many free bytes as the second
/// value says.
fn with_free_bytes(path: &Path, limit: Duration) -> (Numbered, Arc<AtomicU64>) {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let probed = free.clone();
    let probe = Box::new(move || Ok(probed.load(Ordering::Relaxed)));
    let config = JournalConfig { reserve_bytes: 1000, ..config(path) };
    (numbered_with(config, probe, limit), free)
}

impl Deref for Numbered {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.journal
    }
}

impl Numbered {
    async fn accept(&self, tasks: Vec<Arc<Task>>) -> Result<(Vec<Seq>, Commit), JournalError> {
        let room = self.reserve().await?;
        let (seq, out) = self.next.get();
        self.next.set((seq + tasks.len() as u64, out));
        let seqs: Vec<Seq> = (seq..).take(tasks.len()).map(Seq).collect();
        let accept = |(seq, task)| Change::Accept { seq, task, secured: true };
        Ok((seqs.clone(), room.submit(seqs.into_iter().zip(tasks).map(accept).collect())))
    }

    async fn start(&self, seq: Seq) -> Result<Commit, JournalError> {
        Ok(self.reserve().await?.submit(vec![Change::Start { seq }]))
    }

    async fn finish(
        &self,
        inbox: Option<Seq>,
        result: Arc<Finished>,
    ) -> Result<(OutSeq, Commit), JournalError> {
        let room = self.reserve().await?;
        let (seq, out) = self.next.get();
        self.next.set((seq, out + 1));
        let out = OutSeq(out);
        Ok((out, room.submit(vec![Change::Finish { inbox, out, result }])))
    }

    async fn release(&self, out: Vec<OutSeq>) -> Result<Commit, JournalError> {
        let changes = out.into_iter().map(|out| Change::Release { out }).collect();
        Ok(self.reserve().await?.submit(changes))
    }
}

async fn outbox(journal: &Journal) -> Vec<OutSeq> {
    let records = journal.outbox(OutSeq(0), usize::MAX, usize::MAX).await.unwrap();
    records.iter().map(|record| record.seq).collect()
}

#[tokio::test]
async fn what_was_committed_is_there_after_closing() {
    let folder = folder();
    let (journal, found) = numbered(config(folder.path()));
    assert!(found.tasks.is_empty() && found.outbox == 0);
    let tasks = tasks(3);
    let seqs = durable(journal.accept(tasks.clone()).await).await;
    journal.start(seqs[1]).await.unwrap().await.unwrap();
    let out = durable(journal.finish(Some(seqs[0]), finished(tasks[0].attempt())).await).await;
    journal.close().await;
    drop(journal);

    let (journal, again) = numbered(config(folder.path()));
    assert_eq!((again.state_id, again.outbox), (found.state_id, 1));
    let left: Vec<_> = again.tasks.iter().map(|t| (t.seq, &t.task, t.started)).collect();
    assert_eq!(left, [(seqs[1], &*tasks[1], true), (seqs[2], &*tasks[2], false)]);
    let records = journal.outbox(OutSeq(0), 10, 1000).await.unwrap();
    assert_eq!((records[0].seq, records[0].attempt), (out, tasks[0].attempt()));
    assert_eq!(records[0].bytes, tasks[0].attempt().to_string().into_bytes());
    journal.release(vec![out]).await.unwrap().await.unwrap();
    let next = durable(journal.finish(None, finished(task().attempt())).await).await;
    assert!(next > out, "a number is never used again");
    journal.close().await;
}

#[tokio::test]
async fn a_result_can_be_read_as_soon_as_it_is_handed_over_and_in_order() {
    let folder = folder();
    let (journal, _) = numbered(config(folder.path()));
    let mut commits = Vec::new();
    let mut names = Vec::new();
    for _ in 0..600 {
        let (out, commit) = journal.finish(None, finished(task().attempt())).await.unwrap();
        names.push(out);
        commits.push(commit);
    }
    assert_eq!(outbox(&journal).await, names);
    for commit in commits {
        commit.await.unwrap();
    }
    journal.close().await;
}

#[tokio::test]
async fn an_acceptance_is_seen_before_it_is_committed() {
    let folder = folder();
    let (journal, _) = numbered(config(folder.path()));
    let (known, unknown) = (task(), task());
    let (_, commit) = journal.accept(vec![known.clone()]).await.unwrap();
    assert_eq!(journal.seen(known.id).unwrap(), Some(1));
    assert_eq!(journal.seen(unknown.id).unwrap(), None);
    commit.await.unwrap();
    journal.close().await;
}

/// Many at once share commits: 400 accepted, finished and released by as many
/// futures take far fewer syncs than 1,200, and a deadlock would show.
#[tokio::test]
async fn a_crowd_is_committed_together() {
    let folder = folder();
    let groups = Arc::new(AtomicU64::new(0));
    let counted = groups.clone();
    let probe = Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(u64::MAX)
    });
    let journal = numbered_with(config(folder.path()), probe, STALL_LIMIT);
    let one = |task: Arc<Task>| async {
        let attempt = task.attempt();
        let seqs = durable(journal.accept(vec![task]).await).await;
        let out = durable(journal.finish(Some(seqs[0]), finished(attempt)).await).await;
        journal.release(vec![out]).await.unwrap().await.unwrap();
    };
    futures_util::future::join_all(tasks(400).into_iter().map(one)).await;
    assert!(outbox(&journal).await.is_empty());
    let groups = groups.load(Ordering::Relaxed);
    assert!(groups < 200, "{groups} groups for 800 additions");
    journal.close().await;
    drop(journal);
    assert!(open(config(folder.path())).unwrap().1.tasks.is_empty());
}

#[tokio::test]
async fn a_full_disk_holds_additions_back_lets_releases_through_and_goes_on() {
    let folder = folder();
    // Shorter than the wait: waiting for room must not count as a stall.
    let limit = Duration::from_secs(5);
    let (journal, free) = with_free_bytes(folder.path(), limit);
    let out = durable(journal.finish(None, finished(task().attempt())).await).await;

    free.store(999, Ordering::Relaxed);
    let (_, mut held) = journal.accept(tasks(1)).await.unwrap();
    // Stands for what was handed over before it, so it must not overtake it.
    let (_, mut covering) = journal.accept(Vec::new()).await.unwrap();
    // More than a group, and before what makes room.
    let (_, mut large) = journal.accept(vec![huge_task()]).await.unwrap();
    let released = journal.release(vec![out]).await.unwrap();
    tokio::select! {
        biased;
        done = &mut held => panic!("accepted on a full disk: {done:?}"),
        done = &mut large => panic!("accepted on a full disk: {done:?}"),
        done = &mut covering => panic!("claimed to cover what is not on disk: {done:?}"),
        done = released => done.unwrap(),
    }
    assert!(outbox(&journal).await.is_empty());
    let waited = tokio::time::timeout(limit + limit / 4, &mut held).await;
    assert!(waited.is_err(), "not held back: {waited:?}");
    free.store(u64::MAX, Ordering::Relaxed);
    for commit in [held, covering, large] {
        commit.await.unwrap();
    }
    journal.close().await;
}

#[tokio::test]
async fn a_disk_without_any_room_holds_releases_back_too() {
    let folder = folder();
    let (journal, free) = with_free_bytes(folder.path(), STALL_LIMIT);
    let out = durable(journal.finish(None, finished(task().attempt())).await).await;
    free.store(499, Ordering::Relaxed);
    let mut released = journal.release(vec![out]).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(1500), &mut released).await;
    assert!(waited.is_err(), "it was written: {waited:?}");
    free.store(500, Ordering::Relaxed);
    released.await.unwrap();
    journal.close().await;
}

fn huge_task() -> Arc<Task> {
    let process = Process { stdin: vec![b'x'; 4 << 20].into(), ..Process::default() };
    Arc::new(Task::new(TaskId::new(), process))
}

#[tokio::test]
async fn closing_does_not_wait_for_a_full_disk() {
    let folder = folder();
    let mut full = config(folder.path());
    full.reserve_bytes = u64::MAX;
    let journal = numbered_with(full, Box::new(|| Ok(0)), STALL_LIMIT);
    let (_, held) = journal.accept(tasks(1)).await.unwrap();
    journal.close().await;
    assert!(matches!(held.await, Err(JournalError::Closed)));
    assert!(matches!(journal.accept(tasks(1)).await, Err(JournalError::Closed)));
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_for_good() {
    let folder = folder();
    let probe = Box::new(|| Err(std::io::Error::other("the disk is on fire")));
    let journal = numbered_with(config(folder.path()), probe, STALL_LIMIT);
    let (_, commit) = journal.accept(tasks(1)).await.unwrap();
    let told = |error: JournalError| anyhow::Error::from(error).root_cause().to_string();
    assert_eq!(told(commit.await.unwrap_err()), "the disk is on fire");
    let Err(error) = journal.release(Vec::new()).await else { panic!("it went on") };
    assert_eq!(told(error), "the disk is on fire");
    assert!(journal.outbox(OutSeq(0), 1, 1).await.is_err());
    journal.close().await;
}

/// Nothing is durable that the next start would not find at the folder's path.
#[tokio::test]
async fn a_folder_that_is_not_the_one_that_was_opened_takes_nothing() {
    let ways: [fn(&Path); 4] = [
        |state| std::fs::remove_dir_all(state).unwrap(),
        |state| std::fs::rename(state, state.with_extension("moved")).unwrap(),
        |state| std::fs::remove_file(state.join("queue/db")).unwrap(),
        |state| {
            std::fs::rename(state, state.with_extension("moved")).unwrap();
            std::fs::create_dir_all(state.join("queue")).unwrap();
            std::fs::write(state.join("queue/db"), "another").unwrap();
        },
    ];
    for displace in ways {
        let folder = folder();
        let state = folder.path().join("state");
        let (journal, _) = numbered(config(&state));
        durable(journal.accept(tasks(1)).await).await;
        displace(&state);
        let (_, commit) = journal.accept(tasks(1)).await.unwrap();
        let error = commit.await.unwrap_err();
        assert!(matches!(error, JournalError::Displaced { .. }), "{error}");
    }
}

#[tokio::test]
async fn two_journals_cannot_share_a_folder() {
    let folder = folder();
    let (journal, _) = numbered(config(folder.path()));
    let Err(error) = open(config(folder.path())) else { panic!("it opened") };
    assert!(matches!(error, OpenError::Folder(_)));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    journal.close().await;
}

/// Not a test by itself: the process that the next test kills. Prints every task and result
/// that is committed.
#[tokio::test]
async fn accepts_until_killed() {
    let Some(path) = std::env::var_os(KILLED) else { return };
    let (journal, _) = numbered(config(Path::new(&path)));
    loop {
        let mut tasks = tasks(4);
        tasks.push(spooled_task());
        let seqs = durable(journal.accept(tasks.clone()).await).await;
        let result = spooled_result(tasks[0].attempt());
        let out = durable(journal.finish(Some(seqs[0]), result).await).await;
        println!("finished {}", out.0);
        seqs[1..].iter().zip(&tasks[1..]).for_each(|(s, t)| println!("accepted {} {}", s.0, t.id));
    }
}

#[tokio::test]
async fn what_was_committed_survives_kill_9() {
    let folder = folder();
    for enough in [40, 90, 10] {
        let mut child = Child::new(std::env::current_exe().unwrap())
            .args(["--exact", "storage::journal::tests::accepts_until_killed", "--nocapture"])
            .env(KILLED, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed: Vec<String> =
            lines.by_ref().map(Result::unwrap).filter(|line| said(line)).take(enough).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        printed.extend(lines.map_while(Result::ok).filter(|line| said(line)));

        let (journal, found) = numbered(config(folder.path()));
        let mut there: Vec<String> =
            found.tasks.iter().map(|t| format!("accepted {} {}", t.seq.0, t.task.id)).collect();
        let results = journal.outbox(OutSeq(0), usize::MAX, usize::MAX).await.unwrap();
        for result in results {
            assert_eq!(result.bytes, spooled_result(result.attempt).bytes);
            there.push(format!("finished {}", result.seq.0));
        }
        let lost: Vec<_> = printed.iter().filter(|line| !there.contains(line)).collect();
        assert!(printed.len() >= enough && lost.is_empty(), "lost: {lost:?}");
        journal.close().await;
    }
}

/// A task too large for a record.
fn spooled_task() -> Arc<Task> {
    let argv = vec!["x".repeat(3000)];
    Arc::new(Task::new(
        TaskId::new(),
        Process { argv: argv.into_iter().map(Into::into).collect(), ..Process::default() },
    ))
}

/// A result too large for a record.
fn spooled_result(attempt: Attempt) -> Arc<Finished> {
    Arc::new(Finished { attempt, bytes: attempt.to_string().repeat(100).into_bytes() })
}

/// Whether a line is whole and the child's own.
fn said(line: &str) -> bool {
    line.starts_with("finished ") || line.starts_with("accepted ")
}
