//! A member that has nothing to do, and a service with a task that no member can do, sleep.

use super::Cloud;
use crate::heavy;
use crate::schedule_timers::{MORE, wakes};
use clutch_tests::world::World;

#[test]
fn an_idle_member_and_a_task_that_nobody_can_do_wake_nothing() {
    let test = "an_idle_member_and_a_task_that_nobody_can_do_wake_nothing";
    let Some(world) = World::or_skip(test) else { return };
    let cloud = Cloud::serve(world);
    let plain = cloud.world.provision("plain").unwrap();
    let plain = cloud.world.run_with(&plain, &["--slots", "1"]).unwrap();
    let service = wakes(&cloud.service);
    let member = cloud.member("one", 1, "");
    cloud.run("before", &["--array", "1-5"], "true");
    cloud.done("before");
    let task = cloud.submit("k", &["--call", "nobody.has"]).remove(0);
    cloud.waits_for(&task, &["nobody.has"]);
    let _alone = heavy();
    let (alike, idle) = (wakes(&plain), wakes(&member.daemon));
    println!("{alike} wake-ups of an endpoint, {idle} of a member");
    assert!(idle <= alike + MORE, "{idle} wake-ups of a member, {alike} of another endpoint");
    let with = wakes(&cloud.service);
    println!("{service} wake-ups of the service without a topic, {with} with one");
    assert!(with <= service + MORE, "{with} wake-ups of the service, {service} without a topic");
}
