//! Microbenchmarks: every operation of a task's way that computes, each
//! on a batch. Its inputs are the same on every run, but for the ids that the store
//! makes. Touches the folder it is given.

use anyhow::{Context as _, Result, bail, ensure};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::task::json::Json;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::task::{Call, Process, Task, Work};
use clutch_common::wire;
use clutch_endpoint::bench_api::{Choice, Queue};
use clutch_service::bench_api::Records;
use std::collections::VecDeque;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

/// How many tasks an operation has in a pass: as many as a message.
pub(crate) const BATCH: usize = 100;

/// The operations.
pub(crate) const NAMES: [&str; 8] = [
    "encode-tasks",
    "decode-tasks",
    "encode-results",
    "decode-results",
    "choose",
    "disk-queue",
    "begin",
    "record",
];

const ENDPOINT: EndpointId = EndpointId(Uuid::from_u128(1));
const FUNCTION: &str = "simulate";
/// An hour in 2026.
const NOW_MS: u64 = 1_790_000_000_000;

/// One operation.
pub(crate) trait Operation {
    /// Makes what one pass needs.
    fn prepare(&mut self) -> Result<()>;
    /// Does it once to a batch.
    fn pass(&mut self) -> Result<()>;
}

/// An operation by its name, with what it keeps in a folder.
pub(crate) fn open(name: &str, folder: &Path) -> Result<Box<dyn Operation>> {
    let tasks: Vec<Task> = (1..=BATCH).map(task).collect();
    let results: Vec<TaskResult> = tasks.iter().map(|task| result(task.attempt())).collect();
    let bodies = results.iter().map(wire::encode_result).collect::<Vec<_>>();
    let runtime = || Builder::new_current_thread().enable_all().build();
    Ok(match name {
        "encode-tasks" => pure(move || {
            let bodies: Vec<Vec<u8>> = tasks.iter().map(wire::encode_task).collect();
            wire::pack_tasks(&bodies).len()
        }),
        "decode-tasks" => {
            let body = wire::encode_tasks(&tasks.iter().collect::<Vec<_>>());
            pure(move || wire::decode_tasks(&body, None).tasks.len())
        }
        "encode-results" => pure(move || {
            let bodies: Vec<Vec<u8>> = results.iter().map(wire::encode_result).collect();
            wire::pack_results(ENDPOINT, &bodies).len()
        }),
        "decode-results" => {
            let body = wire::pack_results(ENDPOINT, &bodies);
            pure(move || wire::decode_results(&body).results.len())
        }
        "choose" => {
            let tasks: Vec<Arc<Task>> = tasks.into_iter().map(Arc::new).collect();
            let mut choice = Choice::new(FUNCTION);
            pure(move || choice.pass(&tasks))
        }
        "disk-queue" => {
            let queue = Queue::open(&folder.join("queue"))?;
            Box::new(Disk { queue, made: 0, batches: VecDeque::new() })
        }
        "begin" => {
            let runtime = runtime()?;
            let records = runtime.block_on(Records::open(folder, ENDPOINT))?;
            Box::new(Begin { runtime, records })
        }
        "record" => {
            let runtime = runtime()?;
            let records = runtime.block_on(Records::open(folder, ENDPOINT))?;
            Box::new(Record { runtime, records, batches: VecDeque::new() })
        }
        other => bail!("there is no operation '{other}'"),
    })
}

/// Every fourth task is a call.
fn task(number: usize) -> Task {
    let work = if number.is_multiple_of(4) {
        Work::Call(Call::new(FUNCTION, Json::empty_array()))
    } else {
        Work::Process(Process {
            argv: argv().into_iter().map(Into::into).collect(),
            ..Process::default()
        })
    };
    Task::of(TaskId(Uuid::from_u128(number as u128)), work)
}

fn argv() -> Vec<String> {
    ["simulate", "--steps", "1000", "--output", "/scratch/run/17"].map(str::to_owned).to_vec()
}

fn result(attempt: Attempt) -> TaskResult {
    TaskResult {
        exit_code: Some(0),
        reason: None,
        stdout: b"converged after 17 steps\n".to_vec().into(),
        started_at_ms: Some(NOW_MS),
        cpu_ms: Some(12),
        peak_memory_bytes: Some(12_345_678),
        ..TaskResult::not_run(attempt, Outcome::Succeeded, String::new(), ENDPOINT, NOW_MS + 15)
    }
}

/// An operation that needs nothing prepared.
fn pure(work: impl FnMut() -> usize + 'static) -> Box<dyn Operation> {
    Box::new(Pure { work })
}

struct Pure<W> {
    work: W,
}

impl<W: FnMut() -> usize> Operation for Pure<W> {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn pass(&mut self) -> Result<()> {
        let done = black_box((self.work)());
        ensure!(done >= BATCH, "{done} of {BATCH} were done");
        Ok(())
    }
}

/// The endpoint's disk queue: accepted, finished, released.
struct Disk {
    queue: Queue,
    made: usize,
    batches: VecDeque<(Vec<Arc<Task>>, Vec<TaskResult>)>,
}

impl Operation for Disk {
    fn prepare(&mut self) -> Result<()> {
        let numbers = self.made + 1..=self.made + BATCH;
        let tasks: Vec<Arc<Task>> = numbers.map(task).map(Arc::new).collect();
        let results = tasks.iter().map(|task| result(task.attempt())).collect();
        self.made += BATCH;
        self.batches.push_back((tasks, results));
        Ok(())
    }

    fn pass(&mut self) -> Result<()> {
        let (tasks, results) = self.batches.pop_front().context("nothing is prepared")?;
        self.queue.pass(&tasks, &results)
    }
}

/// The service records what is submitted.
struct Begin {
    runtime: Runtime,
    records: Records,
}

impl Operation for Begin {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn pass(&mut self) -> Result<()> {
        self.runtime.block_on(self.records.begin(&argv(), BATCH)).map(drop)
    }
}

/// The service records what became of it.
struct Record {
    runtime: Runtime,
    records: Records,
    batches: VecDeque<Vec<TaskResult>>,
}

impl Operation for Record {
    fn prepare(&mut self) -> Result<()> {
        let attempts = self.runtime.block_on(self.records.begin(&argv(), BATCH))?;
        self.batches.push_back(attempts.into_iter().map(result).collect());
        Ok(())
    }

    fn pass(&mut self) -> Result<()> {
        let results = self.batches.pop_front().context("nothing is prepared")?;
        self.runtime.block_on(self.records.record(results))
    }
}
