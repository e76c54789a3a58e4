//! Draws the relatives of a task as a tree. Pure.

use crate::cli::output;
use crate::model::{Family, Relative, TaskState};
use clutch_common::id::TaskId;
use std::collections::BTreeMap;

/// The lines that show a task among its relatives; none where it has none.
pub(super) fn lines(task: TaskId, state: TaskState, family: &Family) -> Vec<String> {
    if family.is_empty() {
        return Vec::new();
    }
    let mut children: BTreeMap<TaskId, Vec<&Relative>> = BTreeMap::new();
    for one in &family.descendants {
        children.entry(one.parent.unwrap_or(task)).or_default().push(one);
    }
    let mut lines = vec!["\nfamily".to_owned()];
    let mut indent = "  ".to_owned();
    if let Some(parent) = family.parent_id {
        let shown = family.parent.as_ref().map(words);
        lines.push(format!("  {}", shown.unwrap_or_else(|| format!("{parent}  forgotten"))));
        indent.push_str("└─ ");
    }
    lines.push(format!("{indent}{task}  {state}  (this task)"));
    let below = indent.replace("└─ ", "   ");
    branches(task, &below, &children, &mut lines);
    if family.more {
        lines.push(format!("{below}… and more"));
    }
    lines
}

/// Adds the lines of the children of a task, each with its own below it.
fn branches(
    parent: TaskId,
    indent: &str,
    children: &BTreeMap<TaskId, Vec<&Relative>>,
    lines: &mut Vec<String>,
) {
    // What is shown is bounded, and so is how deep this goes.
    let own = children.get(&parent).map_or(&[][..], Vec::as_slice);
    for (index, child) in own.iter().enumerate() {
        let is_last = index + 1 == own.len();
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(format!("{indent}{branch}{}", words(child)));
        branches(child.id, &format!("{indent}{below}"), children, lines);
    }
}

fn words(relative: &Relative) -> String {
    let Relative { id, state, name, command, .. } = relative;
    let shown = name.as_ref().or(command.as_ref()).map(|text| output::one_line(text));
    format!("{id}  {state}  {}", shown.unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::task::result::Outcome;
    use uuid::Uuid;

    fn relative(id: u128, parent: Option<u128>, state: TaskState, name: &str) -> Relative {
        let id_of = |number| TaskId(Uuid::from_u128(number));
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        let command = Some("echo 1".to_owned());
        Relative { id: id_of(id), parent: parent.map(id_of), state, name, command }
    }

    #[test]
    fn a_family_is_drawn_from_the_parent_down() {
        let done = TaskState::Done(Outcome::Succeeded);
        let lines = |family: &Family| lines(TaskId(Uuid::from_u128(9)), TaskState::Running, family);
        assert!(lines(&Family::default()).is_empty());
        let parent = relative(1, None, TaskState::Running, "root");
        let family = Family {
            parent_id: Some(parent.id),
            parent: Some(parent),
            descendants: vec![
                relative(2, Some(9), done, ""),
                relative(3, Some(2), TaskState::Submitted, "leaf"),
                relative(4, Some(9), done, ""),
            ],
            more: true,
        };
        let drawn = lines(&family).join("\n").replace("00000000-0000-0000-0000-00000000000", "");
        let expected = [
            "\nfamily",
            "  1  running  root",
            "  └─ 9  running  (this task)",
            "     ├─ 2  succeeded  echo 1",
            "     │  └─ 3  submitted  leaf",
            "     └─ 4  succeeded  echo 1",
            "     … and more",
        ];
        assert_eq!(drawn, expected.join("\n"));
        let orphan = Family { parent: None, ..family };
        assert!(lines(&orphan)[1].ends_with("forgotten"));
    }
}
