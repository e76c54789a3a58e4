//! A party in a process of its own serves until its input ends, which ends with the
//! process that started it.

use std::io::Read as _;
use tokio::sync::oneshot;

/// Resolves when this process's standard input has ended.
pub(crate) fn ended() -> impl Future<Output = ()> {
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Whatever ends the input ends this party.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        drop(stop);
    });
    async { drop(stopped.await) }
}
