//! The benchmarks in small: everything in them works, whatever its speed.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::process::Command;

#[test]
fn a_quick_run_measures_every_row_that_needs_no_broker() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_clutch-bench"))
        .args(["--quick", "--json", "--folder"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(measured["quick"], true);
    let rows = measured["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let folders = ["folder-throughput", "folder-latency", "folder-backlog"];
    assert_eq!(names, [&["journal-limit"][..], &folders, &["memory-throughput"]].concat());
    for row in rows {
        let figures = row["figures"].as_array().unwrap();
        let measured = |figure: &Value| figure["min"].as_f64().is_some_and(|min| min > 0.0);
        assert!(!figures.is_empty() && figures.iter().all(measured), "{row}");
        assert_eq!(row["bars"].as_array().map(Vec::len), Some(0), "bars do not count: {row}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_row_without_its_broker_fails_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_clutch-bench"))
        .args(["--quick", "amqp-throughput"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("amqp-throughput needs --broker"), "{words}");
}
