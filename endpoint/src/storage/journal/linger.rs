//! A blocking receive with a deadline, which tokio's channel does not have. Touches the
//! thread that calls, which it parks.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;
use tokio::sync::mpsc::Receiver;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Receives the next message; none if there is none by `until`, or the channel is closed.
pub(super) fn receive<T>(channel: &mut Receiver<T>, until: Instant) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(received) = channel.poll_recv(&mut context) {
            return received;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[test]
    fn it_ends_with_what_comes_or_with_the_time() {
        let (sender, mut receiver) = mpsc::channel(1);
        let begun = Instant::now();
        assert_eq!(receive(&mut receiver, begun + Duration::from_millis(20)), None);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        let late = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(20));
            sender.blocking_send(7)
        });
        let begun = Instant::now();
        assert_eq!(receive(&mut receiver, begun + Duration::from_secs(600)), Some(7));
        late.join().unwrap().unwrap();
        assert_eq!(receive(&mut receiver, begun + Duration::from_secs(600)), None, "it is closed");
    }
}
