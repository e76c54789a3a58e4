//! The shape of every file: a header, a bounded length, nothing unfinished.

use super::{File, must_be_clean, must_complain};

const MAX_LINES: usize = 500;

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
fn nothing_is_left_unfinished() {
    must_be_clean(".rs", unfinished);
    must_complain(unfinished, "a.rs", concat!("fn f() { todo", "!() }"));
    must_complain(unfinished, "a.rs", concat!("#[ig", "nore = \"slow\"]"));
    must_complain(unfinished, "a.rs", concat!("// TO", "DO: later"));
}
