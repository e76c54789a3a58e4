//! Documents: links lead somewhere, the list of records is complete, and every step of
//! the walk exists.

use super::{File, PRODUCT, files, must_accept, must_be_clean, must_complain, workspace_text};
use std::path::Path;

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
    let text = workspace_text("ARCHITECTURE.md");
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

/// The files and folders of the repository that a text names in backticks.
fn places(text: &str) -> impl Iterator<Item = &str> {
    const PACKAGES: [&str; 7] =
        ["common/", "endpoint/", "service/", "tests/", "bench/", "xtask/", "python/"];
    let code = text.split('`').skip(1).step_by(2);
    code.filter(|code| PACKAGES.iter().any(|package| code.starts_with(package)))
        .filter(|code| !code.contains([' ', '*']))
}

#[test]
fn the_places_that_the_map_names_exist() {
    let text = workspace_text("ARCHITECTURE.md");
    let missing: Vec<&str> =
        places(&text).filter(|place| !clutch_tests::workspace().join(place).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names {missing:?}, which are not there");
    let found: Vec<&str> = places("`common/` and `tests/no.rs`, not `a b` nor `api/`").collect();
    assert_eq!(found, ["common/", "tests/no.rs"]);
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

/// Complaints about lines of a recorded page that name the folder of a build.
fn built_in(file: &File) -> Vec<String> {
    let recorded = ["BENCHMARKS.md", "FAULTS.md"].contains(&file.path.as_str());
    let lines = file.text.lines().enumerate().filter(|(_, line)| line.contains("/target/"));
    lines
        .filter(|_| recorded)
        .map(|(index, _)| format!("{}:{}: names a folder of a machine", file.path, index + 1))
        .collect()
}

#[test]
fn recorded_pages_name_no_folder_of_a_machine() {
    must_be_clean(".md", built_in);
    must_complain(built_in, "BENCHMARKS.md", "ext4 at /home/a/clutch/target/release.");
    must_accept(built_in, "README.md", "it is built in a/target/release");
}
