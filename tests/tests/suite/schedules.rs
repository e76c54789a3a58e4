//! Schedules by their commands: added, shown, changed, paused, run, removed and applied from a
//! file; what they fire over restarts and without a broker; and the page that describes them.

mod page;

use crate::running;
use clutch_tests::poll;
use clutch_tests::process::{Daemon, Output};
use clutch_tests::world::{SOON, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// Runs `schedule` with arguments, to its end, however that is.
fn schedule(world: &World, arguments: &[&str]) -> Output {
    world.service(&[&["schedule"], arguments].concat()).unwrap()
}

/// Runs `schedule`, which must succeed, and returns its output.
fn done(world: &World, arguments: &[&str]) -> String {
    schedule(world, arguments).ok().unwrap().text()
}

/// Runs `schedule`, which must fail, and returns its exit code and its words.
fn refused(world: &World, arguments: &[&str]) -> (i32, String) {
    let output = schedule(world, arguments);
    assert_ne!(output.code, 0, "{arguments:?}: {}", output.text());
    (output.code, output.stderr)
}

/// A schedule in full.
fn shown(world: &World, name: &str) -> Value {
    schedule(world, &["show", name, "--json"]).ok().unwrap().json().unwrap()
}

/// The last occurrences of a schedule, the oldest first.
fn occurrences(world: &World, name: &str) -> Vec<Value> {
    let mut all = shown(world, name)["occurrences"].as_array().unwrap().clone();
    all.reverse();
    all
}

/// Waits until some occurrences of a schedule fulfil a condition together, and returns all.
fn until(world: &World, name: &str, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    poll::until(what, SOON, || {
        let all = occurrences(world, name);
        Ok(is(&all).then_some(all))
    })
    .unwrap()
}

fn succeeded(all: &[Value]) -> usize {
    all.iter().filter(|one| one["state"] == "succeeded").count()
}

/// Makes sure that each second between the first and the last has one record.
fn without_gap(all: &[Value]) {
    let instants: Vec<i64> = all.iter().map(|one| one["instant_ms"].as_i64().unwrap()).collect();
    for pair in instants.windows(2) {
        assert_eq!(pair[1] - pair[0], 1000, "{instants:?}");
    }
    assert!(instants.iter().all(|ms| ms % 1000 == 0), "another phase: {instants:?}");
}

/// Fires each second through a restart of the service, in a world in which everything runs.
fn fires_over_a_restart(world: &World, service: &mut Daemon) {
    let add = ["add", "tick", "lab", "--every", "1s", "--overlap", "allow", "--"];
    let add = [&add[..], &["date", "+%s%3N"]].concat();
    let added = done(world, &add);
    assert!(added.starts_with("added tick: every 1s; next "), "{added}");
    until(world, "tick", "three tasks", |all| succeeded(all) >= 3);
    service.kill().unwrap();
    let killed = SystemTime::now();
    poll::until("two instants to pass", SOON, || {
        Ok((killed.elapsed()? > Duration::from_millis(2500)).then_some(()))
    })
    .unwrap();
    *service = world.serve().unwrap();
    let again = done(world, &add);
    assert!(again.contains("the same: nothing was changed"), "{again}");
    let missed = |all: &[Value]| all.iter().any(|one| one["reason"] == "missed");
    let all = until(world, "tick", "tasks after the restart", |all| {
        let after = all.iter().skip_while(|one| one["reason"] != "missed");
        missed(all) && after.filter(|one| one["state"] == "succeeded").count() >= 3
    });
    without_gap(&all);
    for one in all.iter().filter(|one| one["state"] == "succeeded") {
        let id = one["task"].as_str().unwrap();
        let result = world.service(&["results", id, "--json"]).unwrap().ok().unwrap();
        let result = result.json().unwrap();
        let began: i64 = result["result"]["stdout"].as_str().unwrap().trim().parse().unwrap();
        assert!(began >= one["instant_ms"].as_i64().unwrap(), "early: {one}");
    }
}

#[test]
fn a_schedule_fires_each_second_and_each_instant_of_a_restart_has_one_record() {
    let test = "a_schedule_fires_each_second_and_each_instant_of_a_restart_has_one_record";
    let Some(mut run) = running(test) else { return };
    fires_over_a_restart(&run.world, &mut run.service);
}

#[test]
fn a_schedule_fires_over_a_folder_and_keeps_its_phase_when_it_is_added_again() {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    let mut service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    fires_over_a_restart(&world, &mut service);
    let before = occurrences(&world, "tick");
    let removed = done(&world, &["remove", "tick"]);
    assert!(removed.starts_with("removed tick; "), "{removed}");
    let (code, words) = refused(&world, &["show", "tick"]);
    assert!(code == 1 && words.contains("there is no schedule 'tick'"), "{words}");
    done(&world, &["add", "tick", "lab", "--every", "1s", "--", "true"]);
    let last = before.last().unwrap()["instant_ms"].as_i64().unwrap();
    let after = until(&world, "tick", "tasks of the new one", |all| {
        all.iter().filter(|one| one["instant_ms"].as_i64() > Some(last)).count() >= 2
    });
    let instants: Vec<i64> = after.iter().map(|one| one["instant_ms"].as_i64().unwrap()).collect();
    let distinct: BTreeSet<&i64> = instants.iter().collect();
    assert_eq!(distinct.len(), instants.len(), "{instants:?}");
    assert!(instants.iter().all(|ms| ms % 1000 == 0), "{instants:?}");
}

#[test]
fn a_schedule_fires_without_a_broker_and_its_tasks_wait_for_the_link() {
    let test = "a_schedule_fires_without_a_broker_and_its_tasks_wait_for_the_link";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision("lab").unwrap();
    let nowhere = ["--broker", "amqp://guest:guest@127.0.0.1:1/away"];
    let mut away = world.launch_service(&nowhere).unwrap();
    away.wait_for("disengaged", SOON).unwrap();
    done(&world, &["add", "tick", "lab", "--every", "1s", "--overlap", "allow", "--", "true"]);
    let waiting = |all: &[Value]| all.iter().filter(|one| one["state"] == "waiting").count();
    let all = until(&world, "tick", "tasks that wait", |all| waiting(all) >= 2);
    let first = all[0]["task"].clone();
    away.stop(SOON).unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    done(&world, &["pause", "tick"]);
    let all =
        until(&world, "tick", "all that waited", |all| waiting(all) == 0 && succeeded(all) >= 2);
    assert!(all.iter().any(|one| one["task"] == first && one["state"] == "succeeded"), "{all:?}");
}

#[test]
fn a_schedule_whose_endpoint_is_gone_fails_with_its_reason_and_the_others_go_on() {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    let old = world.provision("old").unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    let each_second = ["--every", "1s", "--pause-after", "2", "--", "true"];
    done(&world, &[&["add", "gone", "old", "--from", "2199-01-01"], &each_second[..]].concat());
    done(&world, &[&["add", "well", "lab"], &each_second[..]].concat());
    world.service(&["endpoint", "remove", "old"]).unwrap().ok().unwrap();
    let (code, words) = refused(&world, &["run", "gone"]);
    assert!(code == 1 && words.contains("there is no endpoint 'old'"), "{words}");
    let (_, words) = refused(&world, &["edit", "gone", "--unset", "from"]);
    assert!(words.contains("gone: there is no endpoint 'old': known are lab"), "{words}");
    done(&world, &["remove", "gone"]);
    std::fs::remove_file(&old.config).unwrap();
    world.provision("old").unwrap();
    done(&world, &[&["add", "gone", "old"], &each_second[..]].concat());
    until(&world, "gone", "an instant", |all| !all.is_empty());
    world.service(&["endpoint", "remove", "old", "--end-tasks"]).unwrap().ok().unwrap();
    let failed = |all: &[Value]| all.iter().filter(|one| one["end"] == "failed").count();
    let all = until(&world, "gone", "failures", |all| failed(all) >= 2);
    let reason = all.last().unwrap()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("there is no endpoint 'old'"), "{reason}");
    let gone = shown(&world, "gone");
    assert_eq!(gone["pause_cause"], json!({ "kind": "failures", "count": 2 }), "{gone}");
    let listed = done(&world, &["list"]);
    assert!(listed.contains("(2 failures in a row)"), "{listed}");
    let before = succeeded(&occurrences(&world, "well"));
    until(&world, "well", "the other one to go on", |all| succeeded(all) > before.min(17));
}

