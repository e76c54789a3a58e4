//! A wrong configuration, folder or broker of the endpoint.

use super::{Row, judge, still_works};
use crate::running;
use clutch_tests::process::{Output, run};
use clutch_tests::world::{Endpoint, SOON, World};
use clutch_tests::{machine, skip};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of the endpoint's file with one text put in place of another.
fn edited(world: &World, endpoint: &Endpoint, from: &str, to: &str) -> PathBuf {
    let text = std::fs::read_to_string(&endpoint.config).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    let path = world.folder().join(format!("{}.toml", uuid::Uuid::new_v4()));
    // The copy has the rights of the original, which others cannot read.
    std::fs::copy(&endpoint.config, &path).unwrap();
    std::fs::write(&path, text.replace(from, to)).unwrap();
    path
}

/// Runs the daemon with a configuration and a state folder of its own.
fn start(world: &World, config: &Path, state: &Path) -> Output {
    let (config, state) = (config.display().to_string(), state.display().to_string());
    let command = world.endpoint_command(&["run", "--config", &config, "--state", &state]);
    run(command, b"", 2 * SOON).unwrap()
}

#[test]
fn a_bad_configuration_ends_the_daemon_in_words() {
    let Some(run) = running("a_bad_configuration_ends_the_daemon_in_words") else { return };
    let (world, endpoint) = (&run.world, &run.endpoint);
    let state = world.folder().join("another-state");
    let started = |from: &str, to: &str| start(world, &edited(world, endpoint, from, to), &state);
    let url = world.vhost().url();
    let (other_password, vhost) =
        (world.vhost().url_as("guest", "wrong").unwrap(), world.vhost().name());
    let gone = world.provision("gone").unwrap();
    world.vhost().delete(&format!("{}.tasks", gone.id)).unwrap();
    let missing = world.folder().join("missing.toml");
    let prose = world.folder().join("prose.toml");
    std::fs::write(&prose, "dear diary\n").unwrap();
    let row = |input, seen, code, words| Row { input, seen, code, words };
    let rows = [
        row(
            "an unknown key",
            started("[broker]", "[broker]\ncolour = \"red\""),
            78,
            &["unknown field", "colour"],
        ),
        row("an unknown section", started("[broker]", "[colours]\n[broker]"), 78, &["colours"]),
        row(
            "a key that is missing",
            started("heartbeat = \"10s\"", ""),
            78,
            &["missing field", "heartbeat"],
        ),
        row("a duration that is none", started("\"10s\"", "\"soon\""), 78, &["soon", "duration"]),
        row("a heartbeat of 0", started("\"10s\"", "\"0s\""), 78, &["heartbeat"]),
        row("no slots", started("[broker]", "[engine]\nslots = 0\n[broker]"), 78, &["slots"]),
        row("no such file", start(world, &missing, &state), 78, &["missing.toml"]),
        row("a file that is no TOML", start(world, &prose, &state), 78, &["prose.toml"]),
        row(
            "a URL that is none",
            started(&url, "nonsense"),
            78,
            &["amqp://user:password@host:5672/vhost"],
        ),
        row("a URL of another kind", started("\"amqp://", "\"http://"), 78, &["scheme 'http'"]),
        row("a wrong password", started(&url, &other_password), 77, &["credentials"]),
        row("a vhost that does not exist", started(vhost, "nowhere"), 77, &["refused"]),
        row(
            "a queue that does not exist",
            start(world, &gone.config, &world.folder().join("state-of-gone")),
            69,
            &[".tasks", "clutch-service provision"],
        ),
        row(
            "the queue of another endpoint",
            started(&format!("\"{}.tasks", endpoint.id), &format!("\"{}.tasks", gone.id)),
            78,
            &["broker.tasks_queue", "provision the endpoint again"],
        ),
    ];
    judge(&rows);
    assert!(rows.iter().all(|row| !row.seen.stderr.contains("wrong@")), "a password was shown");
    still_works(world, "bad configurations");
}

