//! Packs tasks into messages. Pure, but for the messages' ids.

use clutch_common::link::Message;
use clutch_common::task::Task;
use clutch_common::wire;
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
    pub(crate) tasks: std::ops::Range<usize>,
}

/// Packs tasks in order. `sizes` holds the encoded size of each, in bytes.
#[must_use]
pub(crate) fn pack(tasks: &[(&Task, usize)], now_ms: u64) -> Vec<Packed> {
    let mut packed = Vec::new();
    let mut first = 0;
    let mut bytes = 0;
    for (index, (_, size)) in tasks.iter().enumerate() {
        let full = index - first == MAX_TASKS || bytes + size > MAX_BYTES;
        if index > first && full {
            packed.push(message(tasks, first..index, now_ms));
            first = index;
            bytes = 0;
        }
        bytes += size;
    }
    if first < tasks.len() {
        packed.push(message(tasks, first..tasks.len(), now_ms));
    }
    packed
}

fn message(tasks: &[(&Task, usize)], range: std::ops::Range<usize>, now_ms: u64) -> Packed {
    let chosen: Vec<&Task> =
        tasks.iter().skip(range.start).take(range.len()).map(|(task, _)| *task).collect();
    let only = if let [task] = chosen.as_slice() { Some(task.id.to_string()) } else { None };
    Packed {
        message: Message {
            message_id: Some(Uuid::now_v7().to_string()),
            correlation_id: only,
            kind: Some(wire::TASKS_TYPE.to_owned()),
            timestamp_ms: Some(now_ms),
            body: wire::encode_tasks(&chosen),
            ..Message::default()
        },
        tasks: range,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::Process;

    fn packed(sizes: &[usize]) -> Vec<Packed> {
        let tasks: Vec<Task> =
            sizes.iter().map(|_| Task::new(TaskId::new(), Process::default())).collect();
        let sized: Vec<(&Task, usize)> = tasks.iter().zip(sizes.iter().copied()).collect();
        let packed = pack(&sized, 7);
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
