//! One round trip at a time over a folder, beside what the disk takes for the
//! two durable files in it.

use super::Bench;
use crate::disk;
use crate::driver::Driver;
use crate::echo::{Echo, Place};
use crate::report::{Row, Side};
use crate::site::{Site, folder_url};
use crate::stats::quantile;
use anyhow::Result;
use std::time::Duration;

/// The limit of the median, in milliseconds.
const BAR: f64 = 10.0;

/// The row `folder-latency`.
pub(super) async fn folder(bench: &Bench) -> Result<Row> {
    let about = format!(
        "{} no-op round trips, one at a time, two processes; the folder is on {}",
        bench.scale.sequential,
        bench.folder_file_system()?
    );
    let mut row = Row::new("folder-latency", about);
    let (mut p50, mut p99, mut file, mut ratio) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.scale.repetitions {
        let limit = quantile(&ms(&disk::commits(&bench.folder, bench.scale.probes)?), 0.5);
        let spool = bench.spool()?;
        let site = Site::prepare(&folder_url(&spool.path().join("spool"), "")?).await?;
        let echo = Echo::start(&site, Place::Process).await?;
        let mut driver = Driver::start(&site).await?;
        let times = ms(&driver.round_trips(bench.scale.sequential, 1).await?);
        driver.acknowledge().await?;
        echo.finish().await?;
        driver.close().await;
        p50.push(quantile(&times, 0.5));
        p99.push(quantile(&times, 0.99));
        file.push(limit);
        ratio.push(quantile(&times, 0.5) / (2.0 * limit));
    }
    row.hold("p50", "ms", &p50, (Side::AtMost, BAR));
    row.add("p99", "ms", &p99);
    row.add("the disk, one durable file, p50", "ms", &file);
    row.add("p50 to two durable files", "ratio", &ratio);
    Ok(row)
}

/// Durations in milliseconds.
pub(super) fn ms(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1000.0).collect()
}
