//! The folder alone: files of messages that are damaged or gone.

use crate::toolkit::*;
use clutch_common::link::{Connection, Delivery, Inlet, Terms, Transport, Verdict, transport};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn at(temp: &Path) -> Arc<dyn Transport> {
    let url = format!("file://{}/spool?group=1&poll=5ms", temp.display());
    transport(&url, &Terms::default()).unwrap()
}

/// A connection to a folder in which every message is a file of its own, and each is
/// looked for every few milliseconds.
async fn connection(temp: &Path) -> Box<dyn Connection> {
    let transport = at(temp);
    transport.prepare(&[]).await.unwrap();
    let connection = transport.connect("test").await.unwrap();
    connection.declare(&queue("q", &[])).await.unwrap();
    connection
}

/// The files that wait in the queue, in order.
fn waiting(temp: &Path) -> Vec<PathBuf> {
    let producers = fs::read_dir(temp.join("spool/queues/q/ready")).unwrap();
    let files = producers.flat_map(|producer| fs::read_dir(producer.unwrap().path()).unwrap());
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

async fn poll_until(is_so: impl Fn() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Receives until something is damaged or missing; the ids of what came before.
async fn until_damage(inlet: &mut dyn Inlet) -> (Vec<String>, Delivery) {
    let mut before = Vec::new();
    loop {
        for delivery in take(inlet, 1).await {
            if delivery.message.damage.is_some() {
                return (before, delivery);
            }
            inlet.acknowledge(delivery.tag).await.unwrap();
            before.push(delivery.message.message_id.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_told_again_until_it_is_refused_and_then_set_aside() {
    let temp = tempfile::tempdir().unwrap();
    let connection = connection(temp.path()).await;
    fill(connection.as_ref(), "q", 2).await;
    let files = waiting(temp.path());
    assert_eq!(files.len(), 2);
    fs::write(&files[0], b"clutch-messages/1 00000000 2\n[]").unwrap();
    for _ in 0..2 {
        let mut inlet = connection.inlet(&options("q", 8, None)).await.unwrap();
        let there = take(inlet.as_mut(), 2).await;
        let damaged: Vec<bool> = there.iter().map(|one| one.message.damage.is_some()).collect();
        assert_eq!(damaged, [true, false]);
        drop(inlet);
        poll_until(|| waiting(temp.path()).len() == 2).await;
    }
    let mut inlet = connection.inlet(&options("q", 8, None)).await.unwrap();
    let there = take(inlet.as_mut(), 2).await;
    inlet.dead_letter(there[0].tag).await.unwrap();
    inlet.acknowledge(there[1].tag).await.unwrap();
    let aside = temp.path().join("spool/quarantine");
    poll_until(|| fs::read_dir(&aside).unwrap().count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_or_larger_than_any_is_damage_and_is_not_read() {
    let temp = tempfile::tempdir().unwrap();
    let connection = connection(temp.path()).await;
    fill(connection.as_ref(), "q", 2).await;
    let files = waiting(temp.path());
    let huge = fs::File::create(&files[0]).unwrap();
    huge.set_len(1 << 40).unwrap();
    fs::remove_file(&files[1]).unwrap();
    fs::create_dir(&files[1]).unwrap();
    let mut inlet = connection.inlet(&options("q", 8, None)).await.unwrap();
    let there = take(inlet.as_mut(), 2).await;
    assert!(there.iter().all(|one| one.message.damage.is_some()), "{there:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_is_told_and_holds_up_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let connection = connection(temp.path()).await;
    let mut outlet = connection.outlet().await.unwrap();
    let mut number = 0;
    let mut publish = async |count: u64| {
        for _ in 0..count {
            number += 1;
            outlet.publish(&to("q"), message(number)).await.unwrap();
        }
        while outlet.open() > 0 {
            within(outlet.settled()).await.unwrap();
        }
    };
    publish(3).await;
    // It holds the first, and has no room for the others.
    let mut inlet = connection.inlet(&options("q", 1, Some("lease"))).await.unwrap();
    let first = take(inlet.as_mut(), 1).await;
    fs::remove_file(waiting(temp.path()).last().unwrap()).unwrap();
    inlet.acknowledge(first[0].tag).await.unwrap();
    let second = take(inlet.as_mut(), 1).await;
    inlet.acknowledge(second[0].tag).await.unwrap();
    publish(2).await;
    let (before, damage) = until_damage(inlet.as_mut()).await;
    assert_eq!(before, [""; 0], "what is missing is told before what comes after it");
    inlet.dead_letter(damage.tag).await.unwrap();
    for expected in ["4", "5"] {
        let there = take(inlet.as_mut(), 1).await;
        assert_eq!(there[0].message.message_id.as_deref(), Some(expected));
        inlet.acknowledge(there[0].tag).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_file_that_is_gone_ends_nothing_and_its_messages_are_delivered() {
    let temp = tempfile::tempdir().unwrap();
    let url = format!("file://{}/spool?poll=5ms", temp.path().display());
    let transport = transport(&url, &Terms::default()).unwrap();
    transport.prepare(&[]).await.unwrap();
    let connection = transport.connect("test").await.unwrap();
    connection.declare(&queue("q", &[])).await.unwrap();
    fill(connection.as_ref(), "q", 4).await;
    // Fewer than a file may have: one at a time comes out of it.
    let mut inlet = connection.inlet(&options("q", 1, Some("lease"))).await.unwrap();
    for number in 0..4 {
        let there = take(inlet.as_mut(), 1).await;
        assert_eq!(there[0].message.damage, None, "message {number}");
        let claims = fs::read_dir(temp.path().join("spool/queues/q/claimed")).unwrap();
        for claim in claims.flat_map(|claims| fs::read_dir(claims.unwrap().path()).unwrap()) {
            fs::remove_file(claim.unwrap().path()).unwrap();
        }
        inlet.acknowledge(there[0].tag).await.unwrap();
    }
    within(inlet.secured()).await.unwrap();
}

/// The verdict and text of the check of a folder's files.
async fn checked(temp: &Path) -> (Verdict, String) {
    let checks = at(temp).check().await;
    let of_files = |text: &str| text == "no file of messages is damaged, missing or set aside";
    let check = checks.into_iter().find(|check| of_files(&check.what)).unwrap();
    (check.verdict, check.detail)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_what_is_damaged_missing_or_set_aside() {
    let temp = tempfile::tempdir().unwrap();
    let connection = connection(temp.path()).await;
    fill(connection.as_ref(), "q", 6).await;
    assert_eq!(checked(temp.path()).await.0, Verdict::Passed);
    let files = waiting(temp.path());
    fs::write(&files[1], b"noise").unwrap();
    fs::remove_file(&files[3]).unwrap();
    let (verdict, detail) = checked(temp.path()).await;
    assert_eq!(verdict, Verdict::Warning);
    let first = files[1].display().to_string();
    for words in ["1 file of q damaged", "1 file of q missing", &first, "quarantine"] {
        assert!(detail.contains(words), "{detail}");
    }
    // The only consumer claims one group after another.
    let mut inlet = connection.inlet(&options("q", 1, Some("lease"))).await.unwrap();
    for _ in 0..6 {
        for delivery in take(inlet.as_mut(), 1).await {
            match delivery.message.damage {
                Some(_) => inlet.dead_letter(delivery.tag).await.unwrap(),
                None => inlet.acknowledge(delivery.tag).await.unwrap(),
            }
        }
    }
    poll_until(|| fs::read_dir(temp.path().join("spool/quarantine")).unwrap().count() == 2).await;
    let (_, detail) = checked(temp.path()).await;
    for words in ["1 file set aside as damaged", "1 file found missing"] {
        assert!(detail.contains(words), "{detail}");
    }
}
