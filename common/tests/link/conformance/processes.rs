//! Processes that are killed with SIGKILL: what they were told holds, what they
//! held is free.

use super::child::{Child, PRODUCED, Task, grows_to, lines, size};
use super::rng::Rng;
use super::*;
use std::collections::{BTreeMap, BTreeSet};

const ROUNDS: u64 = 20;

pub(super) async fn what_is_confirmed_is_there_although_the_publisher_is_killed(
    site: &impl Site,
    test: &str,
) {
    let connection = with_queue(site, "q").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("confirmed");
    let producer = Child::start(test, &Task::Produce, &site.url(), &file, "p");
    grows_to(&file, 500).await;
    drop(producer);
    let confirmed = lines(&file);
    let mut outlet = connection.outlet().await.unwrap();
    publish(outlet.as_mut(), "q", ["the end"]).await;
    let mut inlet = shared(connection.as_ref(), "q", 1000).await;
    let mut seen = Vec::new();
    while !seen.ends_with(&["the end".to_owned()]) {
        seen.extend(ids(&take(inlet.as_mut(), 1).await));
    }
    seen.pop();
    println!("{} confirmed, {} arrived", confirmed.len(), seen.len());
    // More may have arrived than it was told of, but each once and in order.
    let all: Vec<String> = (0..seen.len()).map(|number| format!("p {number}")).collect();
    assert_eq!(seen, all);
    assert!(all.starts_with(&confirmed), "{confirmed:?}");
}

pub(super) async fn a_lease_is_free_when_its_holder_is_killed(site: &impl Site, test: &str) {
    let connection = with_queue(site, "q").await;
    fill(connection.as_ref(), "q", 3).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("held");
    let holder = Child::start(test, &Task::Hold, &site.url(), &file, "holder");
    grows_to(&file, "0\n1\n2\n".len() as u64).await;
    let locked = fault(connection.inlet(&options("q", 8, Some("lease"))).await);
    assert!(matches!(locked, Fault::Locked(_)), "{locked}");
    drop(holder);
    let mut inlet = leased(connection.as_ref(), "q", "lease").await;
    let again = take(inlet.as_mut(), 3).await;
    assert_eq!(ids(&again), numbers(0..3));
    assert!(again.iter().all(|delivery| delivery.redelivered));
    nothing_else(connection.as_ref(), "q", inlet.as_mut()).await;
}

pub(super) async fn killed_at_any_point_nothing_confirmed_is_lost(site: &impl Site, test: &str) {
    let connection = with_queue(site, "q").await;
    let folder = tempfile::tempdir().unwrap();
    let [confirmed, seen] = ["confirmed", "seen"].map(|name| folder.path().join(name));
    let mut rng = Rng(20);
    for round in 0..ROUNDS {
        let grown = [&confirmed, &seen].map(|file| size(file) + 1);
        let (url, name) = (site.url(), round.to_string());
        let producer = Child::start(test, &Task::Produce, &url, &confirmed, &name);
        let consumer = Child::start(test, &Task::Consume, &url, &seen, &name);
        // One time in four, they are killed while they start.
        if rng.below(4) > 0 {
            grows_to(&confirmed, grown[0]).await;
        }
        if rng.below(2) > 0 && size(&confirmed) >= grown[0] {
            grows_to(&seen, grown[1]).await;
        }
        let (first, second) = match rng.below(2) {
            0 => (producer, consumer),
            _ => (consumer, producer),
        };
        tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
        drop(first);
        tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
        drop(second);
    }
    let confirmed: BTreeSet<String> = lines(&confirmed).into_iter().collect();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for id in lines(&seen) {
        *times.entry(id).or_default() += 1;
    }
    let by_others = times.len();
    let mut inlet = shared(connection.as_ref(), "q", 1000).await;
    while confirmed.iter().any(|id| !times.contains_key(id)) {
        for id in ids(&take(inlet.as_mut(), 1).await) {
            *times.entry(id).or_default() += 1;
        }
    }
    let twice = times.values().filter(|times| **times > 1).count();
    println!(
        "{ROUNDS} rounds: {} confirmed, {by_others} seen by those killed, {} in all, {twice} of \
         them more than once",
        confirmed.len(),
        times.len(),
    );
    assert!(!confirmed.is_empty() && by_others > 0);
    let known: BTreeSet<String> = (0..ROUNDS)
        .flat_map(|round| (0..PRODUCED).map(move |number| format!("{round} {number}")))
        .collect();
    assert!(times.keys().all(|id| known.contains(id)), "nothing is invented");
}
