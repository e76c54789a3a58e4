//! House rules that a machine can keep. Each is a function from a file's path
//! and text to complaints, so each is also shown to complain about a bad one.
//! Reads the workspace's files, nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use toml::{Table, Value};

const MAX_LINES: usize = 500;
const PRODUCT: [&str; 3] = ["common/", "endpoint/", "service/"];

/// A foreign world and the only place that may know it. A home ends where a
/// file name or a module folder may go on: `a/b` stands for `a/b.rs`, `a/b/…`
/// and `a/b_….rs`.
const HOMES: [(&str, &[&str]); 6] = [
    ("lapin", &["common/src/link/amqp", "bench/src/bare"]),
    ("sled", &["endpoint/src/storage/disk_queue"]),
    ("rusqlite", &["service/src/store"]),
    ("axum", &["service/src/api", "service/src/serve"]),
    (
        "hyper",
        &[
            "service/src/api/connections",
            "service/src/client/http",
            "service/src/broker/management",
            "bench/src/api",
        ],
    ),
    (
        "hyper_util",
        &[
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

/// A file of the workspace: path relative to its root, and text.
struct File {
    path: String,
    text: String,
}

fn files(ends: &str) -> Vec<File> {
    let root = clutch_tests::workspace();
    let mut found = Vec::new();
    walk(&root, &root, ends, &mut found);
    assert!(!found.is_empty(), "no {ends} files below {}", root.display());
    found
}

fn walk(root: &Path, folder: &Path, ends: &str, found: &mut Vec<File>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                walk(root, &path, ends, found);
            }
            continue;
        }
        let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if path.ends_with(ends) {
            found.push(File { text: std::fs::read_to_string(root.join(&path)).unwrap(), path });
        }
    }
}

fn must_be_clean(ends: &str, rule: impl Fn(&File) -> Vec<String>) {
    let complaints: Vec<String> = files(ends).iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn must_complain(rule: impl Fn(&File) -> Vec<String>, path: &str, text: &str) {
    let file = File { path: path.to_owned(), text: text.to_owned() };
    assert!(!rule(&file).is_empty(), "no complaint about {path}: {text}");
}

fn must_accept(rule: impl Fn(&File) -> Vec<String>, path: &str, text: &str) {
    let file = File { path: path.to_owned(), text: text.to_owned() };
    assert_eq!(rule(&file), Vec::<String>::new(), "{path}: {text}");
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The code of a file without its comments and without its unit tests, as
/// numbered lines.
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

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

fn header(file: &File) -> Vec<String> {
    let good = file.text.starts_with("//! ");
    let complaint = || format!("{}: does not start with a `//!` header", file.path);
    (!good).then(complaint).into_iter().collect()
}

fn length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    let complaint = || format!("{}: {lines} lines, more than {MAX_LINES}", file.path);
    (lines > MAX_LINES).then(complaint).into_iter().collect()
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

fn unfinished(file: &File) -> Vec<String> {
    const MARKS: [&str; 6] = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#![allow(", "warnings"),
    ];
    let lines = file.text.lines().enumerate();
    lines
        .flat_map(|(index, line)| {
            MARKS.iter().filter(move |mark| line.contains(**mark)).map(move |mark| (index, mark))
        })
        .map(|(index, mark)| format!("{}:{}: unfinished: {mark}", file.path, index + 1))
        .collect()
}

/// All sections of a package's manifest that name dependencies.
fn dependencies(manifest: &Table) -> Vec<(&str, &str, &Value)> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(|section| Some((section, manifest.get(section)?.as_table()?)))
        .flat_map(|(section, table)| {
            table.iter().map(move |(name, value)| (section, name.as_str(), value))
        })
        .collect()
}

fn manifest(file: &File) -> Vec<String> {
    let manifest: Table = file.text.parse().unwrap();
    let mut complaints = Vec::new();
    for (section, name, value) in dependencies(&manifest) {
        let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
        if !inherited {
            complaints.push(format!("{}: {name} must be `workspace = true`", file.path));
        }
        let forbidden = match file.path.split('/').next().unwrap_or_default() {
            "common" => ["clutch-endpoint", "clutch-service"],
            "endpoint" => ["clutch-service", "clutch-service"],
            "service" => ["clutch-endpoint", "clutch-endpoint"],
            _ => continue,
        };
        let harness = name == "clutch-tests" && section != "dev-dependencies";
        if forbidden.contains(&name) || harness {
            complaints.push(format!("{}: must not depend on {name}", file.path));
        }
    }
    complaints
}

/// The targets of a Markdown text's links that point into the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        let inside = !target.is_empty() && !target.contains("://") && !target.contains(' ');
        inside.then_some(target)
    })
}

