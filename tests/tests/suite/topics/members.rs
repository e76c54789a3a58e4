//! Which members a topic has, and what they offer.

use super::{ASK, Cloud, TOPIC, on_both};
use clutch_tests::poll;
use clutch_tests::world::SOON;
use serde_json::Value;

/// The function in the first version, and in the second.
fn versioned(version: &str) -> String {
    format!("{ASK}version = \"{version}\"\n")
}

/// The one value of a submission.
fn value(cloud: &Cloud, key: &str) -> Value {
    cloud.done(key).remove(0)["result"]["value"].clone()
}

#[test]
fn a_member_is_listed_with_all_it_offers_and_gone_soon_after_it_ends() {
    let test = "a_member_is_listed_with_all_it_offers_and_gone_soon_after_it_ends";
    on_both(test, |cloud| {
        let mut member = cloud.member("one", 3, &versioned("7"));
        let listed = cloud.members();
        let one = listed.iter().find(|it| it["name"] == "one").unwrap();
        assert_eq!(one["slots"], 3, "{one}");
        let functions = one["functions"].as_array().unwrap();
        let ask = functions.iter().find(|it| it["name"] == "ask").unwrap();
        assert_eq!(ask["version"], "7", "{one}");
        let text = cloud.world.service(&["topic", "show", TOPIC]).unwrap().ok().unwrap().text();
        assert!(["one", "ask", "7"].iter().all(|word| text.contains(word)), "{text}");
        let topics = cloud.world.service(&["topics"]).unwrap().ok().unwrap().text();
        assert!(topics.contains(TOPIC), "{topics}");
        member.daemon.stop(SOON).unwrap();
        cloud.until_listed("one", false);
    });
}

#[test]
fn instances_are_waited_for_and_those_that_are_missing_are_told() {
    on_both("instances_are_waited_for_and_those_that_are_missing_are_told", |cloud| {
        // A second topic of one member makes no second member.
        let first = cloud.provisioned("one", "");
        let file = std::fs::read_to_string(&first.config).unwrap();
        let both = file.replace(&format!("[\"{TOPIC}\"]"), &format!("[\"{TOPIC}\", \"other\"]"));
        assert_ne!(file, both, "the file names its topics otherwise");
        std::fs::write(&first.config, both).unwrap();
        let _first = cloud.start(first, 1);
        cloud.until_listed("one", true);
        assert_eq!(cloud.wait_for("1", "60s").code, 0);
        let missing = cloud.wait_for("2", "1s");
        assert_eq!(missing.code, 75, "{missing:?}");
        assert!(missing.stderr.contains('1') && missing.stderr.contains(TOPIC), "{missing:?}");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cloud.wait_for("2", "110s"));
            let _second = cloud.member("two", 1, "");
            assert_eq!(waiting.join().unwrap().code, 0);
        });
    });
}

#[test]
fn a_task_that_no_member_can_do_says_so_and_runs_when_one_comes() {
    let test = "a_task_that_no_member_can_do_says_so_and_runs_when_one_comes";
    on_both(test, |cloud| {
        let task = cloud.submit("early", &["--call", "ask"]).remove(0);
        cloud.waits_for(&task, &[TOPIC]);
        let _other = cloud.member("other", 1, "");
        cloud.waits_for(&task, &["ask", "other"]);
        assert_eq!(cloud.shown(&task)["state"], "waiting");
        let _able = cloud.member("able", 1, ASK);
        cloud.done("early");
        assert_eq!(cloud.shown(&task)["endpoint_name"], "able");
    });
}

#[test]
fn a_version_is_asked_for_and_the_one_that_is_there_is_told() {
    on_both("a_version_is_asked_for_and_the_one_that_is_there_is_told", |cloud| {
        let mut member = cloud.member("one", 1, &versioned("1"));
        cloud.submit("any", &["--call", "ask"]);
        cloud.done("any");
        let asked = ["--function-version", "2", "--call", "ask"];
        let task = cloud.submit("later", &asked).remove(0);
        cloud.waits_for(&task, &["ask", "2", "1"]);
        cloud.offer(&member.endpoint, &versioned("1"), &versioned("2"));
        cloud.restart(&mut member);
        cloud.done("later");
    });
}

#[test]
fn a_function_that_was_removed_meanwhile_runs_elsewhere() {
    on_both("a_function_that_was_removed_meanwhile_runs_elsewhere", |cloud| {
        let mut first = cloud.member("first", 1, ASK);
        // Its task waits in its queue, as it was told of before it had another file.
        first.daemon.signal("STOP").unwrap();
        let task = cloud.submit("k", &["--call", "ask"]).remove(0);
        poll::until("it is placed", SOON, || {
            Ok((cloud.shown(&task)["endpoint_name"] == "first").then_some(()))
        })
        .unwrap();
        cloud.offer(&first.endpoint, ASK, "");
        cloud.restart(&mut first);
        cloud.waits_for(&task, &["ask"]);
        let _second = cloud.member("second", 1, ASK);
        let answered = value(&cloud, "k");
        assert_eq!(answered["asked"]["attempt"], 2, "{answered}");
        assert_eq!(cloud.shown(&task)["endpoint_name"], "second");
        // The first one still is a member that runs what it offers.
        cloud.run("process", &["--array", "1-4"], "true");
        cloud.done("process");
    });
}

#[test]
fn what_cannot_be_asked_for_is_answered_with_what_is_known() {
    on_both("what_cannot_be_asked_for_is_answered_with_what_is_known", |cloud| {
        let member = cloud.member("one", 1, ASK);
        let unknown = ["--place-within", "1s", "--call", "no.such"];
        let unknown = cloud.submit("unknown", &unknown).remove(0);
        let expired = cloud.until_state(&unknown, "expired");
        let reason = expired["results"][0]["reason"].as_str().unwrap_or_default();
        for word in [TOPIC, "no.such", "one"] {
            assert!(reason.contains(word), "{word}: {expired}");
        }
        let unread = ["submit", "--topic", TOPIC, "--call", "ask", "--json-arg", "{"];
        let refused = cloud.world.service(&unread).unwrap();
        assert!(refused.code != 0 && refused.stderr.contains("--json-arg"), "{refused:?}");
        let refused = cloud.world.service(&["submit", "--topic", "a b", "--", "true"]).unwrap();
        assert!(refused.code != 0 && refused.stderr.contains("a b"), "{refused:?}");
        cloud.submit("good", &["--call", "ask", "--json-kwarg", "x=1"]);
        cloud.done("good");
        assert!(!member.daemon.log().unwrap().contains("\"level\":\"ERROR\""));
    });
}

#[test]
fn a_step_tells_how_far_it_is_and_a_silent_one_that_it_ran() {
    on_both("a_step_tells_how_far_it_is_and_a_silent_one_that_it_ran", |cloud| {
        let _member = cloud.member("one", 2, "");
        let (_, gate) = cloud.gated("silent", &[]);
        let told = clutch_tests::gate::Gate::new(cloud.world.folder(), "told");
        let script = format!("echo '20% a fifth' >> \"$CLUTCH_PROGRESS\"; {}", told.line());
        let task = cloud.run("told", &[], &script).remove(0);
        let mut last = Value::Null;
        poll::until("its progress", SOON, || {
            last = cloud.shown(&task);
            Ok(last.to_string().contains("a fifth").then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {last}"));
        told.open().unwrap();
        gate.open().unwrap();
        cloud.done("told");
        cloud.done("silent");
    });
}
