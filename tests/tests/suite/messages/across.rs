//! Messages from one endpoint to another, by the service: on a broker and on a folder.

use super::{PYTHON, Place};
use clutch_tests::poll;
use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};

/// A world with another endpoint beside the one of [`Place`].
pub(super) struct Both {
    pub(super) place: Place,
    far: Endpoint,
    daemon: Daemon,
}

/// Both on a folder, and on a broker where there is one.
fn each(test: &str) -> Vec<Both> {
    let worlds = [Some(World::in_folder().unwrap()), World::or_skip(test)];
    worlds.into_iter().flatten().map(Both::in_world).collect()
}

impl Both {
    /// Starts both.
    pub(super) fn in_world(world: World) -> Self {
        let far = world.provision("far").unwrap();
        let daemon = world.launch(&far, &["--slots", "24"]).unwrap();
        let place = super::place_in(world, super::ANY);
        Self { place, far, daemon }
    }

    /// Submits a Python script to the other endpoint.
    pub(super) fn far(&self, key: &str, script: &str, arguments: &[&str]) -> String {
        let script = format!("{PYTHON}\n{script}");
        let argv = [&["python3", "-c", &script], arguments].concat();
        self.place.submit_to(&self.far.name, key, &argv)
    }
}

#[test]
fn the_largest_message_reaches_another_endpoint_bit_for_bit() {
    for both in each("the_largest_message_reaches_another_endpoint_bit_for_bit") {
        let hash = "import hashlib\ndef hash_of(body): return hashlib.sha256(body).hexdigest()\n";
        let receive = "tell(lambda: hash_of(task.receive('large').body))";
        let target = both.far("to", &format!("{hash}{receive}"), &[]);
        let send = "
large = os.urandom(8 << 20)
tell(lambda: task.send(sys.argv[1], 'large', large))
tell(lambda: hash_of(large))
";
        both.place.python("from", &format!("{hash}{send}"), &[&target]);
        let (sent, received) = (both.place.values("from"), both.place.values("to"));
        assert_eq!(sent[0]["delivered"]["attempt"], 1);
        assert_eq!(sent[1], received[0]);
    }
}

#[test]
fn a_crash_of_the_targets_endpoint_brings_the_message_to_the_next_run() {
    let test = "a_crash_of_the_targets_endpoint_brings_the_message_to_the_next_run";
    for mut both in each(test) {
        // It listens in its second run alone.
        let flag = both.place.world.folder().join("again");
        let script = format!(
            "if os.path.exists({:?}): tell(lambda: message(task.receive('late')))\n\
             else: open({:?}, 'w').close(); time.sleep(600)",
            flag.display(),
            flag.display()
        );
        let late = both.far("late", &script, &[]);
        poll::until("the first run", SOON, || Ok(flag.exists().then_some(()))).unwrap();
        let source = both.place.python(
            "from",
            "tell(lambda: task.send(sys.argv[1], 'late', b'x'))",
            &[&late],
        );
        poll::until("the sender to run", SOON, || {
            let shown = both.place.world.service(&["show", &source])?.ok()?.text();
            Ok(shown.contains("running").then_some(()))
        })
        .unwrap();
        both.daemon.kill().unwrap();
        both.daemon = both.place.world.run_with(&both.far, &["--slots", "24"]).unwrap();
        let sent = both.place.values("from");
        assert_eq!(sent[0]["delivered"]["attempt"], 1);
        assert_eq!(both.place.values("late")[0][2], "x");
    }
}