fn records(file: &File) -> Vec<String> {
    let folder = Path::new(&file.path).parent().unwrap();
    let here = clutch_tests::workspace().join(folder);
    let mut complaints: Vec<String> = links(&file.text)
        .filter(|target| !here.join(target).exists())
        .map(|target| format!("{}: the link to {target} leads nowhere", file.path))
        .collect();
    if file.path == "design/README.md" {
        let listed: Vec<&str> = links(&file.text).collect();
        let records = std::fs::read_dir(&here).into_iter().flatten().flatten();
        for name in records.map(|record| record.file_name().to_string_lossy().into_owned()) {
            let record = name.starts_with(|c: char| c.is_ascii_digit());
            if record && !listed.iter().any(|target| target.trim_start_matches("./") == name) {
                complaints.push(format!("{}: does not list {name}", file.path));
            }
        }
    }
    complaints
}

/// The functions that ARCHITECTURE's walk of one task names, each with its module or type.
fn walked(text: &str) -> Vec<(&str, &str)> {
    let walk = text.split("## The walk of one task").nth(1).unwrap_or_default();
    let code = walk.split("```").nth(1).unwrap_or_default();
    code.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)))
        .filter_map(|name| name.trim_matches(':').split_once("::"))
        .collect()
}

/// Whether a file of the product defines such a function, or is the module itself.
fn defines(file: &File, owner: &str, function: &str) -> bool {
    let defined = ["(", "<"].iter().any(|end| file.text.contains(&format!("fn {function}{end}")));
    let of_type = file.text.lines().any(|line| {
        let head = line.starts_with("impl") || line.contains("trait ");
        head && line.split(|c: char| !c.is_alphanumeric()).any(|word| word == owner)
    });
    let in_module =
        file.path.contains(&format!("/{owner}.rs")) || file.path.contains(&format!("/{owner}/"));
    file.path.ends_with(&format!("/{owner}/{function}.rs")) || defined && (of_type || in_module)
}

#[test]
fn the_walk_of_a_task_names_functions_that_there_are() {
    let text = std::fs::read_to_string(clutch_tests::workspace().join("ARCHITECTURE.md")).unwrap();
    let names = walked(&text);
    assert!(names.len() > 10, "the walk is not where it was: {names:?}");
    let sources = files(".rs");
    let product =
        || sources.iter().filter(|file| PRODUCT.iter().any(|at| file.path.starts_with(at)));
    let exists = |owner, function| product().any(|file| defines(file, owner, function));
    for (owner, function) in names {
        assert!(exists(owner, function), "there is no {owner}::{function}");
    }
    for (owner, function) in [("wire", "encode_nothing"), ("Publisher", "accept")] {
        assert!(!exists(owner, function), "{owner}::{function}");
    }
}

#[test]
fn every_file_says_what_it_is() {
    must_be_clean(".rs", header);
    must_complain(header, "a.rs", "use std::fs;\n//! late");
}

#[test]
fn no_file_is_long() {
    must_be_clean(".rs", length);
    must_complain(length, "a.rs", &"\n".repeat(MAX_LINES + 1));
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

#[test]
fn nothing_is_left_unfinished() {
    must_be_clean(".rs", unfinished);
    must_complain(unfinished, "a.rs", concat!("fn f() { todo", "!() }"));
    must_complain(unfinished, "a.rs", concat!("#[ig", "nore = \"slow\"]"));
    must_complain(unfinished, "a.rs", concat!("// TO", "DO: later"));
}

#[test]
fn dependencies_point_the_right_way_and_are_named_once() {
    must_be_clean("/Cargo.toml", manifest);
    let bad = |path: &str, text: &str| must_complain(manifest, path, text);
    bad("endpoint/Cargo.toml", "[dependencies]\nclutch-service.workspace = true");
    bad("service/Cargo.toml", "[dev-dependencies]\nclutch-endpoint.workspace = true");
    bad("common/Cargo.toml", "[dependencies]\nclutch-endpoint.workspace = true");
    bad("common/Cargo.toml", "[dependencies]\nclutch-tests.workspace = true");
    bad("common/Cargo.toml", "[dependencies]\nserde = \"1\"");
    let good = "[dependencies]\nclutch-common.workspace = true\nserde = { workspace = true }\n";
    must_accept(manifest, "endpoint/Cargo.toml", good);
}

#[test]
fn links_lead_somewhere_and_every_design_record_is_listed() {
    must_be_clean(".md", records);
    must_complain(records, "README.md", "see [this](design/9999-nothing.md)");
    must_accept(records, "README.md", "see [that](https://example.org) and [this](Cargo.toml#x)");
    if clutch_tests::workspace().join("design/0002-wire.md").exists() {
        must_complain(records, "design/README.md", "nothing is listed");
    }
}
