//! Topics: work finds an endpoint that can do it, as `docs/topics.md` promises, over a broker and
//! over a folder.

mod faults;
mod idle;
mod letters;
mod members;
mod order;
mod steering;
mod waiting;
mod worker_files;

use crate::workers::SHELL;
use clutch_tests::gate::Gate;
use clutch_tests::oracle::Runs;
use clutch_tests::poll;
use clutch_tests::process::{Daemon, Output};
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::Value;
use std::collections::BTreeMap;

/// The topic of all tests.
const TOPIC: &str = "cloud";
/// Options of the service. All clocks of a test are those of one host.
const SERVE: [&str; 2] = ["--clock-margin", "1s"];
/// A function that is answered by a worker in a shell.
const ASK: &str = "[functions.ask]\ncommand = [\"sh\", \"{}/worker.sh\"]\n";

/// An endpoint that is a member of the topic, and its daemon.
struct Member {
    endpoint: Endpoint,
    daemon: Daemon,
    slots: usize,
}

/// A service and the members of the topic.
struct Cloud {
    service: Daemon,
    runs: Runs,
    world: World,
}

/// Plays on a broker and on a folder.
fn on_both(test: &str, play: impl Fn(Cloud)) {
    if let Some(world) = World::or_skip(test) {
        play(Cloud::serve(world));
    }
    play(Cloud::serve(World::in_folder().unwrap()));
}

impl Cloud {
    /// A service without a member.
    fn serve(world: World) -> Self {
        std::fs::write(world.folder().join("worker.sh"), SHELL).unwrap();
        // The queues of the service are declared with those of an endpoint.
        world.provision("lab").unwrap();
        let service = serve(&world);
        let runs = Runs::at(&world.folder().join("runs"));
        Self { service, runs, world }
    }

    /// Kills the service, and starts it again.
    fn restart_service(&mut self) {
        self.service.kill().unwrap();
        self.service = serve(&self.world);
    }

    /// Provisions a member with these functions, which does not run yet.
    fn provisioned(&self, name: &str, functions: &str) -> Endpoint {
        let endpoint = self.world.provision_with(name, &["--topic", TOPIC]).unwrap();
        self.offer(&endpoint, "", functions);
        endpoint
    }

    /// Puts other functions in the place of those in the endpoint's file.
    fn offer(&self, endpoint: &Endpoint, old: &str, new: &str) {
        let here = |lines: &str| lines.replace("{}", &self.world.folder().display().to_string());
        let file = std::fs::read_to_string(&endpoint.config).unwrap();
        let text = if old.is_empty() {
            format!("{file}\n{}", here(new))
        } else {
            assert!(file.contains(&here(old)), "{file}");
            file.replace(&here(old), &here(new))
        };
        std::fs::write(&endpoint.config, text).unwrap();
    }

    /// Starts the daemon of a member.
    fn start(&self, endpoint: Endpoint, slots: usize) -> Member {
        let daemon = self.world.run_with(&endpoint, &["--slots", &slots.to_string()]).unwrap();
        Member { endpoint, daemon, slots }
    }

    /// A member that runs, and is known to the service.
    fn member(&self, name: &str, slots: usize, functions: &str) -> Member {
        let member = self.start(self.provisioned(name, functions), slots);
        self.until_listed(name, true);
        member
    }

    /// Kills the daemon of a member, and starts it again.
    fn restart(&self, member: &mut Member) {
        member.daemon.kill().unwrap();
        let slots = member.slots.to_string();
        member.daemon = self.world.run_with(&member.endpoint, &["--slots", &slots]).unwrap();
    }