#[test]
fn the_commands_say_what_they_did_and_what_is_wrong() {
    let world = World::in_folder().unwrap();
    world.provision("lab").unwrap();
    let hourly = ["add", "tidy", "lab", "--every", "1h", "--from", "2026-01-01T00:30"];
    let hourly = [&hourly[..], &["--walltime", "5m", "--", "rm", "-r", "/tmp/a b"]].concat();
    let (code, words) = refused(&world, &hourly);
    assert!(code == 69 && words.contains("no service is listening"), "{words}");
    let _service = world.serve().unwrap();
    assert!(done(&world, &hourly).starts_with("added tidy: every 1h, from 2026-01-01 00:30:00"));
    assert!(done(&world, &hourly).starts_with("tidy is there already, and the same"));
    for (arguments, code, told) in [
        (
            &["add", "a", "labb", "--every", "1h", "--", "true"][..],
            1,
            "a: there is no endpoint 'labb'",
        ),
        (&["add", "a", "lab", "--every", "1h", "--tz", "Berlin", "--", "x"], 64, "Europe/Berlin"),
        (&["add", "a", "lab", "--cron", "0 25 * * *", "--", "x"], 64, "hour: '25'"),
        (&["add", "a", "lab", "--every", "1h", "--array", "1-9", "--", "x"], 64, "is one task"),
        (&["add", "a b", "lab", "--every", "1h", "--", "x"], 64, "is no name of a schedule"),
        (&["add", "tidy", "lab", "--every", "2h", "--", "x"], 1, "every: 1h → 2h\n"),
        (&["show", "b"], 1, "there is no schedule 'b'"),
        (&["edit", "b", "--every", "1h"], 1, "there is no schedule 'b'"),
        (&["remove", "b"], 1, "there is no schedule 'b'"),
    ] {
        let (ended, words) = refused(&world, arguments);
        assert!(ended == code && words.contains(told), "{arguments:?}: {ended}: {words}");
    }
    let (_, words) = refused(&world, &["add", "tidy", "lab", "--every", "2h", "--", "x"]);
    assert!(words.contains("walltime: 5m → none") && words.contains("--replace takes"), "{words}");
    let replaced = [&hourly[..2], &["lab", "--every", "2h", "--replace", "--", "x"]].concat();
    assert!(done(&world, &replaced).contains("changed tidy: every 2h; next "));
    let edited = done(&world, &["edit", "tidy", "--walltime", "9m", "--jitter", "3m"]);
    assert!(
        edited.contains("walltime: none → 9m") && edited.contains("up to 3m later"),
        "{edited}"
    );
    let paused = done(&world, &["pause", "tidy", "--reason", "full"]);
    assert!(paused.contains("until `clutch-service schedule resume tidy`"), "{paused}");
    assert!(done(&world, &["pause", "tidy"]).contains("paused already"));
    assert!(done(&world, &["list"]).contains("(by hand: full)"));
    assert!(done(&world, &["show", "tidy"]).contains("none while it is paused; resumed now, at "));
    assert!(done(&world, &["resume", "tidy"]).starts_with("tidy goes on: every 2h"));
    assert!(done(&world, &["resume", "tidy"]).contains("was not paused"));
    let ran: Value = schedule(&world, &["run", "tidy", "--json"]).json().unwrap();
    let task = ran["task"].as_str().unwrap();
    let shown = done(&world, &["show", "tidy"]);
    assert!(shown.contains(&format!("  {task}, by hand")), "{shown}");
    assert_eq!(shown.lines().filter(|line| line.contains(", its task ")).count(), 5, "{shown}");
    let removed = done(&world, &["remove", "tidy"]);
    assert!(removed.contains(&format!("`clutch-service cancel {task}`")), "{removed}");
    assert!(done(&world, &["list"]).contains("There is no schedule yet"));
}

