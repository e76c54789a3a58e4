//! Packs tasks into messages. Pure, except that each message gets a random id.

use clutch_common::id::TaskId;
use clutch_common::link::Message;
use clutch_common::wire;
use std::ops::Range;
use uuid::Uuid;

/// The most tasks in one message: an endpoint's prefetch counts messages, and
/// should mean something.
pub(crate) const MAX_TASKS: usize = 100;
/// The size, in bytes, that a message of several tasks does not exceed.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// A message and the tasks in it, as positions in what was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// The message.
    pub(crate) message: Message,
    /// The tasks.
    pub(crate) tasks: Range<usize>,
}

/// A task to pack: its id, and it as it travels.
pub(crate) type Part<'a> = (TaskId, &'a str);

/// Packs tasks in order.
#[must_use]
pub(crate) fn pack(tasks: &[Part<'_>], now_ms: u64) -> Vec<Packed> {
    let mut packed = Vec::new();
    let mut first = 0;
    let mut bytes = 0;
    for (index, (_, body)) in tasks.iter().enumerate() {
        let full = index - first == MAX_TASKS || bytes + body.len() > MAX_BYTES;
        if index > first && full {
            packed.extend(message(tasks, first..index, now_ms));
            first = index;
            bytes = 0;
        }
        bytes += body.len();
    }
    packed.extend(message(tasks, first..tasks.len(), now_ms));
    packed
}

/// Packs tasks in order, each alone.
#[must_use]
pub(crate) fn singly(tasks: &[Part<'_>], now_ms: u64) -> Vec<Packed> {
    (0..tasks.len()).filter_map(|index| message(tasks, index..index + 1, now_ms)).collect()
}

fn message(tasks: &[Part<'_>], range: Range<usize>, now_ms: u64) -> Option<Packed> {
    let chosen = tasks.get(range.clone()).filter(|chosen| !chosen.is_empty())?;
    let only = if let [(id, _)] = chosen { Some(id.to_string()) } else { None };
    let bodies: Vec<&str> = chosen.iter().map(|(_, body)| *body).collect();
    let message = Message {
        message_id: Some(Uuid::now_v7().to_string()),
        correlation_id: only,
        kind: Some(wire::TASKS_TYPE.to_owned()),
        timestamp_ms: Some(now_ms),
        body: wire::pack_tasks(&bodies),
        ..Message::default()
    };
    Some(Packed { message, tasks: range })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::{Process, Task};

    /// The most bytes that a task takes besides its argument.
    const OVERHEAD: usize = 100;

    /// Packs tasks that take so many bytes each, or a few more.
    fn packed(sizes: &[usize]) -> Vec<Packed> {
        let task = |size: &usize| {
            let argv = vec!["x".repeat(size.saturating_sub(OVERHEAD))];
            Task::new(
                TaskId::new(),
                Process { argv: argv.into_iter().map(Into::into).collect(), ..Process::default() },
            )
        };
        let tasks: Vec<Task> = sizes.iter().map(task).collect();
        let bodies: Vec<String> =
            tasks.iter().map(|task| String::from_utf8(wire::encode_task(task)).unwrap()).collect();
        let parts: Vec<Part> =
            tasks.iter().zip(&bodies).map(|(task, body)| (task.id, body.as_str())).collect();
        let packed = pack(&parts, 7);
        for one in &packed {
            let decoded = wire::decode_tasks(&one.message.body, None);
            assert_eq!(decoded.tasks, tasks[one.tasks.clone()]);
            let only = (one.tasks.len() == 1).then(|| tasks[one.tasks.start].id.to_string());
            assert_eq!(one.message.correlation_id, only);
        }
        packed
    }

    fn lengths(sizes: &[usize]) -> Vec<usize> {
        packed(sizes).iter().map(|one| one.tasks.len()).collect()
    }

    #[test]
    fn a_message_is_bounded_by_tasks_and_bytes() {
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[10]), [1]);
        assert_eq!(lengths(&[10; 250]), [100, 100, 50]);
        assert_eq!(lengths(&[MAX_BYTES / 2; 5]), [2, 2, 1]);
        assert_eq!(lengths(&[MAX_BYTES * 3, 1, MAX_BYTES, 1]), [1, 1, 1, 1]);
    }
}
