//! The harness itself: its brokers come and go, and leave nothing behind.

use clutch_tests::broker::{Broker, Options, Private};
use clutch_tests::world::{SOON, World};
use clutch_tests::{poll, skip};
use serde_json::json;

/// How many processes have `text` in their environment.
fn running(text: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .filter(|environment| String::from_utf8_lossy(environment).contains(text))
        .count()
}

#[test]
fn a_vhost_keeps_messages_to_itself() {
    let Some(world) = World::or_skip("a_vhost_keeps_messages_to_itself") else { return };
    let other = Broker::shared().unwrap().address().vhost().unwrap();
    let vhost = world.vhost();
    vhost.declare("q", json!({})).unwrap();
    vhost.publish("", "q", json!({ "message_id": "m" }), b"\xff body").unwrap();
    let found = vhost.take("q", 10).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].body, b"\xff body");
    assert_eq!(found[0].properties["message_id"], "m");
    assert!(vhost.take("q", 10).unwrap().is_empty());
    assert!(vhost.publish("", "missing", json!({}), b"").is_err());
    assert!(other.queues().unwrap().is_empty());
}

#[test]
fn a_private_broker_keeps_messages_over_a_restart_and_leaves_no_process() {
    let test = "a_private_broker_keeps_messages_over_a_restart_and_leaves_no_process";
    if !Private::available() {
        return skip::because(test, "no rabbitmq-server, and none can be installed");
    }
    let settings = vec!["consumer_timeout = 60000".to_owned()];
    let mut broker = Private::start(&Options { settings, ..Options::default() }).unwrap();
    let node = format!("clutch-{}@localhost", broker.address().amqp.rsplit(':').next().unwrap());
    let vhost = broker.address().vhost().unwrap();
    vhost.declare("q", json!({})).unwrap();
    for restart in
        [Private::restart, |broker: &mut Private| broker.kill().and_then(|()| broker.run())]
    {
        vhost.publish("", "q", json!({}), b"kept").unwrap();
        restart(&mut broker).unwrap();
        assert_eq!(vhost.take("q", 10).unwrap()[0].body, b"kept");
    }
    assert!(running(&node) >= 2, "the server and its port mapper");
    drop(vhost);
    drop(broker);
    poll::until("the broker's processes to go", SOON, || Ok((running(&node) == 0).then_some(())))
        .unwrap();
}
