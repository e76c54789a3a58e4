//! Ctrl-C in a command that waits: it says what goes on, and ends. Touches the process's signals
//! while it waits.

use crate::failure::Failure;
use std::future::Future;

/// The exit code of a command that SIGINT ended, as a shell gives it.
const INTERRUPTED: u8 = 130;

/// Waits, unless a person interrupts that; `selection` is the option that names the tasks to the
/// other commands, such as `--key K`.
///
/// # Errors
/// Those of what it waits for, and that it was interrupted.
pub(super) async fn unless_interrupted<T>(
    waiting: impl Future<Output = anyhow::Result<T>>,
    selection: &str,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        done = waiting => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::new(INTERRUPTED, words(selection)).into()),
    }
}

fn words(selection: &str) -> String {
    format!(
        "interrupted: the tasks go on. `clutch-service wait {selection}` waits for them again, and \
         `clutch-service cancel {selection}` stops them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_done_is_no_interrupt_and_the_words_name_both_commands() {
        assert_eq!(unless_interrupted(async { Ok(1) }, "--key k").await.unwrap(), 1);
        let words = words("--key k");
        assert!(words.contains("wait --key k") && words.contains("cancel --key k"), "{words}");
    }
}
