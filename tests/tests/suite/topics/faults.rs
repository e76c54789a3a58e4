//! A link that is gone when the start and the end of a task are to be told.

use super::{Cloud, TOPIC};
use clutch_tests::poll;
use clutch_tests::proxy::{Carry, Proxy};
use clutch_tests::world::{SOON, World};
use std::net::Ipv4Addr;

#[test]
fn what_was_claimed_ends_without_a_link_and_nothing_else_starts() {
    let test = "what_was_claimed_ends_without_a_link_and_nothing_else_starts";
    let Some(world) = World::or_skip(test) else { return };
    let cloud = Cloud::serve(world);
    let vhost = cloud.world.vhost();
    let proxy = Proxy::before((Ipv4Addr::LOCALHOST, vhost.port().unwrap()).into()).unwrap();
    let behind = vhost.url_by(proxy.port()).unwrap();
    let options = ["--topic", TOPIC, "--endpoint-broker", &behind, "--heartbeat", "2s"];
    let endpoint = cloud.world.provision_with("one", &options).unwrap();
    let mut member = cloud.start(endpoint, 2);
    cloud.until_listed("one", true);
    let (_, gate) = cloud.gated("claimed", &[]);
    cloud.until_started(1);
    // A task that takes a link to start: none can claim it.
    proxy.carry(Carry::Refuse).unwrap();
    assert!(proxy.cut() > 0);
    member.daemon.wait_for("disengaged", SOON).unwrap();
    let later = cloud.run("later", &["--start-within", "3s"], "true").remove(0);
    poll::until("it is placed", SOON, || {
        Ok((cloud.shown(&later)["endpoint_name"] == "one").then_some(()))
    })
    .unwrap();
    gate.open().unwrap();
    // It waits where it is, or comes back unplaced; in no case it starts.
    poll::until("its moment is over", SOON, || {
        Ok((cloud.shown(&later)["task"]["attempt"].as_u64() > Some(1)
            || cloud.shown(&later)["state"] == "waiting")
            .then_some(()))
    })
    .unwrap();
    assert_eq!(cloud.starts(), 1);
    proxy.carry(Carry::Pass).unwrap();
    let results = cloud.done("claimed");
    assert_eq!(results[0]["attempt"], 1, "{results:?}");
    cloud.done("later");
    assert_eq!(cloud.starts(), 2);
}
