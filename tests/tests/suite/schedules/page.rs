//! The page on schedules: each of its commands is run as it stands there, with shorter times and
//! with programs of the test's, and its three examples do what it says.

use super::{shown, until};
use clutch_tests::process::{Output, run};
use clutch_tests::world::{SOON, World};
use clutch_tests::{binaries, poll, workspace};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The blocks of a language in the page, in order.
fn blocks(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(workspace().join("docs/schedules.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The commands of the page that begin so.
fn commands(beginning: &str) -> Vec<String> {
    let all: Vec<String> = blocks("sh")
        .iter()
        .flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(all.iter().all(|line| line.starts_with("clutch-service ")), "{all:#?}");
    let chosen: Vec<String> = all.into_iter().filter(|line| line.starts_with(beginning)).collect();
    assert!(!chosen.is_empty(), "the page has no `{beginning} …`");
    chosen
}

/// Runs a command of the page in a world, with these words in the place of others.
fn play(world: &World, command: &str, instead: &[(&str, &str)]) -> Output {
    let mut line = command.to_owned();
    for (word, other) in instead {
        assert!(line.contains(word), "`{command}` has no {word}");
        line = line.replace(word, other);
    }
    let programs = binaries::folder().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).envs(world.environment()).current_dir(world.folder());
    shell.env("PATH", format!("{programs}:{path}"));
    run(shell, b"", SOON).unwrap().ok().unwrap()
}

/// A program of the test's.
fn program(world: &World, name: &str, script: &str) -> String {
    let path = world.folder().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn until_there(path: &Path) {
    poll::until(&path.display().to_string(), SOON, || Ok(path.exists().then_some(()))).unwrap();
}

/// A world over a folder, in which everything runs.
fn world() -> (World, [clutch_tests::process::Daemon; 2]) {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    let daemons = [world.serve().unwrap(), world.run(&endpoint).unwrap()];
    (world, daemons)
}

#[test]
fn a_mail_is_sent_once_outside_of_the_request_though_the_first_try_fails() {
    let (world, _daemons) = world();
    let [mail] = &commands("clutch-service submit lab --key mail-")[..] else { panic!("one mail") };
    std::fs::write(world.folder().join("mail-4711.eml"), "Subject: hello\n").unwrap();
    let (tried, sent) = (world.folder().join("tried"), world.folder().join("sent"));
    let script = format!(
        "mkdir {} 2>/dev/null && exit 75; test \"$*\" = -t && cat >> {}",
        tried.display(),
        sent.display()
    );
    let sendmail = program(&world, "sendmail", &script);
    let instead = [("10s..10m", "100ms..200ms"), ("/usr/sbin/sendmail", sendmail.as_str())];
    play(&world, mail, &instead);
    until_there(&sent);
    world.wait("mail-4711").unwrap().ok().unwrap();
    let again = play(&world, mail, &instead).text();
    assert!(again.contains("nothing was done"), "{again}");
    assert_eq!(std::fs::read_to_string(sent).unwrap(), "Subject: hello\n");
}

#[test]
fn a_file_is_removed_at_its_moment_and_never_before() {
    let (world, _daemons) = world();
    let [drop_it] = &commands("clutch-service submit lab --key drop-")[..] else { panic!("one") };
    let file = world.folder().join("upload");
    std::fs::write(&file, "7").unwrap();
    let path = file.display().to_string();
    play(&world, drop_it, &[("2days", "3s"), ("/srv/uploads/7", &path)]);
    let listed = world.service(&["tasks", "--key", "drop-upload-7", "--json"]).unwrap();
    let id = listed.json().unwrap()["id"].as_str().unwrap().to_owned();
    let task: Value = world.service(&["show", &id, "--json"]).unwrap().json().unwrap();
    let due = task["due_at_ms"].as_u64().unwrap();
    let gone = poll::until("the file to be gone", SOON, || Ok((!file.exists()).then(now_ms)));
    assert!(gone.unwrap() >= due, "it was removed early");
    world.wait("drop-upload-7").unwrap().ok().unwrap();
}

#[test]
fn expired_leases_are_found_by_one_schedule_however_often_it_is_added() {
    let (world, _daemons) = world();
    let folder = world.folder().join("leases");
    std::fs::create_dir(&folder).unwrap();
    let now = now_ms() / 1000;
    let lease = |name: &str, until: u64| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, until.to_string()).unwrap();
        path
    };
    let (old, soon, kept) =
        (lease("old", now - 1), lease("soon", now + 2), lease("kept", now + 9999));
    let script = format!(
        "for lease in {}/*; do test $(cat $lease) -gt $(date +%s) || rm $lease; done",
        folder.display()
    );
    let expire = program(&world, "expire-leases", &script);
    let [add] = &commands("clutch-service schedule add leases")[..] else { panic!("one schedule") };
    let instead = [("--every 1m", "--every 1s"), ("/srv/bin/expire-leases", expire.as_str())];
    play(&world, add, &instead);
    let again = play(&world, add, &instead).text();
    assert!(again.contains("the same: nothing was changed"), "{again}");
    poll::until("the leases to be gone", SOON, || {
        Ok((!old.exists() && !soon.exists()).then_some(()))
    })
    .unwrap();
    assert!(kept.exists() && now_ms() / 1000 >= now + 2, "a lease was taken early");
    let ends = until(&world, "leases", "a look after that", |all| super::succeeded(all) >= 3);
    assert!(ends.iter().all(|one| one["end"] != "failed"), "{ends:?}");
    for command in commands("clutch-service schedule show leases") {
        assert!(play(&world, &command, &[]).text().contains("every 1s"));
    }
}

#[test]
fn the_other_commands_of_the_page_and_its_file_work_in_their_order() {
    let (world, _daemons) = world();
    let [file] = &blocks("toml")[..] else { panic!("one file") };
    std::fs::write(world.folder().join("schedules.toml"), file).unwrap();
    for command in commands("clutch-service schedule ") {
        play(&world, &command, &[]);
    }
    assert_eq!(shown(&world, "nightly")["owner"], "site");
    assert_eq!(shown(&world, "index")["spec"]["policy"]["overlap"], "queue-one");
    assert_eq!(shown(&world, "leases")["owner"], Value::Null);
}
