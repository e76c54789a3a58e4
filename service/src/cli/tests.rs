//! Command lines that are accepted, and ones that are refused.

use super::*;
use clap::CommandFactory as _;
use clutch_common::task::json::Json;

#[test]
fn verify_cli() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_takes_the_global_flags_on_either_side() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for command in [
        &["demo"][..],
        &["provision", "e"],
        &["serve"],
        &["doctor"],
        &["submit", "e"],
        &["tasks"],
        &["show", id],
        &["wait", id],
        &["results", id],
        &["forget", "--key", "k"],
        &["dead-letters", "list"],
        &["dead-letters", "drop", "h"],
        &["schedule", "list"],
        &["schedule", "edit", "s", "--every", "1h"],
        &["schedule", "apply", "f", "--prune"],
    ] {
        let global = ["--state", "/s", "--database", "d", "--json"];
        let program = if command[0] == "submit" { &["--", "true"][..] } else { &[] };
        let before = [&["c"][..], &global, command, program].concat();
        let after = [&["c"][..], command, &global, program].concat();
        for line in [before, after] {
            let cli = Cli::try_parse_from(&line).unwrap();
            assert_eq!(cli.global.state, Some(PathBuf::from("/s")), "{line:?}");
            assert_eq!(cli.global.database, Some(PathBuf::from("d")), "{line:?}");
            assert!(cli.global.json, "{line:?}");
        }
    }
}

#[test]
fn a_broker_is_taken_by_the_commands_that_speak_to_it_and_by_no_other() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let taken = |command: &[&str]| {
        let program = if command[0] == "submit" { &["--", "true"][..] } else { &[] };
        let line = [&["c"][..], command, &["--broker", "amqp://u:sesame@h"], program].concat();
        let cli = Cli::try_parse_from(line).ok()?;
        assert!(!format!("{cli:?}").contains("sesame"));
        cli.command.broker().map(|url| url.expose().to_owned())
    };
    for command in [
        &["provision", "e"][..],
        &["deprovision", "e"],
        &["serve"],
        &["doctor"],
        &["dead-letters", "list"],
        &["dead-letters", "drop", "h"],
    ] {
        assert_eq!(taken(command).as_deref(), Some("amqp://u:sesame@h"), "{command:?}");
    }
    for command in [
        &["demo"][..],
        &["submit", "e"],
        &["tasks"],
        &["show", id],
        &["wait", id],
        &["results", id],
        &["forget", "--key", "k"],
    ] {
        assert_eq!(taken(command), None, "{command:?}");
    }
}

#[test]
fn a_mistake_is_told_without_passwords_and_with_the_place_of_a_broker() {
    let words = |line: &[&str]| mistake(&Cli::try_parse_from(line).unwrap_err());
    let stray = words(&["c", "doctor", "amqp://u:sesame@h"]);
    assert!(stray.contains("amqp://u:***@h") && !stray.contains("sesame"), "{stray}");
    let misplaced = words(&["c", "tasks", "--broker", "amqp://u:sesame@h"]);
    assert!(misplaced.contains("provision, deprovision, serve, doctor"), "{misplaced}");
}

#[test]
fn the_program_keeps_its_own_flags() {
    let cli = Cli::try_parse_from(["c", "submit", "e", "--wait", "--", "ls", "--json"]);
    let cli = cli.unwrap();
    assert!(!cli.global.json);
    let Command::Submit(args) = cli.command else { panic!("not a submit") };
    assert_eq!(args.task.argv, ["ls", "--json"]);
}

#[test]
fn arguments_of_a_call_are_json_and_keep_their_order() {
    let line = ["c", "submit", "e", "--call", "f", "--json-arg", "-1", "--json-arg", "{}"];
    let line = [&line[..], &["--json-kwarg", "a=[1, 2]"]].concat();
    let Command::Submit(args) = Cli::try_parse_from(line).unwrap().command else {
        panic!("not a submit")
    };
    let texts: Vec<&str> = args.task.json_arg.iter().map(Json::text).collect();
    assert_eq!(texts, ["-1", "{}"]);
    assert_eq!(args.task.json_kwarg[0].1.text(), "[1, 2]");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for line in [
        &["c", "submit", "e"][..],
        &["c", "submit", "e", "--walltime", "0s", "--", "true"],
        &["c", "submit", "e", "--env", "novalue", "--", "true"],
        &["c", "submit", "e", "--each-line", "f", "--array", "1-2", "--", "true"],
        &["c", "submit", "e", "--name", "", "--", "true"],
        &["c", "submit", "e", "--call", "f", "--", "true"],
        &["c", "submit", "e", "--call", "f", "--cwd", "/"],
        &["c", "submit", "e", "--call", "f", "--json-arg", "[1"],
        &["c", "submit", "e", "--call", "f", "--json-kwarg", "a=[1"],
        &["c", "submit", "e", "--json-arg", "1", "--", "true"],
        &["c", "tasks", "--watch", "--name", "n"],
        &["c", "results", "--values", "--json", "--key", "k"],
        &["c", "results", "--values", "--to", "d", "--key", "k"],
        &["c", "forget"],
        &["c", "forget", "--key", "k", "--older-than", "1h"],
        &["c", "forget", "--older-than", "0s"],
        &["c", "serve", "--keep", "30"],
        &["c", "show", "7"],
        &["c", "wait"],
        &["c", "results", "--stdout-only", "--json", "--key", "k"],
        &["c", "provision", "e", "--heartbeat", "soon"],
        &["c", "provision", "e", "--heartbeat", "99999s"],
        &["c", "provision", ".."],
        &["c", "provision", id],
        &["c", "provision", "e", "--lost-after", "9s"],
        &["c", "provision", "e", "--lost-after", "31days"],
        &["c", "demo", "--files", "0"],
        &["c", "dead-letters", "requeue"],
        &["c", "dead-letters", "drop", "h", "--all"],
        &["c", "dead-letters", "show", "h", "--raw", "--json"],
        &["c", "submit", "e", "--shell", "--call", "f"],
        &["c", "schedule", "add", "s", "e", "--", "true"],
        &["c", "schedule", "add", "s", "e", "--every", "1h"],
        &["c", "schedule", "edit", "s", "--every", "1h", "--cron", "@daily"],
        &["c", "schedule", "edit", "s", "--unset", "endpoint"],
    ] {
        assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
    }
}
