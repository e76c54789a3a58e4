//! When the demonstration causes its faults, and whether its results prove that nothing was
//! lost. Pure.

use super::narrator::{count, several};
use clutch_common::id::TaskId;
use serde::Serialize;
use std::collections::BTreeMap;

/// How many differences are described.
const TOLD: usize = 3;

/// When the faults come, by the number of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FaultSchedule {
    /// The link is cut when so many results are recorded: a quarter, at least one.
    pub(super) cut_at: u64,
    /// The endpoint is killed when so many tasks have started without a link: a
    /// fifth, at least one.
    pub(super) alone: usize,
}

impl FaultSchedule {
    /// The schedule for so many tasks.
    #[must_use]
    pub(super) fn over(tasks: usize) -> Self {
        Self { cut_at: (tasks as u64 / 4).max(1), alone: (tasks / 5).max(1) }
    }
}

/// A task as the service records it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The task.
    pub(super) id: TaskId,
    /// Its output, if it succeeded; else how it ended.
    pub(super) output: Result<Vec<u8>, String>,
    /// How often its result arrived again.
    pub(super) duplicates: u64,
}

/// The expected output of a task: that of `sha256sum`, run directly.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The task.
    pub(super) id: TaskId,
    /// The file it sums.
    pub(super) file: String,
    /// The output for that file.
    pub(super) line: Vec<u8>,
}

/// How the recorded outputs compare with the expected ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// How many tasks have a recorded result.
    pub(super) recorded: usize,
    /// How many tasks are recorded more than once, or were never submitted.
    pub(super) surplus: usize,
    /// How many outputs are as expected.
    pub(super) equal: usize,
    /// How many results arrived again, and were not recorded again.
    pub(super) absorbed: u64,
    /// The first few differences, in words.
    pub(super) differences: Vec<String>,
}

/// Compares the recorded outputs, task by task, with the expected ones.
#[must_use]
pub(super) fn compare(expected: &[Expected], records: &[Record]) -> Compared {
    let mut by_task: BTreeMap<TaskId, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_task.entry(record.id).or_default().push(record);
    }
    let mut compared = Compared {
        absorbed: records.iter().map(|record| record.duplicates).sum(),
        ..Compared::default()
    };
    for Expected { id, file, line } in expected {
        let found = by_task.remove(id).unwrap_or_default();
        compared.surplus += found.len().saturating_sub(1);
        compared.recorded += usize::from(!found.is_empty());
        let difference = match found.first().map(|record| &record.output) {
            Some(Ok(output)) if output == line => {
                compared.equal += 1;
                continue;
            }
            Some(Ok(output)) => format!("its task printed {}", shown(output)),
            Some(Err(how)) => format!("its task ended as {how}"),
            None => "its task has no result".to_owned(),
        };
        if compared.differences.len() < TOLD {
            compared
                .differences
                .push(format!("{file}: {difference}, and sha256sum prints {}", shown(line)));
        }
    }
    compared.surplus += by_task.values().map(Vec::len).sum::<usize>();
    compared
}

fn shown(output: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(output).trim_end())
}

/// The counts from the service's records, from the tasks' own log of starts, and from the
/// comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ProofCounts {
    /// How many files were found, one task each.
    pub(super) files: usize,
    /// How many tasks the service confirmed.
    pub(super) submitted: usize,
    /// How many of those have a recorded result.
    pub(super) recorded: usize,
    /// How many results are recorded beyond one per task.
    pub(super) surplus: usize,
    /// How many outputs are as expected.
    pub(super) equal: usize,
    /// How many results arrived again and were not recorded again.
    pub(super) absorbed: u64,
    /// How many tasks started.
    pub(super) started: usize,
    /// How many starts there were beyond the first of a task.
    pub(super) started_again: usize,
    /// How many tasks the endpoint runs at once.
    pub(super) slots: usize,
    /// How many tasks started while the link was cut and before the kill.
    pub(super) started_while_cut: usize,
    /// How many of those the service knew a result of before the mending.
    pub(super) known_while_cut: usize,
    /// How many results the endpoint found on its disk after the kill.
    pub(super) results_on_disk: u64,
    /// How many tasks the endpoint found on its disk after the kill.
    pub(super) tasks_on_disk: u64,
    /// The exit codes of service and endpoint after TERM; none where they are left running.
    pub(super) exit_codes: Option<[i32; 2]>,
}

