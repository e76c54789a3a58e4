//! The results at a broker, or in a folder, are one service's: another one, of another
//! state folder, is refused until a person says that it takes over.

use clutch_tests::process::{Daemon, Output};
use clutch_tests::world::{Endpoint, SOON, World};

const THEIRS: &str = "belong to another clutch-service";

#[track_caller]
fn refused(seen: &Output, words: &[&str]) {
    let said = format!("{}{}", seen.text(), seen.stderr);
    assert!(seen.code != 0, "{said}");
    for word in [THEIRS, "--take-over", "CLUTCH_STATE"].iter().chain(words) {
        assert!(said.contains(word), "'{word}' is missing in: {said}");
    }
}

struct Site {
    world: World,
    endpoint: Endpoint,
    /// The state folder of a service that has nothing to do with the endpoint.
    other: String,
}

impl Site {
    fn on(world: World) -> Self {
        let endpoint = world.provision("lab").unwrap();
        let other = world.folder().join("other").display().to_string();
        Self { world, endpoint, other }
    }

    fn as_other(&self, arguments: &[&str]) -> Output {
        self.world.service(&[arguments, &["--state", &self.other]].concat()).unwrap()
    }

    fn serve_as_other(&self, options: &[&str]) -> Daemon {
        let options = [&["--state", &self.other], options].concat();
        let mut daemon = self.world.launch_service(&options).unwrap();
        daemon.wait_for("serving", SOON).unwrap();
        daemon
    }

    fn runs_one(&self, key: &str) {
        self.world.submit(&self.endpoint, key, &["--", "true"], SOON).unwrap().ok().unwrap();
    }
}

/// No service takes what is another's, whether or not that one runs, and nothing is lost by
/// the trying.
fn another_is_refused(site: &Site) {
    let (world, endpoint) = (&site.world, &site.endpoint);
    // It has never run, and the results are its own: it was there first.
    refused(&site.as_other(&["serve"]), &[]);
    let mut service = world.serve().unwrap();
    let mut daemon = world.run(endpoint).unwrap();
    site.runs_one("before");
    refused(&site.as_other(&["serve"]), &[]);
    let late = ["submit", &endpoint.name, "--key", "late", "--", "sleep", "1"];
    world.service(&late).unwrap().ok().unwrap();
    service.stop(SOON).unwrap();

    refused(&site.as_other(&["serve"]), &[&site.other]);
    let out = world.folder().join("other.toml").display().to_string();
    let provisioned = site.as_other(&["provision", "theirs", "--out", &out]);
    refused(&provisioned, &["nothing was provisioned"]);
    assert!(!std::path::Path::new(&out).exists());
    refused(&site.as_other(&["doctor"]), &["FAILED"]);
    assert_eq!(world.service(&["doctor"]).unwrap().code, 0, "its own");

    let mut service = world.serve().unwrap();
    world.wait("late").unwrap().ok().unwrap();
    site.runs_one("after");
    daemon.stop(SOON).unwrap();
    service.stop(SOON).unwrap();
}

/// A person's word moves the results; a copy of the records is the same service.
fn another_may_take_over(site: &Site) {
    let mut other = site.serve_as_other(&["--take-over"]);
    refused(&site.world.service(&["serve"]).unwrap(), &[]);
    other.stop(SOON).unwrap();
    // From now on it needs no word.
    site.serve_as_other(&[]).stop(SOON).unwrap();
    refused(&site.world.service(&["serve"]).unwrap(), &[]);
    let restored = site.world.folder().join("restored");
    std::fs::create_dir(&restored).unwrap();
    for name in ["clutch.db", "clutch.db-wal"] {
        let from = std::path::Path::new(&site.other).join(name);
        if from.exists() {
            std::fs::copy(from, restored.join(name)).unwrap();
        }
    }
    let restored = restored.display().to_string();
    let mut restored = site.world.launch_service(&["--state", &restored]).unwrap();
    restored.wait_for("serving", SOON).unwrap();
    restored.stop(SOON).unwrap();
    let mut service = site.world.launch_service(&["--take-over"]).unwrap();
    service.wait_for("serving", SOON).unwrap();
    let _daemon = site.world.run(&site.endpoint).unwrap();
    site.runs_one("again");
}

fn belonging(world: World) {
    let site = Site::on(world);
    another_is_refused(&site);
    another_may_take_over(&site);
}

#[test]
fn the_results_at_a_broker_belong_to_one_service() {
    let test = "the_results_at_a_broker_belong_to_one_service";
    if let Some(world) = World::or_skip(test) {
        belonging(world);
    }
}

#[test]
fn the_results_in_a_folder_belong_to_one_service() {
    belonging(World::in_folder().unwrap());
}
