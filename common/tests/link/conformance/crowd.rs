//! Many at once.

use super::*;
use std::time::Instant;
use tokio::sync::watch;
use tokio::task::JoinSet;

const TOTAL: usize = 20_000;
const EACH: usize = 8;

/// Consumes until all messages are acknowledged, by all consumers together; gives its own.
async fn consume(url: String, done: watch::Sender<usize>) -> Vec<usize> {
    let connection = connect(&url).await;
    let mut inlet = shared(connection.as_ref(), "q", 100).await;
    let mut count = done.subscribe();
    let finished =
        async move { count.wait_for(|count| *count >= TOTAL).await.map(|_| ()).unwrap() };
    tokio::pin!(finished);
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            received = inlet.receive(50) => {
                let received = received.unwrap();
                inlet.acknowledge(received.last().unwrap().tag).await.unwrap();
                seen.extend(ids(&received).iter().map(|id| id.parse::<usize>().unwrap()));
                done.send_modify(|count| *count += received.len());
            }
            () = &mut finished => break,
        }
    }
    connection.close().await;
    seen
}

pub(super) async fn every_message_reaches_one_of_many_consumers_once(site: &impl Site) {
    let connection = with_queue(site, "q").await;
    let (done, _) = watch::channel(0);
    let began = Instant::now();
    let mut consumers = JoinSet::new();
    let mut producers = JoinSet::new();
    for index in 0..EACH {
        consumers.spawn(consume(site.url(), done.clone()));
        let url = site.url();
        producers.spawn(async move {
            let connection = connect(&url).await;
            let mut outlet = connection.outlet().await.unwrap();
            publish(outlet.as_mut(), "q", (index..TOTAL).step_by(EACH)).await;
            connection.close().await;
        });
    }
    within(producers.join_all()).await;
    let mut seen = within(consumers.join_all()).await.concat();
    println!("{TOTAL} messages, {EACH} by {EACH}, in {:?}", began.elapsed());
    seen.sort_unstable();
    assert_eq!(seen, (0..TOTAL).collect::<Vec<_>>());
    let mut inlet = shared(connection.as_ref(), "q", 8).await;
    nothing_else(connection.as_ref(), "q", inlet.as_mut()).await;
}
