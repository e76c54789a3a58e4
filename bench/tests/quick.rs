//! The benchmarks in small: everything in them works, whatever its speed.

#![allow(clippy::unwrap_used, reason = "tests")]

use clutch_tests::broker::Broker;
use clutch_tests::{binaries, skip};
use serde_json::Value;
use std::process::Command;

/// Measures rows in small; every figure has to be there, and no bar counts.
fn quick(rows: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_clutch-bench"))
        .args(["--quick", "--json", "--folder"])
        .arg(folder.path())
        .args(rows)
        .env(binaries::BIN_DIR, binaries::folder().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(measured["quick"], true);
    let names: Vec<&str> = measured["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, rows);
    for row in measured["rows"].as_array().unwrap() {
        let figures = row["figures"].as_array().unwrap();
        // Few tasks may take less processor time than one tick of its clock.
        let measured = |figure: &Value| figure["max"].as_f64().is_some_and(|max| max > 0.0);
        assert!(!figures.is_empty() && figures.iter().all(measured), "{row}");
        assert_eq!(row["bars"].as_array().map(Vec::len), Some(0), "bars do not count: {row}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_quick_run_measures_every_row_that_needs_no_broker() {
    quick(&[
        "journal-limit",
        "folder-throughput",
        "folder-latency",
        "folder-backlog",
        "memory-throughput",
    ]);
}

#[test]
fn a_quick_run_measures_service_and_endpoint_beside_the_broker() {
    if !Broker::available() {
        let test = "a_quick_run_measures_service_and_endpoint_beside_the_broker";
        return skip::because(test, "there is no RabbitMQ and none can be installed");
    }
    quick(&[
        "amqp-throughput",
        "round-trips",
        "submissions",
        "latency",
        "crowd",
        "processes",
        "calls",
        "memory",
        "payloads",
        "idle",
        "endpoints",
        "outage",
        "queue-depth",
        "forget",
        "waiting",
        "logs",
        "topics",
        "placing",
    ]);
}
