//! Texts that people and other programs read: true, without passwords and
//! without what a terminal would act on; and bytes that are no text.

use crate::running;
use clutch_tests::process::{Output, run};
use clutch_tests::world::{SOON, World};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Clears a screen, turns a line around, and is no text.
const HOSTILE: &str = "\u{1b}[2J\u{202e}\u{9b}31m";

fn is_harmless(output: &Output) -> bool {
    let all = format!("{}{}", output.text(), output.stderr);
    !all.chars().any(|char| (char.is_control() && char != '\n') || char == '\u{202e}')
}

#[test]
fn what_a_task_says_of_itself_does_not_reach_the_terminal_as_it_is() {
    let Some(run) = running("what_a_task_says_of_itself_does_not_reach_the_terminal_as_it_is")
    else {
        return;
    };
    let world = &run.world;
    let folder = format!("/no/{HOSTILE}");
    let terms = ["--name", HOSTILE, "--cwd", &folder, "--env", &format!("A={HOSTILE}")];
    let submit = [&["submit", "lab", "--key", "k"][..], &terms, &["--", HOSTILE]].concat();
    world.service(&submit).unwrap().ok().unwrap();
    world.wait("k").unwrap();
    let id = world.result("k").unwrap()["id"].as_str().unwrap().to_owned();
    for command in [
        &["tasks"][..],
        &["show", &id],
        &["results", &id],
        &["results", "--key", "k"],
        &[&submit[..submit.len() - 2], &["--wait", "--", HOSTILE]].concat(),
        &["submit", HOSTILE, "--", "true"],
        &["tasks", "--endpoint", HOSTILE],
    ] {
        let seen = world.service(command).unwrap();
        assert!(is_harmless(&seen), "{command:?}: {:?} {:?}", seen.text(), seen.stderr);
    }
    let shown = world.service(&["show", &id]).unwrap().text();
    assert!(shown.contains(r"\u{1b}[2J\u{202e}\u{9b}31m"), "{shown}");
}

#[test]
fn a_task_may_have_arguments_a_folder_variables_and_lines_that_are_no_text() {
    let test = "a_task_may_have_arguments_a_folder_variables_and_lines_that_are_no_text";
    let Some(running) = running(test) else { return };
    let world = &running.world;
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let folder = world.folder().join(bytes(b"fol\xffder"));
    std::fs::create_dir(&folder).unwrap();
    let mut command = world.service_command(&["submit", "lab", "--wait", "--env"]);
    command.arg(bytes(b"A=\xfe")).arg("--cwd").arg(&folder);
    command.args(["--shell", "--", "pwd; printf %s \"$A\"; printf"]).arg(bytes(b"'\xfd'"));
    let seen = run(command, b"", SOON).unwrap().ok().unwrap();
    let expected = [folder.into_os_string().into_vec().as_slice(), b"\n\xfe\xfd"].concat();
    assert_eq!(seen.stdout, expected);

    let list = world.folder().join(bytes(b"li\xffst"));
    std::fs::write(&list, b"\xef\xbb\xbfone\r\ntw\xffo\r\n").unwrap();
    let mut command = world.service_command(&["submit", "lab", "--key", "lines", "--each-line"]);
    command.arg(&list).args(["--", "printf", "<%s>"]);
    run(command, b"", SOON).unwrap().ok().unwrap();
    world.wait("lines").unwrap();
    let printed = world.service(&["results", "--key", "lines", "--stdout-only"]).unwrap();
    assert_eq!(printed.stdout, b"<one><tw\xffo>");
    let shown = world.service(&["tasks", "--key", "lines"]).unwrap().ok().unwrap().text();
    assert!(shown.contains(r"tw\xffo"), "{shown}");
}

#[test]
fn what_cannot_be_written_to_stdout_is_no_success() {
    let Some(running) = running("what_cannot_be_written_to_stdout_is_no_success") else { return };
    let world = &running.world;
    let done = world.submit(&running.endpoint, "k", &["--", "echo", "hello"], SOON).unwrap();
    assert_eq!(done.text(), "hello\n");
    let config = running.endpoint.config.display().to_string();
    let service = |arguments: &[&str]| world.service_command(arguments);
    for mut command in [
        service(&["results", "--key", "k"]),
        service(&["results", "--key", "k", "--stdout-only"]),
        service(&["tasks", "--json"]),
        service(&["wait", "--key", "k"]),
        service(&["doctor"]),
        service(&["--help"]),
        service(&["submit", "lab", "--wait", "--", "echo", "hello"]),
        world.endpoint_command(&["check", "--config", &config]),
        world.endpoint_command(&["--help"]),
    ] {
        command.stdout(std::fs::File::create("/dev/full").unwrap());
        let ended = command.output().unwrap();
        let words = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{command:?}");
        assert!(words.contains("No space left"), "{command:?}: {words}");
    }
}

#[test]
fn a_key_that_was_used_submits_nothing_and_says_so() {
    let Some(running) = running("a_key_that_was_used_submits_nothing_and_says_so") else { return };
    let submit = ["submit", "lab", "--key", "k", "--array", "1-5", "--", "true"];
    let first = running.world.service(&submit).unwrap().ok().unwrap().text();
    assert!(first.starts_with("submitted 5 tasks"), "{first}");
    let again = running.world.service(&submit).unwrap().ok().unwrap().text();
    assert!(again.contains("all 5 tasks were submitted before"), "{again}");
}

#[test]
fn a_filter_that_is_none_is_told_and_hides_no_error() {
    let world = World::in_folder().unwrap();
    let check = |filter: &str| {
        let mut command = world.endpoint_command(&["run", "--config", "none.toml"]);
        command.env("CLUTCH_LOG", filter);
        run(command, b"", SOON).unwrap()
    };
    for filter in ["warning", "off", "loud", "debug", "clutch_common=debug"] {
        let seen = check(filter);
        assert_eq!(seen.code, 78);
        assert!(seen.stderr.contains("none.toml"), "{filter}: {}", seen.stderr);
        assert_eq!(seen.stderr.contains("CLUTCH_LOG"), filter == "loud", "{}", seen.stderr);
    }
}

fn exposed(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            if metadata.permissions().mode() & 0o077 != 0 {
                found.push(entry.path().display().to_string());
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn folders_that_others_could_read_are_taken_from_them() {
    let world = World::in_folder().unwrap();
    let all = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let (service, endpoint) = (world.folder().join("service"), world.folder().join("own"));
    for folder in [&service, &endpoint, &endpoint.join("queue")] {
        std::fs::create_dir(folder).unwrap();
        all(folder);
    }
    let lab = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let state = endpoint.display().to_string();
    let _daemon = world.run_with(&lab, &["--state", &state]).unwrap();
    let submit = ["submit", "lab", "--wait", "--", "true"];
    world.service(&submit).unwrap().ok().unwrap();
    for folder in [&service, &endpoint] {
        let mode = std::fs::metadata(folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", folder.display());
        assert_eq!(exposed(folder), [""; 0]);
    }
    assert_eq!(exposed(&world.spool()), [""; 0]);
}
