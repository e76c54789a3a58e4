//! Round trips per second: one task message there and one result message back,
//! each durable and confirmed, with a window of them under way.

use super::Bench;
use crate::disk;
use crate::driver::Driver;
use crate::echo::{Echo, Place};
use crate::report::{Row, Side};
use crate::site::{Site, WINDOW, folder_url};
use anyhow::{Context as _, Result};
use clutch_common::topology;
use std::path::{Path, PathBuf};
use std::time::Instant;
use uuid::Uuid;

/// The rate that a folder has to reach, in round trips per second.
const BAR: f64 = 2000.0;

/// The row `folder-throughput`.
pub(super) async fn folder(bench: &Bench) -> Result<Row> {
    let about = format!(
        "{} no-op round trips, up to {WINDOW} under way, every file synced; the folder is on {}",
        bench.scale.round_trips,
        bench.folder_file_system()?
    );
    let mut row = Row::new("folder-throughput", about);
    let (mut apart, mut together, mut limit) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tasks, mut results, mut share) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.scale.repetitions {
        let disk = disk::commits_per_second(&bench.folder, 1, bench.scale.probes)?;
        let measured = in_folder(bench, Place::Process).await?;
        limit.push(disk);
        apart.push(measured.per_second);
        tasks.push(bench.scale.round_trips as f64 / measured.task_files);
        results.push(bench.scale.round_trips as f64 / measured.result_files);
        let files = (measured.task_files + measured.result_files) / measured.seconds;
        share.push(files / disk);
        together.push(in_folder(bench, Place::Here).await?.per_second);
    }
    row.hold("two processes", "round trips/s", &apart, (Side::AtLeast, BAR));
    row.add("one process", "round trips/s", &together);
    row.add("two processes: tasks per file", "messages", &tasks);
    row.add("two processes: results per file", "messages", &results);
    row.add("the disk, one file at a time", "durable files/s", &limit);
    row.add("two processes: files written", "of that", &share);
    Ok(row)
}

/// The row `memory-throughput`.
pub(super) async fn memory(bench: &Bench) -> Result<Row> {
    let about = format!("{} no-op round trips, nothing durable", bench.scale.round_trips);
    let mut row = Row::new("memory-throughput", about);
    let mut together = Vec::new();
    for _ in 0..bench.scale.repetitions {
        let site = Site::prepare(&format!("memory:{}", Uuid::now_v7())).await?;
        together.push(on(bench, &site, Place::Here).await?);
    }
    row.add("one process", "round trips/s", &together);
    Ok(row)
}

/// The row `amqp-throughput`.
pub(super) async fn amqp(bench: &Bench) -> Result<Row> {
    let vhost = bench.broker()?.vhost()?;
    let about = format!(
        "{} no-op round trips, up to {WINDOW} under way, persistent and confirmed",
        bench.scale.round_trips
    );
    let mut row = Row::new("amqp-throughput", about);
    let (mut apart, mut together) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.repetitions {
        for (place, measured) in [(Place::Process, &mut apart), (Place::Here, &mut together)] {
            let site = Site::prepare(&vhost.url()).await?;
            measured.push(on(bench, &site, place).await?);
        }
    }
    row.add("two processes", "round trips/s", &apart);
    row.add("one process", "round trips/s", &together);
    Ok(row)
}

async fn on(bench: &Bench, site: &Site, place: Place) -> Result<f64> {
    let echo = Echo::start(site, place).await?;
    let mut driver = Driver::start(site).await?;
    let started = Instant::now();
    driver.round_trips(bench.scale.round_trips, WINDOW).await?;
    driver.acknowledge().await?;
    let seconds = started.elapsed().as_secs_f64();
    echo.finish().await?;
    driver.close().await;
    Ok(bench.scale.round_trips as f64 / seconds)
}

/// One run over a folder.
struct InFolder {
    seconds: f64,
    per_second: f64,
    task_files: f64,
    result_files: f64,
}

async fn in_folder(bench: &Bench, place: Place) -> Result<InFolder> {
    let spool = bench.spool()?;
    let root = spool.path().join("spool");
    let site = Site::prepare(&folder_url(&root, "")?).await?;
    let echo = Echo::start(&site, place).await?;
    let mut driver = Driver::start(&site).await?;
    let started = Instant::now();
    driver.round_trips(bench.scale.round_trips, WINDOW).await?;
    let seconds = started.elapsed().as_secs_f64();
    // The last group of results is not acknowledged, so its file is there.
    let result_files = newest(&root, topology::RESULTS_QUEUE)?;
    driver.acknowledge().await?;
    echo.finish().await?;
    // The file after the last one of the run.
    driver.send_one().await?;
    let task_files = newest(&root, &topology::tasks_queue(site.endpoint))? - 1;
    driver.close().await;
    Ok(InFolder {
        seconds,
        per_second: bench.scale.round_trips as f64 / seconds,
        task_files: task_files as f64,
        result_files: result_files as f64,
    })
}

/// The number of the newest file in a queue of one producer, waiting or claimed:
/// how many there were (`design/0007-filesystem.md`).
fn newest(root: &Path, queue: &str) -> Result<u32> {
    let queue = root.join("queues").join(queue);
    let mut names = Vec::new();
    for part in ["ready", "claimed"] {
        for member in entries(&queue.join(part))? {
            names.extend(entries(&member)?);
        }
    }
    let names = names.iter().filter_map(|path| path.file_name()?.to_str());
    names.filter_map(number).max().with_context(|| format!("no file in {}", queue.display()))
}

/// The number in a file's name: `number…` where it waits, `producer~number…`
/// where it is claimed.
fn number(name: &str) -> Option<u32> {
    let name = name.split_once('~').map_or(name, |(_, name)| name);
    name.split('.').next()?.parse().ok()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = std::fs::read_dir(folder);
    let listing = listing.with_context(|| format!("listing {}", folder.display()))?;
    listing.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_numbers_wherever_they_are() {
        for (name, expected) in [
            ("0000000000000007", Some(7)),
            ("0000000000000007.1.3-9", Some(7)),
            ("01890a5d-ac96-774b-bcce-b302099a8057.1~0000000000000012.1.0-", Some(12)),
            (".writing", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
    }
}