    /// Submits to the topic; the words after `submit --topic TOPIC --key KEY`. Returns the ids.
    fn submit(&self, key: &str, words: &[&str]) -> Vec<String> {
        let begin = ["submit", "--topic", TOPIC, "--key", key, "--json"];
        let answer = self.world.service(&[&begin[..], words].concat()).unwrap().ok().unwrap();
        let answer = answer.json().unwrap();
        let ids = answer["ids"].as_array().unwrap_or_else(|| panic!("no ids: {answer}"));
        ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// Submits processes that note their start and then run a script.
    fn run(&self, key: &str, options: &[&str], script: &str) -> Vec<String> {
        let argv = self.runs.command(script, &[]);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        self.submit(key, &[options, &["--"], &argv].concat())
    }

    /// Submits processes that wait for a gate.
    fn gated(&self, key: &str, options: &[&str]) -> (Vec<String>, Gate) {
        let gate = Gate::new(self.world.folder(), key);
        (self.run(key, options, &gate.line()), gate)
    }

    fn shown(&self, task: &str) -> Value {
        self.world.service(&["show", task, "--json"]).unwrap().ok().unwrap().json().unwrap()
    }

    fn until_state(&self, task: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let reached = poll::until(&format!("{task} is {state}"), SOON, || {
            last = self.shown(task);
            Ok((last["state"] == state).then_some(()))
        });
        reached.unwrap_or_else(|error| panic!("{error:#}: {last}"));
        last
    }

    /// Waits until `show` tells words about why a task waits.
    fn waits_for(&self, task: &str, words: &[&str]) {
        let mut last = Value::Null;
        let told = poll::until(&format!("{words:?}"), SOON, || {
            last = self.shown(task);
            let told = last["why"]["words"].as_str().unwrap_or_default();
            Ok(words.iter().all(|word| told.contains(word)).then_some(()))
        });
        told.unwrap_or_else(|error| panic!("{error:#}: {last}"));
    }

    /// Waits until so many starts were noted.
    fn until_started(&self, count: usize) {
        poll::until(
            &format!("{count} starts"),
            SOON,
            || Ok((self.starts() >= count).then_some(())),
        )
        .unwrap_or_else(|error| panic!("{error:#}: {} started", self.starts()));
    }

    /// How many starts were noted.
    fn starts(&self) -> usize {
        self.runs.read().unwrap().values().sum()
    }

    /// Waits for the outcomes of a submission. All must be successes, each of one run.
    fn done(&self, key: &str) -> Vec<Value> {
        let waited = self.world.wait(key).unwrap();
        let results = self.world.results(key).unwrap();
        assert_eq!(waited.code, 0, "{key}: {}\n{results:?}", waited.stderr);
        let runs = self.runs.read().unwrap();
        for id in World::ids(&results) {
            assert!(runs.get(&id).is_none_or(|times| *times == 1), "{id} ran again");
        }
        results
    }

    /// Waits for the outcomes of several submissions, as [`Cloud::done`] does.
    fn all_done(&self, keys: &[&str]) {
        keys.iter().for_each(|key| drop(self.done(key)));
    }

    /// How many of these tasks are at each endpoint, by its name; those that have none are not
    /// counted.
    fn places(&self, tasks: &[String]) -> BTreeMap<String, usize> {
        let mut places = BTreeMap::new();
        for task in tasks {
            if let Some(name) = self.shown(task)["endpoint_name"].as_str() {
                *places.entry(name.to_owned()).or_insert(0) += 1;
            }
        }
        places
    }

    /// The members of the topic, as `topic show` has them.
    fn members(&self) -> Vec<Value> {
        let shown = self.world.service(&["topic", "show", TOPIC, "--json"]).unwrap();
        // A topic that has neither a member nor a task is unknown.
        let shown = if shown.code == 0 { shown.json().unwrap() } else { Value::Null };
        shown["topic"]["members"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the topic has a member of this name that work is given to, or has none.
    fn until_listed(&self, name: &str, listed: bool) {
        let mut members = Vec::new();
        let found = poll::until(&format!("{name} in the list: {listed}"), SOON, || {
            members = self.members();
            let able = members.iter().any(|member| member["name"] == name && is_able(member));
            Ok((able == listed).then_some(()))
        });
        found.unwrap_or_else(|error| panic!("{error:#}: {members:?}"));
    }

    /// Waits until the topic has so many members.
    fn wait_for(&self, count: &str, timeout: &str) -> Output {
        let line = ["wait-for-workers", TOPIC, "-n", count, "--timeout", timeout];
        self.world.service(&line).unwrap()
    }
}

/// Whether a listed member is given work, as soon as it has room.
fn is_able(member: &Value) -> bool {
    !["away", "drains", "clock"].iter().any(|why| member["why_none"]["why"] == *why)
}

fn serve(world: &World) -> Daemon {
    let mut service = world.launch_service(&SERVE).unwrap();
    service.wait_for("serving", SOON).unwrap();
    service
}
