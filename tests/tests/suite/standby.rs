//! An instance that stands by: what its waiting costs a broker, and how soon it ends.

use clutch_tests::broker::{Options, Private};
use clutch_tests::world::{SOON, World};
use clutch_tests::{poll, skip};
use std::time::{Duration, Instant};

/// How long an instance waits here. A lease that is asked for twice a second would be
/// refused a dozen times.
const WAITING: Duration = Duration::from_secs(6);
const TAKEOVER: Duration = Duration::from_secs(5);

#[test]
fn waiting_fills_no_brokers_log_and_ends_soon_after_the_holder() {
    let test = "waiting_fills_no_brokers_log_and_ends_soon_after_the_holder";
    if !Private::available() {
        return skip::because(test, "no rabbitmq-server, and none can be installed");
    }
    let broker = Private::start(&Options::default()).unwrap();
    let world = World::on(broker.address()).unwrap();
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let mut first = world.run(&endpoint).unwrap();
    let state = world.folder().join("second").display().to_string();
    let mut second = world.launch(&endpoint, &["--standby", "--state", &state]).unwrap();
    second.wait_for("standing by", SOON).unwrap();
    poll::pause(WAITING);
    let refusals = broker.log().matches("exception resource_locked").count();
    assert!((1..=2).contains(&refusals), "{refusals} refusals: {}", broker.log());

    first.kill().unwrap();
    let killed = Instant::now();
    second.wait_for("engaged", SOON).unwrap();
    assert!(killed.elapsed() < TAKEOVER, "the takeover took {:?}", killed.elapsed());
}
