//! Large outputs, from the process that writes them to the service's database:
//! what they cost, and what the daemons keep in memory for few and for many.

use super::Bench;
use super::submissions::submit_alike;
use crate::pair::Pair;
use crate::report::{Row, Side};
use anyhow::{Context as _, Result, ensure};
use std::time::Instant;

/// How much memory twice as many results may take.
const BAR: f64 = 1.1;
/// How many times as many there are in the end.
const SERIES: usize = 4;
/// As much as an output may have.
const SETTINGS: &str = "[engine]\ncapture_limit = 15728640\n";
/// How many tasks run at once.
const SLOTS: usize = 2;
/// The size of an output, and how many times fewer of them there are.
const SIZES: [(usize, usize); 2] = [(1, 1), (15, 20)];
/// The least of them.
const LEAST: usize = 5;

/// The row `payloads`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let about = format!(
        "outputs of text, from `clutch-service submit` until they are recorded, {SLOTS} at a time; \
         resident memory at its peak; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("payloads", about);
    for (mebibytes, fewer) in SIZES {
        let count = (bench.scale.payloads / fewer).max(LEAST);
        let mut pair = Pair::provision(bench.broker()?, SETTINGS)?;
        pair.serve()?;
        pair.run(SLOTS)?;
        let started = Instant::now();
        let mut peaks = Vec::with_capacity(SERIES);
        for series in 1..=SERIES {
            outputs(&pair, &format!("s{series}"), mebibytes, count).await?;
            peaks.push(kept_at_most(&pair)?);
        }
        let speed = (SERIES * mebibytes * count) as f64 / started.elapsed().as_secs_f64();
        pair.stop()?;
        let what = |what: &str| format!("{mebibytes} MiB each: {what}");
        row.add(&what(&format!("{} of them", SERIES * count)), "MiB/s", &[speed]);
        for (who, name) in ["clutch-endpoint", "clutch-service"].into_iter().enumerate() {
            for (series, peaks) in (1..).zip(&peaks) {
                row.add(&what(&format!("{name}, after {}", series * count)), "MB", &[peaks[who]]);
            }
        }
        // The first series does not count: what a daemon keeps anyhow comes with it, and its
        // largest peaks, which are rare, may not.
        row.hold(
            &what(&format!("clutch-endpoint, {} to {}", SERIES * count, SERIES / 2 * count)),
            "ratio",
            &[peaks[SERIES - 1][0] / peaks[SERIES / 2 - 1][0]],
            (Side::AtMost, BAR),
        );
    }
    Ok(row)
}

/// Has so many outputs written, and sees that the first and the last are whole.
async fn outputs(pair: &Pair, key: &str, mebibytes: usize, count: usize) -> Result<()> {
    let size = mebibytes << 20;
    let script = format!("yes 0123456789abcdef0123456789abcdef0123456789abcdef | head -c {size}");
    submit_alike(pair, key, count, &["--", "sh", "-c", &script])?;
    let mut api = pair.api().await?;
    for index in [0, count - 1] {
        let page = api.get(&format!("/v1/results?key={key}&from={index}&limit=1")).await?;
        let result = &page["results"][0]["result"];
        let recorded = result["stdout"].as_str().context("there is no output")?.len();
        ensure!(recorded == size, "task {index}: {recorded} bytes of {size} are recorded");
        ensure!(result["stdout_omitted"].is_null(), "task {index}: something was left out");
    }
    Ok(())
}

/// The most memory that the endpoint and the service used, in megabytes.
fn kept_at_most(pair: &Pair) -> Result<[f64; 2]> {
    let endpoint = pair.daemon.as_ref().context("no endpoint runs")?.peak_memory()?;
    let service = pair.service.as_ref().context("no service runs")?.peak_memory()?;
    Ok([endpoint, service].map(|bytes| bytes as f64 / 1e6))
}
