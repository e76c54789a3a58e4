//! Messages from one endpoint to another, by the service: on a broker and on a folder.

use super::{PYTHON, Place};
use clutch_tests::poll;
use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};

/// A world with another endpoint beside the one of [`Place`].
struct Both {
    place: Place,
    far: Endpoint,
    daemon: Daemon,
}

/// Both on a folder, and on a broker where there is one.
fn each(test: &str) -> Vec<Both> {
    let worlds = [Some(World::in_folder().unwrap()), World::or_skip(test)];
    let both = |world: World| {
        let far = world.provision("far").unwrap();
        let daemon = world.launch(&far, &["--slots", "4"]).unwrap();
        let place = super::place_in(world, "[messages]\nallow = \"any\"\n");
        Both { place, far, daemon }
    };
    worlds.into_iter().flatten().map(both).collect()
}

impl Both {
    /// Submits a Python script to the other endpoint.
    fn far(&self, key: &str, script: &str, arguments: &[&str]) -> String {
        let script = format!("{PYTHON}\n{script}");
        let argv = [&["python3", "-c", &script], arguments].concat();
        self.place.submit_to(&self.far.name, key, &argv)
    }
}

#[test]
fn a_message_reaches_a_task_of_another_endpoint_whichever_side_is_first() {
    for both in each("a_message_reaches_a_task_of_another_endpoint_whichever_side_is_first") {
        let receive = "time.sleep(1)
tell(lambda: message(task.receive('in')))
tell(lambda: message(task.receive('in')))
tell(lambda: hash_of(task.receive('large').body))
";
        let hash = "import hashlib\ndef hash_of(body): return hashlib.sha256(body).hexdigest()\n";
        let target = both.far("to", &format!("{hash}{receive}"), &[]);
        let send = "
tell(lambda: task.send(sys.argv[1], 'in', 'früh'))
time.sleep(1)
tell(lambda: task.send(sys.argv[1], 'in', 'spät'))
large = os.urandom(8 << 20)
tell(lambda: task.send(sys.argv[1], 'large', large))
tell(lambda: hash_of(large))
";
        let source = both.place.python("from", &format!("{hash}{send}"), &[&target]);
        let (sent, received) = (both.place.values("from"), both.place.values("to"));
        assert!(sent[..3].iter().all(|told| told["delivered"]["attempt"] == 1), "{sent:?}");
        assert_eq!(received[0], serde_json::json!([source, "in", "früh"]));
        assert_eq!(received[1], serde_json::json!([source, "in", "spät"]));
        assert_eq!(sent[3], received[2], "bit for bit");
    }
}

#[test]
fn a_target_that_ended_is_told_from_one_that_never_was_and_from_one_that_does_not_listen() {
    let test = "a_target_that_ended_is_told_from_one_that_never_was";
    for both in each(test) {
        both.far("over", "sys.exit(3)", &[]);
        both.place.world.wait("over").unwrap();
        let over = both.place.world.result("over").unwrap()["id"].as_str().unwrap().to_owned();
        let target = both.far("to", "task.receive('end')", &[]);
        let send = "
begun = time.monotonic()
tell(lambda: task.send(sys.argv[1], 'in'))
tell(lambda: task.send('01890a5d-ac96-774b-bcce-b302099a8057', 'in'))
print(time.monotonic() - begun < 60)
tell(lambda: task.send(sys.argv[2], 'in', wait=1))
tell(lambda: task.send(sys.argv[2], 'end'))
";
        both.place.python("from", send, &[&over, &target]);
        let told = both.place.told("from");
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[..4], ["finished failed", "unknown", "True", "not_listening"], "{told}");
        assert!(lines[4].contains("delivered"), "{told}");
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
        both.daemon = both.place.world.run_with(&both.far, &["--slots", "4"]).unwrap();
        let sent = both.place.values("from");
        assert_eq!(sent[0]["delivered"]["attempt"], 1);
        assert_eq!(both.place.values("late")[0][2], "x");
    }
}
