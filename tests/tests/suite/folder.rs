//! A spool folder in the place of the broker: real processes, real faults.

mod bad_input;
mod crash;
mod disk;
mod exclusive;
mod namespaces;

use clutch_tests::oracle::{Runs, Verdict};
use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use clutch_tests::{gate::Gate, poll};
use std::collections::BTreeSet;

/// How many tasks run at once.
const SLOTS: usize = 2;

/// A world in a folder, in which everything runs.
struct Running {
    daemon: Daemon,
    service: Daemon,
    endpoint: Endpoint,
    runs: Runs,
    world: World,
}

fn running() -> Running {
    running_in(World::in_folder().unwrap())
}

fn running_in(world: World) -> Running {
    let endpoint = world.provision("lab").unwrap();
    let service = world.serve().unwrap();
    let daemon = run(&world, &endpoint);
    let runs = Runs::at(&world.folder().join("runs"));
    Running { daemon, service, endpoint, runs, world }
}

fn run(world: &World, endpoint: &Endpoint) -> Daemon {
    world.run_with(endpoint, &["--slots", &SLOTS.to_string()]).unwrap()
}

impl Running {
    /// Submits `count` tasks under the key `k` that print their number, of
    /// which those from `first_held` on wait for the gate before.
    fn submit(&self, count: usize, first_held: usize) -> Gate {
        let gate = Gate::new(self.world.folder(), "k");
        let script = format!("[ $1 -lt {first_held} ] || {}; echo $1", gate.line());
        let argv = self.runs.command(&script, &["{}"]);
        let array = format!("1-{count}");
        let mut submit = vec!["submit", "lab", "--key", "k", "--array", &array, "--"];
        submit.extend(argv.iter().map(String::as_str));
        self.world.service(&submit).unwrap().ok().unwrap();
        gate
    }

    /// Waits until so many tasks have started.
    fn started(&self, count: usize) {
        poll::until(&format!("{count} started tasks"), SOON, || {
            Ok((self.runs.read()?.len() >= count).then_some(()))
        })
        .unwrap();
    }

    /// Waits for the end of all `count` tasks; each must have one outcome, and
    /// have printed what it should. Says which ran again.
    fn verdict(&self, count: usize) -> Verdict {
        self.world.wait("k").unwrap().ok().unwrap();
        let results = self.world.results("k").unwrap();
        let succeeded = results.iter().filter(|task| task["result"]["outcome"] == "succeeded");
        let recorded: BTreeSet<String> = World::ids(succeeded);
        let runs = self.runs.read().unwrap();
        let verdict = Verdict::new(&World::ids(&results), &recorded, &runs);
        println!("{verdict}");
        assert_eq!((verdict.submitted, verdict.recorded), (count, count), "{:?}", verdict.lost);
        assert!(verdict.unknown.is_empty(), "{:?}", verdict.unknown);
        let stdout = self.world.service(&["results", "--key", "k", "--stdout-only"]).unwrap();
        let expected: String = (1..=count).map(|number| format!("{number}\n")).collect();
        assert_eq!(stdout.text(), expected);
        verdict
    }
}
