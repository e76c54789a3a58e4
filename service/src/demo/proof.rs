//! What the demonstration plans and what it proves: numbers in, words out. Pure.

use super::tell::{count, several};
use clutch_common::id::TaskId;
use serde::Serialize;
use std::collections::BTreeMap;

/// How many differences are told in full.
const TOLD: usize = 3;

/// When what happens, by the number of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The link is cut when so many results are recorded: a quarter, at least
    /// one.
    pub(super) cut_at: u64,
    /// The endpoint is killed when so many tasks have started without a link: a
    /// fifth, at least one.
    pub(super) alone: usize,
}

impl Plan {
    /// The plan for so many tasks.
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
    /// What it printed, if it succeeded; else how it ended.
    pub(super) output: Result<Vec<u8>, String>,
    /// How often its result arrived again.
    pub(super) duplicates: u64,
}

/// What was computed directly for a task.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    /// The task.
    pub(super) id: TaskId,
    /// The file it sums.
    pub(super) file: String,
    /// What `sha256sum` prints for that file.
    pub(super) line: Vec<u8>,
}

/// How the records compare with the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// How many tasks have a recorded result.
    pub(super) recorded: usize,
    /// How many tasks are recorded more than once, or were never submitted.
    pub(super) surplus: usize,
    /// How many tasks printed what was computed directly.
    pub(super) equal: usize,
    /// How many results arrived again, and were not recorded again.
    pub(super) absorbed: u64,
    /// What differs, in words: the first few.
    pub(super) differences: Vec<String>,
}

/// Compares the recorded outputs, task by task, with the truth.
#[must_use]
pub(super) fn compare(truth: &[Truth], records: &[Record]) -> Compared {
    let mut by_task: BTreeMap<TaskId, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_task.entry(record.id).or_default().push(record);
    }
    let mut compared = Compared {
        absorbed: records.iter().map(|record| record.duplicates).sum(),
        ..Compared::default()
    };
    for Truth { id, file, line } in truth {
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

/// What was counted, from the service's records, the tasks' own witness, and the
/// direct computation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// How many files were found, one task each.
    pub(super) files: usize,
    /// How many tasks the service confirmed.
    pub(super) submitted: usize,
    /// How many of those have a recorded result.
    pub(super) recorded: usize,
    /// How many results are recorded beyond one per task.
    pub(super) surplus: usize,
    /// How many outputs equal what was computed directly.
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
    /// The exit codes of service and endpoint, told to stop; nothing where they
    /// are left running.
    pub(super) exit_codes: Option<[i32; 2]>,
}

impl Counts {
    /// What keeps these numbers from being the proof; nothing where they are.
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

    /// The proof in a sentence, where there are no complaints.
    #[must_use]
    pub(super) fn sentence(&self) -> String {
        let each = count(self.files);
        format!("{each} submitted = {each} recorded = {each} equal; every task has one result")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(files: usize) -> Vec<Truth> {
        (0..files)
            .map(|n| Truth {
                id: TaskId::new(),
                file: format!("/f{n}"),
                line: format!("{n}  /f{n}\n").into_bytes(),
            })
            .collect()
    }

    fn right(truth: &[Truth]) -> Vec<Record> {
        truth
            .iter()
            .map(|one| Record { id: one.id, output: Ok(one.line.clone()), duplicates: 1 })
            .collect()
    }

    fn good() -> Counts {
        Counts {
            files: 8,
            submitted: 8,
            recorded: 8,
            equal: 8,
            started: 8,
            started_again: 2,
            slots: 2,
            started_while_cut: 3,
            ..Counts::default()
        }
    }

    #[test]
    fn the_plan_has_something_to_show_for_any_number_of_tasks() {
        for (tasks, cut_at, alone) in [(1, 1, 1), (3, 1, 1), (300, 75, 60), (2000, 500, 400)] {
            assert_eq!(Plan::over(tasks), Plan { cut_at, alone });
        }
    }

    #[test]
    fn equal_records_in_any_order_are_equal() {
        let truth = truth(3);
        let mut records = right(&truth);
        records.reverse();
        let expected = Compared { recorded: 3, equal: 3, absorbed: 3, ..Compared::default() };
        assert_eq!(compare(&truth, &records), expected);
    }

    #[test]
    fn what_is_missing_or_wrong_or_failed_or_too_much_is_told() {
        let truth = truth(3);
        let mut records = right(&truth);
        records[0].output = Ok(b"beef  /f0\n".to_vec());
        records[1].output = Err("failed (exit code 1)".to_owned());
        let twice = records[0].clone();
        records[2] = twice;
        records.push(Record { id: TaskId::new(), output: Ok(Vec::new()), duplicates: 0 });
        let compared = compare(&truth, &records);
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
            Counts { submitted: 7, ..good() },
            Counts { recorded: 7, ..good() },
            Counts { surplus: 1, ..good() },
            Counts { equal: 7, ..good() },
            Counts { started: 7, ..good() },
            Counts { started_again: 3, ..good() },
            Counts { known_while_cut: 1, ..good() },
            Counts { exit_codes: Some([0, 70]), ..good() },
        ];
        for counts in bad {
            assert_eq!(counts.complaints().len(), 1, "{counts:?}");
        }
    }
}
