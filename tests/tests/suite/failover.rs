//! The service's side of failover: the endpoint's is played by hand, over the
//! broker's management API.

use clutch_tests::broker::Received;
use clutch_tests::poll;
use clutch_tests::process::Daemon;
use clutch_tests::proxy::{Carry, Proxy};
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// An endpoint that is played by hand.
struct Hand {
    world: World,
    endpoint: Endpoint,
}

/// One of its disks, and the instance that runs on it.
#[derive(Clone, Copy)]
struct Disk {
    state: Uuid,
    instance: Uuid,
}

impl Disk {
    fn new() -> Self {
        Self { state: Uuid::now_v7(), instance: Uuid::new_v4() }
    }
}

impl Hand {
    fn or_skip(test: &str) -> Option<Self> {
        let world = World::or_skip(test)?;
        let endpoint = world.provision("lab").unwrap();
        Some(Self { world, endpoint })
    }

    fn send(&self, kind: &str, content: Value) {
        // The type comes early in a body, as endpoints write it.
        let content = content.to_string();
        let body = format!(r#"{{"version":1,"type":"{kind}",{}"#, &content[1..]).into_bytes();
        let key = format!("{}.results", self.endpoint.id);
        self.world.vhost().publish("results", &key, json!({ "type": kind }), &body).unwrap();
    }

    fn tell(&self, disk: Disk, role: &str, standby: bool, pending: u64) {
        self.send(
            "clutch.presence",
            json!({
                "endpoint_id": self.endpoint.id,
                "state_id": disk.state,
                "instance": disk.instance,
                "role": role,
                "standby": standby,
                "pending": pending,
            }),
        );
    }

    fn answer(&self, results: Vec<Value>) {
        self.send("clutch.results", json!({ "endpoint": self.endpoint.id, "results": results }));
    }

    /// The result of an attempt that succeeded on this disk.
    fn success(&self, disk: Disk, task: &str, attempt: u64) -> Value {
        json!({
            "task_id": task, "attempt": attempt, "outcome": "succeeded", "exit_code": 0,
            "ended_at_ms": 1, "endpoint_id": self.endpoint.id, "state_id": disk.state,
            "stdout": format!("attempt {attempt}"),
        })
    }

    /// A result that says that this disk has lost an attempt.
    fn loss(&self, disk: Disk, task: &str, attempt: u64, how: &str) -> Value {
        let mut result = self.success(disk, task, attempt);
        result["outcome"] = json!("interrupted");
        result["lost"] = json!(how);
        result
    }

    /// Submits a task for every number up to `count`, and returns their ids.
    fn submit(&self, key: &str, count: usize, options: &[&str]) -> Vec<String> {
        let array = format!("1-{count}");
        let submit = ["submit", &self.endpoint.name, "--key", key, "--array", &array];
        let words = [&submit[..], options, &["--", "true"]].concat();
        self.world.service(&words).unwrap().ok().unwrap();
        let results = self.world.results(key).unwrap();
        results.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Takes the next message from the task queue.
    fn next(&self) -> Read {
        let queue = format!("{}.tasks", self.endpoint.id);
        let message = poll::until("a message in the task queue", SOON, || {
            Ok(self.world.vhost().take(&queue, 1)?.pop())
        });
        Read::of(&message.unwrap())
    }

    /// Takes the next message with tasks, and the roll calls before it.
    fn next_tasks(&self) -> Read {
        loop {
            let read = self.next();
            if matches!(read, Read::Tasks(_)) {
                return read;
            }
        }
    }

    fn is_empty(&self) -> bool {
        let queue = format!("{}.tasks", self.endpoint.id);
        self.world.vhost().take(&queue, 1).unwrap().is_empty()
    }

    /// Empties the task queue, and returns the attempts at tasks that were in it. Roll calls are
    /// passed over: the service sends them beside what it publishes.
    fn published(&self) -> BTreeSet<String> {
        let queue = format!("{}.tasks", self.endpoint.id);
        let left = self.world.vhost().take(&queue, 100).unwrap();
        let attempts = left.iter().map(Read::of).filter_map(|read| match read {
            Read::Tasks(attempts) => Some(attempts),
            Read::RollCall(..) => None,
        });
        attempts.flatten().collect()
    }

    fn shown(&self, task: &str) -> Value {
        self.world.service(&["show", task, "--json"]).unwrap().ok().unwrap().json().unwrap()
    }

    fn until_state(&self, task: &str, state: &str) {
        poll::until(&format!("{task} to be {state}"), SOON, || {
            Ok((self.shown(task)["state"] == state).then_some(()))
        })
        .unwrap();
    }
}

/// A message to the endpoint: attempts at tasks, as `id#attempt`.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Tasks(BTreeSet<String>),
    RollCall(String, BTreeSet<String>),
}

impl Read {
    fn of(message: &Received) -> Self {
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        assert_eq!(body["type"], message.properties["type"]);
        let attempts = |list: &str, id: &str| -> BTreeSet<String> {
            let each = body[list].as_array().unwrap().iter();
            each.map(|one| format!("{}#{}", one[id].as_str().unwrap(), one["attempt"])).collect()
        };
        match body["type"].as_str().unwrap() {
            "clutch.tasks" => Self::Tasks(attempts("tasks", "id")),
            "clutch.roll_call" => {
                let state = body["state_id"].as_str().unwrap().to_owned();
                Self::RollCall(state, attempts("attempts", "task_id"))
            }
            other => panic!("{other} in the task queue"),
        }
    }
}

fn numbered(tasks: &[&[String]], attempt: u64) -> BTreeSet<String> {
    tasks.concat().iter().map(|id| format!("{id}#{attempt}")).collect()
}

#[test]
fn what_a_dead_disk_had_accepted_is_submitted_again_whenever_the_service_is_killed() {
    let test = "what_a_dead_disk_had_accepted_is_submitted_again_whenever_the_service_is_killed";
    let Some(hand) = Hand::or_skip(test) else { return };
    let mut service = hand.world.serve().unwrap();
    let (old, new) = (Disk::new(), Disk::new());
    hand.tell(old, "active", false, 0);
    let accepted = hand.submit("a", 3, &[]);
    let once = hand.submit("once", 1, &["--no-rerun"]);
    assert_eq!(hand.next(), Read::Tasks(numbered(&[&accepted], 1)));
    assert_eq!(hand.next(), Read::Tasks(numbered(&[&once], 1)));
    let queued = hand.submit("q", 2, &[]);
    for task in accepted.iter().chain(&once).chain(&queued) {
        hand.until_state(task, "submitted");
    }

    // The node is gone; another takes its place, and the service is killed.
    hand.tell(new, "active", false, 0);
    service.kill().unwrap();
    let mut service = hand.world.serve().unwrap();
    assert_eq!(hand.next(), Read::Tasks(numbered(&[&queued], 1)));
    let all = numbered(&[&accepted, &once, &queued], 1);
    let roll_call = Read::RollCall(new.state.to_string(), all);
    assert_eq!(hand.next(), roll_call);

    // It is killed before the answers, and asks again.
    service.kill().unwrap();
    let lost = accepted.iter().chain(&once);
    hand.answer(lost.map(|task| hand.loss(new, task, 1, "unknown")).collect());
    hand.answer(queued.iter().map(|task| hand.success(new, task, 1)).collect());
    let mut service = hand.world.serve().unwrap();
    assert_eq!(hand.next_tasks(), Read::Tasks(numbered(&[&accepted], 2)));
    hand.until_state(&once[0], "interrupted");
    assert!(hand.shown(&once[0])["results"][0]["reason"].as_str().unwrap().contains("not run"));
    for task in &accepted {
        hand.until_state(task, "submitted");
        assert_eq!(hand.shown(task)["task"]["attempt"], 2);
    }

    // Submitting under the same key is the same submission still.
    assert_eq!(hand.submit("a", 3, &[]), accepted);
    assert_eq!(hand.published(), BTreeSet::new(), "published again");

    // The old disk's results come late, before and after the new ones.
    service.kill().unwrap();
    hand.answer(vec![hand.success(old, &accepted[0], 1)]);
    hand.answer(accepted.iter().map(|task| hand.success(new, task, 2)).collect());
    hand.answer(vec![hand.success(old, &accepted[1], 1), hand.success(old, &once[0], 1)]);
    let _service = hand.world.serve().unwrap();
    hand.world.wait("a").unwrap().ok().unwrap();
    hand.world.wait("q").unwrap().ok().unwrap();
    let attempts = |task: &str| -> Vec<u64> {
        let shown = hand.shown(task);
        assert_eq!((&shown["state"], &shown["attempt"]), (&json!("succeeded"), &json!(2)));
        let results = shown["results"].as_array().unwrap();
        results.iter().map(|result| result["attempt"].as_u64().unwrap()).collect()
    };
    poll::until("the late results to be counted", SOON, || {
        let counted = hand.shown(&once[0])["results"][0]["duplicates"] == 1;
        Ok(counted.then_some(()))
    })
    .unwrap();
    assert_eq!([0, 1, 2].map(|n: usize| attempts(&accepted[n])), [vec![1, 2], vec![1, 2], vec![2]]);
    assert_eq!(hand.shown(&once[0])["state"], "interrupted");
    let stdout = hand.world.service(&["results", "--key", "a", "--stdout-only"]).unwrap();
    assert_eq!(stdout.text(), "attempt 2".repeat(3));
}

#[test]
fn what_was_handed_back_is_asked_for_once_no_other_disk_may_have_it() {
    let test = "what_was_handed_back_is_asked_for_once_no_other_disk_may_have_it";
    let Some(hand) = Hand::or_skip(test) else { return };
    let _service = hand.world.serve().unwrap();
    let (one, other) = (Disk::new(), Disk::new());
    hand.tell(one, "active", true, 0);
    let tasks = hand.submit("k", 3, &[]);
    assert_eq!(hand.next(), Read::Tasks(numbered(&[&tasks], 1)));
    hand.tell(other, "standby", true, 0);
    hand.tell(other, "active", true, 0);
    hand.answer(tasks[..2].iter().map(|task| hand.loss(one, task, 1, "handed_back")).collect());
    // The first one still runs the third task.
    hand.tell(one, "standby", true, 1);
    hand.answer(vec![hand.success(one, &tasks[2], 1)]);
    hand.until_state(&tasks[2], "succeeded");
    assert!(hand.is_empty(), "the first one may have had them");
    hand.tell(one, "standby", true, 0);
    let asked = Read::RollCall(other.state.to_string(), numbered(&[&tasks[..2]], 1));
    assert_eq!(hand.next(), asked);
    // One was delivered to the other one all the same, one to none.
    hand.answer(vec![hand.loss(other, &tasks[0], 1, "unknown")]);
    assert_eq!(hand.next(), Read::Tasks(numbered(&[&tasks[..1]], 2)));
    hand.answer(vec![hand.success(other, &tasks[1], 1), hand.success(other, &tasks[0], 2)]);
    hand.world.wait("k").unwrap().ok().unwrap();
}

#[test]
fn a_standby_that_took_over_gets_the_tasks_of_one_that_stays_away_and_not_before() {
    let test = "a_standby_that_took_over_gets_the_tasks_of_one_that_stays_away_and_not_before";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision_with("lab", &["--lost-after", "10s"]).unwrap();
    let hand = Hand { world, endpoint };
    let _service = hand.world.serve().unwrap();
    let (one, other) = (Disk::new(), Disk::new());
    let gone = Instant::now();
    hand.tell(one, "active", true, 0);
    let tasks = hand.submit("k", 2, &[]);
    assert_eq!(hand.next(), Read::Tasks(numbered(&[&tasks], 1)));
    hand.tell(other, "active", true, 0);
    let asked = Read::RollCall(other.state.to_string(), numbered(&[&tasks], 1));
    assert_eq!(hand.next(), asked);
    assert!(gone.elapsed() >= Duration::from_secs(10), "after {:?}", gone.elapsed());
}

#[test]
fn tasks_that_went_with_a_deleted_queue_are_submitted_again_once_it_is_provisioned_again() {
    let test =
        "tasks_that_went_with_a_deleted_queue_are_submitted_again_once_it_is_provisioned_again";
    let Some(hand) = Hand::or_skip(test) else { return };
    let _service = hand.world.serve().unwrap();
    let disk = Disk::new();
    hand.tell(disk, "active", false, 0);
    let tasks = hand.submit("k", 2, &[]);
    hand.world.vhost().delete(&format!("{}.tasks", hand.endpoint.id)).unwrap();
    hand.world.provision("lab").unwrap();
    let asked = Read::RollCall(disk.state.to_string(), numbered(&[&tasks], 1));
    assert_eq!(hand.next(), asked);
    hand.answer(tasks.iter().map(|task| hand.loss(disk, task, 1, "unknown")).collect());
    assert_eq!(hand.next(), Read::Tasks(numbered(&[&tasks], 2)));
}

/// The instance that an endpoint's connection is named for, once the broker
/// lists it.
fn instance(world: &World, endpoint: &Endpoint) -> Uuid {
    let prefix = format!("clutch/{}/", endpoint.id);
    poll::until("the endpoint's connection to be listed", SOON, || {
        let connections = world.vhost().connections()?;
        Ok(connections.iter().find_map(|one| {
            one["client_properties"]["connection_name"]
                .as_str()?
                .strip_prefix(&prefix)?
                .parse()
                .ok()
        }))
    })
    .unwrap()
}

/// Waits until the lease is free, with a standby played by hand, and says how
/// long that took.
fn freed(hand: &Hand, service: &mut Daemon, holder: Disk) -> Duration {
    hand.tell(holder, "active", true, 0);
    hand.tell(Disk::new(), "standby", true, 0);
    let lease = format!("{}.lease", hand.endpoint.id);
    let since = Instant::now();
    poll::until("the lease to be free", SOON, || {
        let queues = hand.world.vhost().queues()?;
        Ok((!queues.iter().any(|queue| queue["name"] == lease.as_str())).then_some(()))
    })
    .unwrap();
    let took = since.elapsed();
    let closed = "the instance that holds the endpoint's lease does not answer: its connection is \
                  closed, so that the standby can take over";
    let line = service.wait_for(closed, SOON).unwrap();
    assert!(line["connection"].as_str().unwrap().contains(&holder.instance.to_string()), "{line}");
    took
}

/// Heartbeats so slow that only the service can free the lease in time.
const SLOW: [&str; 2] = ["--heartbeat", "60s"];

#[test]
fn the_connection_of_a_stopped_holder_is_closed_while_a_standby_waits() {
    let test = "the_connection_of_a_stopped_holder_is_closed_while_a_standby_waits";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision_with("lab", &SLOW).unwrap();
    let mut service = world.serve().unwrap();
    let mut daemon = world.run(&endpoint).unwrap();
    let instance = instance(&world, &endpoint);
    daemon.signal("STOP").unwrap();
    let hand = Hand { world, endpoint };
    let took = freed(&hand, &mut service, Disk { instance, ..Disk::new() });
    println!("a stopped holder's lease was free after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn the_connection_of_a_holder_behind_a_dead_link_is_closed_while_a_standby_waits() {
    let test = "the_connection_of_a_holder_behind_a_dead_link_is_closed_while_a_standby_waits";
    let Some(world) = World::or_skip(test) else { return };
    let mut url = url::Url::parse(&world.vhost().url()).unwrap();
    let proxy = Proxy::before((std::net::Ipv4Addr::LOCALHOST, url.port().unwrap()).into()).unwrap();
    url.set_port(Some(proxy.port())).unwrap();
    let through = [&SLOW[..], &["--endpoint-broker", url.as_str()]].concat();
    let endpoint = world.provision_with("lab", &through).unwrap();
    let mut service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    let instance = instance(&world, &endpoint);
    proxy.carry(Carry::Stall).unwrap();
    let hand = Hand { world, endpoint };
    let took = freed(&hand, &mut service, Disk { instance, ..Disk::new() });
    println!("the lease of a holder behind a dead link was free after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn without_the_management_api_the_service_says_so_once_and_goes_on() {
    let test = "without_the_management_api_the_service_says_so_once_and_goes_on";
    let Some(hand) = Hand::or_skip(test) else { return };
    let mut service = hand.world.launch_service(&["--management", "http://127.0.0.1:9"]).unwrap();
    service.wait_for("serving", SOON).unwrap();
    let mut daemon = hand.world.run(&hand.endpoint).unwrap();
    let instance = instance(&hand.world, &hand.endpoint);
    daemon.signal("STOP").unwrap();
    hand.tell(Disk { instance, ..Disk::new() }, "active", true, 0);
    hand.tell(Disk::new(), "standby", true, 0);
    let warning = "the instance that holds the endpoint's lease does not answer, and the broker's \
                   management API cannot be used to close its connection: a takeover waits for \
                   three heartbeats. `serve --management URL` says where the API is";
    let line = service.wait_for(warning, SOON).unwrap();
    assert!(line["reason"].as_str().unwrap().contains("127.0.0.1:9"), "{line}");
    assert!(service.wait_for(warning, Duration::from_secs(7)).is_err(), "it was told twice");
    daemon.signal("CONT").unwrap();
    hand.world.submit(&hand.endpoint, "k", &["--", "true"], SOON).unwrap().ok().unwrap();
}