impl ProofCounts {
    /// The rules that these numbers break, in words. Without any, they are the proof.
    #[must_use]
    pub(super) fn complaints(&self) -> Vec<String> {
        let all = several(self.files, "file");
        let rules = [
            (
                self.submitted == self.files,
                format!("{} submitted for {all}", several(self.submitted, "task")),
            ),
            (
                self.recorded == self.files,
                format!("{} with a result, of {all}", several(self.recorded, "task")),
            ),
            (self.surplus == 0, format!("{} too many", several(self.surplus, "result"))),
            (
                self.equal == self.files,
                format!(
                    "{} equal to what sha256sum prints, of {all}",
                    several(self.equal, "result")
                ),
            ),
            (
                self.started == self.files,
                format!("{} started, of {all}", several(self.started, "task")),
            ),
            (
                self.started_again <= self.slots,
                format!(
                    "{} repeated; a kill may repeat what was running, {} at most",
                    several(self.started_again, "start"),
                    self.slots
                ),
            ),
            (
                self.known_while_cut == 0,
                format!(
                    "the service knew {} that cannot have reached it: the link was not cut",
                    several(self.known_while_cut, "result")
                ),
            ),
            (
                self.exit_codes.is_none_or(|codes| codes == [0, 0]),
                format!("told to stop, service and endpoint ended with {:?}", self.exit_codes),
            ),
        ];
        rules.into_iter().filter(|(holds, _)| !holds).map(|(_, words)| words).collect()
    }

    /// The proof in a sentence, if no rule is broken.
    #[must_use]
    pub(super) fn sentence(&self) -> String {
        let each = count(self.files);
        format!("{each} submitted = {each} recorded = {each} equal; every task has one result")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(files: usize) -> Vec<Expected> {
        (0..files)
            .map(|n| Expected {
                id: TaskId::new(),
                file: format!("/f{n}"),
                line: format!("{n}  /f{n}\n").into_bytes(),
            })
            .collect()
    }

    fn right(expected: &[Expected]) -> Vec<Record> {
        expected
            .iter()
            .map(|one| Record { id: one.id, output: Ok(one.line.clone()), duplicates: 1 })
            .collect()
    }

    fn good() -> ProofCounts {
        ProofCounts {
            files: 8,
            submitted: 8,
            recorded: 8,
            equal: 8,
            started: 8,
            started_again: 2,
            slots: 2,
            started_while_cut: 3,
            ..ProofCounts::default()
        }
    }

    #[test]
    fn any_number_of_tasks_has_a_fault_schedule() {
        for (tasks, cut_at, alone) in [(1, 1, 1), (3, 1, 1), (300, 75, 60), (2000, 500, 400)] {
            assert_eq!(FaultSchedule::over(tasks), FaultSchedule { cut_at, alone });
        }
    }

    #[test]
    fn equal_records_in_any_order_are_equal() {
        let expected = expected(3);
        let mut records = right(&expected);
        records.reverse();
        let compared = Compared { recorded: 3, equal: 3, absorbed: 3, ..Compared::default() };
        assert_eq!(compare(&expected, &records), compared);
    }

    #[test]
    fn missing_wrong_failed_and_surplus_results_are_described() {
        let expected = expected(3);
        let mut records = right(&expected);
        records[0].output = Ok(b"beef  /f0\n".to_vec());
        records[1].output = Err("failed (exit code 1)".to_owned());
        let twice = records[0].clone();
        records[2] = twice;
        records.push(Record { id: TaskId::new(), output: Ok(Vec::new()), duplicates: 0 });
        let compared = compare(&expected, &records);
        assert_eq!((compared.recorded, compared.equal, compared.surplus), (2, 0, 2));
        let told = compared.differences.join("\n");
        for words in ["/f0: its task printed \"beef", "failed (exit code 1)", "has no result"] {
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_proof_has_no_complaints_and_each_broken_rule_is_one() {
        assert_eq!(good().complaints(), Vec::<String>::new());
        let bad = [
            ProofCounts { submitted: 7, ..good() },
            ProofCounts { recorded: 7, ..good() },
            ProofCounts { surplus: 1, ..good() },
            ProofCounts { equal: 7, ..good() },
            ProofCounts { started: 7, ..good() },
            ProofCounts { started_again: 3, ..good() },
            ProofCounts { known_while_cut: 1, ..good() },
            ProofCounts { exit_codes: Some([0, 70]), ..good() },
        ];
        for counts in bad {
            assert_eq!(counts.complaints().len(), 1, "{counts:?}");
        }
    }
}
