//! Foreign worlds (lapin, sled, SQL, hyper, processes) live in one place each.

use super::{File, PRODUCT, code, is_test, must_accept, must_be_clean, must_complain};

/// A foreign world and the only place that may know it. A home ends where a
/// file name or a module folder may go on: `a/b` stands for `a/b.rs`, `a/b/…`
/// and `a/b_….rs`.
const HOMES: [(&str, &[&str]); 7] = [
    ("lapin", &["common/src/link/amqp", "bench/src/bare"]),
    ("sled", &["endpoint/src/storage/disk_queue/sled_store.rs"]),
    ("rusqlite", &["service/src/store/sqlite"]),
    ("postgres", &["service/src/store/postgres"]),
    ("axum", &["service/src/api", "service/src/serve"]),
    (
        "hyper",
        &[
            "endpoint/src/local/client",
            "endpoint/src/local/server",
            "service/src/api/connections",
            "service/src/client/http",
            "service/src/broker/management",
            "bench/src/api",
        ],
    ),
    (
        "hyper_util",
        &[
            "endpoint/src/local/client",
            "endpoint/src/local/server",
            "service/src/api/connections",
            "service/src/client/http",
            "service/src/broker/management",
            "bench/src/api",
        ],
    ),
];
/// Starts processes: the endpoint, which runs tasks, and the service's
/// demonstration, which plays both daemons and kills one of them.
const PROCESS_HOMES: [&str; 2] =
    ["endpoint/src/execution/os/spawn.rs", "service/src/demo/processes.rs"];
/// May speak of them.
const PROCESS_WORLD: &str = "endpoint/src/execution";
const SQL_HOME: &str = "service/src/store";

/// Whether a line names a crate in a path: `name::…`, `use name;`, `use name as`.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        let starts = !before.is_some_and(|c| c.is_alphanumeric() || "_-\"".contains(c));
        let goes_on = after.starts_with("::")
            || line.trim_start().starts_with("use ") && after.starts_with([';', ' ']);
        starts && goes_on
    })
}

fn homes(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, homes) in HOMES {
        if is_test(&file.path) || homes.iter().any(|home| file.path.starts_with(home)) {
            continue;
        }
        for (number, line) in code(file).filter(|(_, line)| names_crate(line, name)) {
            complaints.push(format!("{}:{number}: {name} is not at home here: {line}", file.path));
        }
    }
    complaints
}

fn processes(file: &File) -> Vec<String> {
    let product = PRODUCT.iter().any(|package| file.path.starts_with(package));
    if !product || is_test(&file.path) || PROCESS_HOMES.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let starts = |line: &str| {
        line.contains("Command::new(")
            || line.contains("tokio::process")
            || line.contains("nix::spawn")
    };
    let names = |line: &str| line.contains("process::Command");
    let stranger = !file.path.starts_with(PROCESS_WORLD);
    code(file)
        .filter(|(_, line)| starts(line) || stranger && names(line))
        .map(|(number, _)| {
            let homes = PROCESS_HOMES.join(" and ");
            format!("{}:{number}: only {homes} start processes", file.path)
        })
        .collect()
}

fn sql(file: &File) -> Vec<String> {
    let product = PRODUCT.iter().any(|package| file.path.starts_with(package));
    if !product || file.path.starts_with(SQL_HOME) {
        return Vec::new();
    }
    const WORDS: [&str; 5] =
        ["SELECT ", "INSERT INTO ", "DELETE FROM ", "CREATE TABLE ", "PRAGMA "];
    code(file)
        .filter(|(_, line)| WORDS.iter().any(|word| line.contains(word)))
        .map(|(number, _)| format!("{}:{number}: SQL belongs to {SQL_HOME}", file.path))
        .collect()
}

#[test]
fn every_foreign_world_has_one_home() {
    must_be_clean(".rs", homes);
    for bad in
        ["use lapin::Channel;", "    lapin::Connection::connect()", "use lapin;", "x(sled::open)"]
    {
        must_complain(homes, "endpoint/src/execution/engine.rs", bad);
    }
    must_complain(homes, "service/src/serve.rs", "use rusqlite::Row;");
    must_accept(homes, "common/src/link/amqp/inlet.rs", "use lapin::Consumer;");
    must_accept(homes, "common/src/log.rs", r#"EnvFilter::new("info,lapin=error")"#);
    must_accept(
        homes,
        "endpoint/src/execution/engine.rs",
        "// unlike sled::Db\nuse crate::tussled::A;",
    );
}

#[test]
fn processes_start_in_their_places_only() {
    must_be_clean(".rs", processes);
    must_complain(processes, "service/src/serve.rs", "use std::process::Command;");
    must_complain(
        processes,
        "endpoint/src/execution/engine.rs",
        "tokio::process::Command::new(\"a\")",
    );
    must_complain(processes, "endpoint/src/execution/os/terminate.rs", "Command::new(\"kill\")");
    must_complain(processes, "service/src/demo/stage.rs", "Command::new(\"kill\")");
    for home in PROCESS_HOMES {
        must_accept(processes, home, "Command::new(program)");
    }
    must_accept(
        processes,
        "endpoint/src/execution/os/spawn_error.rs",
        "use std::process::Command;",
    );
    must_accept(processes, "xtask/src/ci.rs", "use std::process::Command;");
}

#[test]
fn sql_is_spoken_in_one_place() {
    must_be_clean(".rs", sql);
    must_complain(sql, "service/src/api.rs", r#"query("SELECT 1")"#);
    must_accept(sql, "service/src/store/tasks.rs", r#"query("SELECT 1")"#);
}