#[test]
fn a_state_folder_that_cannot_be_used_ends_the_daemon_in_words() {
    let test = "a_state_folder_that_cannot_be_used_ends_the_daemon_in_words";
    let Some(world) = &World::or_skip(test) else { return };
    let endpoint = world.provision_with("lab", &["--heartbeat", "2s"]).unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    let config = &endpoint.config;
    let file = world.folder().join("file");
    std::fs::write(&file, "").unwrap();
    let other = world.provision("other").unwrap();
    let mut others_daemon = world.run(&other).unwrap();
    assert_eq!(others_daemon.stop(SOON).unwrap(), 0);
    let states = world.folder().join("state/clutch/endpoints");
    let row = |input, seen, code, words| Row { input, seen, code, words };
    judge(&[
        row("a state folder that is a file", start(world, config, &file), 73, &["not a folder"]),
        row(
            "a state folder below a file",
            start(world, config, &file.join("x")),
            73,
            &["not a folder"],
        ),
        row(
            "a state folder that cannot be made",
            start(world, config, Path::new("/proc/clutch")),
            73,
            &["/proc/clutch", "another state folder"],
        ),
        row(
            "two daemons on one folder",
            start(world, config, &states.join(&endpoint.id)),
            73,
            &["in use by another clutch-endpoint", "process"],
        ),
        row(
            "the state folder of another endpoint",
            start(world, config, &states.join(&other.id)),
            73,
            &["another endpoint"],
        ),
    ]);
    still_works(world, "bad state folders");
}

#[test]
fn a_read_only_file_system_ends_the_daemon_in_words() {
    let test = "a_read_only_file_system_ends_the_daemon_in_words";
    let Some(running) = running(test) else { return };
    let mount = "mount -t tmpfs -o ro none \"$1\" && shift && exec \"$@\"";
    let folder = running.world.folder().join("read-only");
    std::fs::create_dir(&folder).unwrap();
    let unshare = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", mount, "sh"]).arg(&folder).args(program);
        command
    };
    if !machine::is_root() || !unshare(&["true"]).status().is_ok_and(|status| status.success()) {
        return skip::because(test, "mounting a read-only file system is not permitted");
    }
    let config = running.endpoint.config.display().to_string();
    let state = folder.display().to_string();
    let daemon = running.world.endpoint_command(&["run", "--config", &config, "--state", &state]);
    let program = daemon.get_program().to_str().unwrap();
    let arguments: Vec<&str> = daemon.get_args().map(|word| word.to_str().unwrap()).collect();
    let seen = run(unshare(&[&[program], &arguments[..]].concat()), b"", SOON).unwrap();
    let words: &[&str] = &["read-only file system", "another state folder"];
    judge(&[Row { input: "a read-only file system", seen, code: 73, words }]);
    still_works(&running.world, "a read-only file system");
}

#[test]
fn a_second_daemon_with_the_same_id_is_told_so() {
    let test = "a_second_daemon_with_the_same_id_is_told_so";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = world.provision_with("lab", &["--heartbeat", "2s"]).unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    let seen = start(&world, &endpoint.config, &world.folder().join("second"));
    let words: &[&str] = &["another instance is connected", "only one instance"];
    judge(&[Row { input: "a second daemon with the same id", seen, code: 77, words }]);
    still_works(&world, "a second daemon");
}

#[test]
fn a_bad_command_line_is_refused_in_words() {
    let test = "a_bad_command_line_is_refused_in_words";
    let Some(world) = World::or_skip(test) else { return };
    let endpoint = |arguments: &[&str]| run(world.endpoint_command(arguments), b"", SOON).unwrap();
    let row = |input, seen, code, words| Row { input, seen, code, words };
    judge(&[
        row("no command", endpoint(&[]), 64, &["Usage"]),
        row("an unknown option", endpoint(&["run", "--fast"]), 64, &["--fast"]),
        row("slots that are no number", endpoint(&["run", "--slots", "all"]), 64, &["--slots"]),
    ]);
}
