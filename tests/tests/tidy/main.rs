//! House rules that a machine can keep. Each is a function from a file's path
//! and text to complaints, so each is also shown to complain about a bad one.
//! Reads the workspace's files, nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod arrows;
mod documents;
mod homes;
mod manifests;
mod modules;
mod shape;
mod words;

use std::path::Path;

const PRODUCT: [&str; 3] = ["common/", "endpoint/", "service/"];

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

/// The text of one file.
fn workspace_text(path: &str) -> String {
    std::fs::read_to_string(clutch_tests::workspace().join(path)).unwrap()
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
