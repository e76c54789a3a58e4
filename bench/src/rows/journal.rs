//! The disk's own limit: durable files per second, one at a time and several at
//! once. File systems commit what several wait for together.

use super::Bench;
use crate::disk;
use crate::report::Row;
use anyhow::Result;

/// How many files are made at a time.
const AT_ONCE: [usize; 3] = [1, 8, 32];

/// The row `journal-limit`.
pub(super) fn limit(bench: &Bench) -> Result<Row> {
    let about = format!(
        "durable files of 1 KiB (write, sync, rename, sync the folder), on {}",
        bench.folder_file_system()?
    );
    let mut row = Row::new("journal-limit", about);
    for threads in AT_ONCE {
        let each = (bench.scale.probes / threads).max(10);
        let measured: Result<Vec<f64>> = (0..bench.scale.repetitions)
            .map(|_| disk::commits_per_second(&bench.folder, threads, each))
            .collect();
        row.add(&format!("{threads} at once"), "files/s", &measured?);
    }
    Ok(row)
}
