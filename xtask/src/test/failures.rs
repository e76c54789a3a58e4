//! The failed tests of a run, taken from what `cargo test` prints, line by line, and
//! repeated at the end, where a log that was cut in the middle still has them. Pure.

/// How much of one test's output is repeated.
const LINES: usize = 40;
/// How much of one line.
const WIDTH: usize = 600;
/// How many tests are repeated with their output; of more only the names are.
const TESTS: usize = 25;

/// The failed tests in the order in which they failed.
#[derive(Default, Debug)]
pub(super) struct Failures {
    failed: Vec<Failed>,
    /// The test that the present output is of.
    reading: Option<usize>,
}

#[derive(Debug)]
struct Failed {
    test: String,
    output: Vec<String>,
}

impl Failures {
    /// Takes in a line of what `cargo test` prints.
    pub(super) fn add(&mut self, line: &str) {
        let failed = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
        if let Some(test) = failed {
            let test = test.trim_end_matches(" - should panic").to_owned();
            self.failed.push(Failed { test, output: Vec::new() });
        } else if let Some(test) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.reading = self.failed.iter().rposition(|failed| failed.test == test);
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.reading = None;
        } else if let Some(reading) = self.reading {
            self.failed[reading].output.push(line.chars().take(WIDTH).collect());
        }
    }

    /// The failed tests with their output, as lines; nothing when there are none.
    pub(super) fn told(&self) -> String {
        let lines = self.failed.iter().enumerate().flat_map(|(index, Failed { test, output })| {
            let output = if index < TESTS { excerpt(output) } else { &[] };
            let output = output.iter().map(|line| format!("    {line}\n"));
            std::iter::once(format!("failed: {test}\n")).chain(output)
        });
        lines.collect()
    }
}

/// The first lines of an output, or, where they would not reach the panic, those from
/// the panic on.
fn excerpt(output: &[String]) -> &[String] {
    let panics = |line: &String| line.contains("panicked at ") || line.starts_with("Error: ");
    let panic = output.iter().position(panics).unwrap_or(0);
    let start = if panic + LINES / 4 < LINES { 0 } else { panic };
    let excerpt = &output[start..output.len().min(start + LINES)];
    let end = excerpt.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    &excerpt[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(printed: &str) -> String {
        let mut failures = Failures::default();
        printed.lines().for_each(|line| failures.add(line));
        failures.told()
    }

    #[test]
    fn each_failed_test_is_told_with_its_panic_and_nothing_else() {
        let told = read(
            "running 3 tests\ntest a::good ... ok\ntest a::bad ... FAILED\ntest b::bad ... FAILED\n\
             \nfailures:\n\n---- a::bad stdout ----\nhello\n\nthread 'a::bad' panicked at a.rs:1:\n\
             left != right\n\n---- b::bad stdout ----\nthread 'b::bad' panicked at b.rs:2:\nno\n\n\
             \nfailures:\n    a::bad\n    b::bad\n\ntest result: FAILED. 1 passed; 2 failed\n",
        );
        let expected = "failed: a::bad\n    hello\n    \n    thread 'a::bad' panicked at a.rs:1:\n    \
                        left != right\nfailed: b::bad\n    thread 'b::bad' panicked at b.rs:2:\n    no\n";
        assert_eq!(told, expected);
        assert_eq!(read("test a::good ... ok\ntest result: ok. 1 passed\nfailures:\n"), "");
    }

    #[test]
    fn a_test_of_the_same_name_in_another_package_is_told_apart() {
        let bad =
            |why: &str| format!("test bad ... FAILED\n---- bad stdout ----\n{why}\nfailures:\n");
        assert_eq!(
            read(&(bad("one") + &bad("two"))),
            "failed: bad\n    one\nfailed: bad\n    two\n"
        );
    }

    #[test]
    fn a_panic_is_told_however_much_was_printed_and_what_is_told_is_bounded() {
        let log = "log\n".repeat(1000);
        let long = "x".repeat(10 * WIDTH);
        let told = read(&format!(
            "test bad ... FAILED\n---- bad stdout ----\n{log}thread 'bad' panicked at a.rs:1:\n\
             {long}\n{log}"
        ));
        assert!(told.contains("panicked at a.rs:1:\n    x"), "{told}");
        assert_eq!(told.lines().count(), 1 + LINES);
        assert!(told.len() < 2 * LINES * "    log\n".len() + 2 * WIDTH);

        let many = "test bad ... FAILED\n---- bad stdout ----\nwhy\n".repeat(3 * TESTS);
        let told = read(&many);
        assert_eq!(told.matches("failed: bad").count(), 3 * TESTS);
        assert_eq!(told.matches("why").count(), TESTS);
    }
}