#[test]
fn a_file_makes_the_schedules_so_and_removes_what_it_declared_before() {
    let world = World::in_folder().unwrap();
    world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let file = world.folder().join("schedules.toml");
    let declare = |text: &str| std::fs::write(&file, text).unwrap();
    let apply =
        |options: &[&str]| schedule(&world, &[&["apply", "schedules.toml"], options].concat());
    let table = |name: &str, every: &str| {
        format!("[schedules.{name}]\nendpoint = 'lab'\nevery = '{every}'\nargv = ['true']\n")
    };
    declare("owner = 'site'\n[schedules.a]\nevery = '5x'\ntz = 'Berlin'\nwall = 3\n");
    let faulty = apply(&[]);
    assert_eq!(faulty.code, 78);
    assert!(faulty.stderr.contains("schedules.toml has 3 faults; nothing was changed"));
    for place in ["line 3, column 9: ", "line 4, column 6: ", "line 5, column 1: "] {
        assert!(faulty.stderr.contains(place), "{}", faulty.stderr);
    }
    declare(&format!("owner = 'site'\n{}", table("a", "1h").replace("lab", "nowhere")));
    let unknown = apply(&[]);
    let words = "line 2, column 12: a: there is no endpoint 'nowhere': known are lab";
    assert!(unknown.code == 78 && unknown.stderr.contains(words), "{}", unknown.stderr);
    done(&world, &["add", "mine", "lab", "--every", "1h", "--", "true"]);
    declare(&format!("owner = 'site'\n{}{}", table("a", "1h"), table("b", "1h")));
    let dry = apply(&["--dry-run"]).ok().unwrap().text();
    assert!(dry.contains("added      a\n") && dry.contains("nothing was changed"), "{dry}");
    let names = || -> Vec<String> {
        let listed = schedule(&world, &["list", "--json"]).json().unwrap();
        let all = listed["schedules"].as_array().unwrap().clone();
        all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(), ["mine"]);
    assert_eq!(apply(&[]).ok().unwrap().text(), "added      a\nadded      b\n");
    assert_eq!(apply(&["--prune"]).ok().unwrap().text(), "unchanged  a\nunchanged  b\n");
    declare(&format!("owner = 'site'\n{}{}", table("a", "2h"), table("c", "1h")));
    let changed = apply(&[]).ok().unwrap();
    assert!(changed.text().contains("changed    a                        every: 1h → 2h\n"));
    assert!(changed.stderr.contains("the file does not: b; --prune removes"), "{}", changed.stderr);
    let pruned = apply(&["--prune"]).ok().unwrap().text();
    assert!(pruned.contains("removed    b\n") && pruned.contains("unchanged  c\n"), "{pruned}");
    assert_eq!(names(), ["a", "c", "mine"], "one that was added by hand stays");
    let (_, words) = refused(&world, &["add", "a", "lab", "--every", "9h", "--replace", "--", "x"]);
    assert!(words.contains("declared by the owner 'site'"), "{words}");
    declare(&format!("owner = 'other'\n{}", table("a", "3h")));
    assert!(apply(&["--prune"]).stderr.contains("declared by the owner 'site'"));
    declare(&table("d", "3h"));
    assert!(apply(&["--prune"]).stderr.contains("write `owner = "));
}
