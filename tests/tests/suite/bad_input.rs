//! Bad input, as a table: what is given, what the user sees, and how the
//! program ends. After every row the daemon still does its work.

mod at_the_broker;
mod at_the_endpoint;
mod at_the_service;

use clutch_tests::process::Output;
use clutch_tests::world::World;

/// One kind of bad input.
pub(crate) struct Row {
    /// The input.
    pub(crate) input: &'static str,
    /// The output.
    pub(crate) seen: Output,
    /// The expected exit code.
    pub(crate) code: i32,
    /// Words that must be in the output.
    pub(crate) words: &'static [&'static str],
}

impl Row {
    fn complaint(&self) -> Option<String> {
        let said = format!("{}{}", self.seen.stderr, self.seen.text());
        let missing: Vec<&&str> = self.words.iter().filter(|word| !said.contains(**word)).collect();
        let wrong = self.seen.code != self.code || !missing.is_empty();
        wrong.then(|| {
            format!(
                "{}: exit code {} instead of {}, missing words {missing:?} in: {said}",
                self.input, self.seen.code, self.code
            )
        })
    }

    /// The text that a person reads: the message of the last log line, or
    /// the last lines as they are.
    fn words_seen(&self) -> String {
        let last = self.seen.stderr.lines().last().unwrap_or_default();
        match serde_json::from_str::<serde_json::Value>(last) {
            Ok(line) => line["message"].as_str().unwrap_or(last).to_owned(),
            Err(_) => self.seen.stderr.trim().replace('\n', " / "),
        }
    }
}

/// Prints the table and fails if a row is not as it should be.
pub(crate) fn judge(rows: &[Row]) {
    for row in rows {
        println!("{:<44} {:>3}  {}", row.input, row.seen.code, row.words_seen());
    }
    let complaints: Vec<String> = rows.iter().filter_map(Row::complaint).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The daemon of the endpoint `lab` still does its work.
pub(crate) fn still_works(world: &World, after: &str) {
    let done = world.service(&["submit", "lab", "--wait", "--", "true"]).unwrap();
    assert_eq!(done.code, 0, "after {after}: {}", done.stderr);
}

#[test]
fn a_row_is_judged_by_code_and_by_words() {
    let row = |code, stderr: &str| Row {
        input: "x",
        seen: Output { code, stdout: Vec::new(), stderr: stderr.to_owned() },
        code: 64,
        words: &["bad", "thing"],
    };
    assert_eq!(row(64, "a bad thing").complaint(), None);
    assert!(row(1, "a bad thing").complaint().is_some());
    assert!(row(64, "a bad day").complaint().is_some());
    assert_eq!(row(64, r#"{"message":"oh"}"#).words_seen(), "oh");
}
