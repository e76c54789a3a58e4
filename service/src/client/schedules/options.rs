//! Turns the options of a command line into a schedule, or into changes of one.
//!
//! Touches the file that `--stdin` names.

use crate::cli::schedule::{EditArgs, ScheduleOptions, Unset};
use crate::client::task_options;
use crate::failure::usage;
use crate::model::{NamedSchedule, ScheduleSpec, TaskSpec};
use crate::schedule::Policy;
use std::collections::BTreeMap;

/// The schedule that options describe. Its tasks have its name unless they are given another.
pub(super) fn named(
    name: &str,
    endpoint: &str,
    options: &ScheduleOptions,
) -> anyhow::Result<NamedSchedule> {
    options.refused.check().map_err(usage)?;
    let base = TaskSpec { name: Some(name.to_owned()), ..TaskSpec::plain() };
    let schedule = NamedSchedule {
        name: name.to_owned(),
        spec: ScheduleSpec {
            endpoint: endpoint.to_owned(),
            rule: options.rule.rule(None).map_err(usage)?,
            policy: options.policy.policy(&Policy::default()).map_err(usage)?,
            task: task_options::one(base, &options.task)?,
            retry: task_options::retry(None, &options.task.retry)?,
        },
    };
    schedule.check().map_err(usage)?;
    Ok(schedule)
}

/// A schedule with what the arguments of `edit` change.
pub(super) fn edited(known: ScheduleSpec, args: &EditArgs) -> anyhow::Result<ScheduleSpec> {
    let (given, name) = (&args.given, &args.which.schedule);
    let options = &given.options;
    options.refused.check().map_err(usage)?;
    let known = args.unset.iter().fold(known, |spec, option| without(spec, *option, name));
    let spec = ScheduleSpec {
        endpoint: given.endpoint.clone().unwrap_or(known.endpoint),
        rule: options.rule.rule(Some(&known.rule)).map_err(usage)?,
        policy: options.policy.policy(&known.policy).map_err(usage)?,
        task: task_options::one(known.task, &options.task)?,
        retry: task_options::retry(known.retry, &options.task.retry)?,
    };
    let schedule = NamedSchedule { name: name.clone(), spec };
    schedule.check().map_err(usage)?;
    Ok(schedule.spec)
}

/// A schedule of this name for which an option was not given.
fn without(mut spec: ScheduleSpec, option: Unset, name: &str) -> ScheduleSpec {
    match option {
        Unset::From => spec.rule.from_ms = None,
        Unset::Until => spec.rule.until_ms = None,
        Unset::MaxRuns => spec.rule.max_runs = None,
        Unset::Jitter => spec.rule.jitter_ms = 0,
        Unset::Window => spec.policy.window_ms = Policy::default().window_ms,
        Unset::PauseAfter => spec.policy.pause_after = None,
        Unset::Name => spec.task.name = Some(name.to_owned()),
        Unset::Env => spec.task.env = BTreeMap::new(),
        Unset::Cwd => spec.task.cwd = None,
        Unset::Stdin => spec.task.stdin = TaskSpec::plain().stdin,
        Unset::Walltime => spec.task.walltime_ms = None,
        Unset::Expires => spec.task.expires_in_ms = None,
        Unset::NoRerun => spec.task.rerun = true,
        Unset::Retries => spec.retry = None,
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::schedule::{ScheduleCommand, ServiceCommand};
    use crate::cli::{Cli, Command};
    use crate::model::differences;
    use clap::Parser as _;

    fn asked(line: &[&str]) -> Result<ServiceCommand, String> {
        let line = [&["c", "schedule"], line].concat();
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Schedule(args) = cli.command else { panic!("another command") };
        let ScheduleCommand::Service(asked) = args.what else { panic!("a preview") };
        Ok(asked)
    }

    fn added(options: &[&str]) -> Result<NamedSchedule, String> {
        let line = [&["add", "tidy", "lab"], options].concat();
        let ServiceCommand::Add(args) = asked(&line)? else { panic!("another command") };
        let named = named(&args.which.schedule, &args.endpoint, &args.options);
        named.map_err(|error| error.to_string())
    }

    fn changed(known: &NamedSchedule, options: &[&str]) -> Result<Vec<String>, String> {
        let line = [&["edit", "tidy"], options].concat();
        let ServiceCommand::Edit(args) = asked(&line)? else { panic!("another command") };
        let edited = edited(known.spec.clone(), &args).map_err(|error| error.to_string())?;
        Ok(differences(&known.spec, &edited))
    }

    #[test]
    fn a_schedule_has_every_option_of_a_task() {
        let options = [
            &["--cron", "0 3 * * *", "--tz", "Europe/Berlin", "--from", "2026-12-01"][..],
            &["--overlap", "queue-one", "--catch-up", "all", "--window", "6h"],
            &["--pause-after", "3", "--retries", "2", "--walltime", "1h", "--env", "A=1"],
            &["--priority", "high", "--", "tar", "cf", "/b", "{}"],
        ];
        let NamedSchedule { name, spec } = added(&options.concat()).unwrap();
        assert_eq!((name.as_str(), spec.endpoint.as_str()), ("tidy", "lab"));
        assert_eq!(spec.rule.from_ms, Some(1_796_079_600_000), "midnight of the zone");
        assert_eq!((spec.policy.window_ms, spec.policy.pause_after), (21_600_000, Some(3)));
        assert_eq!(
            (spec.task.name.as_deref(), spec.task.walltime_ms),
            (Some("tidy"), Some(3_600_000))
        );
        assert_eq!(spec.task.argv.len(), 4);
        assert_eq!(spec.retry.map(|retry| retry.retries), Some(2));
        let call = added(&["--every", "1m", "--call", "f", "--json-arg", "[1]"]).unwrap();
        assert_eq!(call.spec.task.call.unwrap().to_string(), "f([1])");
    }

    #[test]
    fn an_edit_changes_what_is_given_and_takes_back_what_is_named() {
        let options = ["--every", "1h", "--jitter", "5m", "--env", "A=1", "--", "a"];
        let known = added(&options).unwrap();
        assert_eq!(changed(&known, &[]).unwrap(), Vec::<String>::new());
        assert_eq!(changed(&known, &["--every", "2h"]).unwrap(), ["every: 1h → 2h"]);
        assert_eq!(changed(&known, &["--endpoint", "b"]).unwrap(), ["endpoint: lab → b"]);
        let program = changed(&known, &["--unset", "jitter,env", "--", "b"]).unwrap();
        assert_eq!(program, ["jitter: 5m → 0s", r#"argv: ["a"] → ["b"]"#, "env A: 1 → none"]);
        let words = changed(&known, &["--call", "f"]).unwrap_err();
        assert!(words.contains("a call takes no env"), "{words}");
        assert!(changed(&known, &["--unset", "env", "--call", "f"]).is_ok());
    }

    #[test]
    fn an_option_that_means_nothing_to_a_schedule_is_refused_in_words() {
        for (options, told) in [
            (&["--array", "1-9"][..], "each instant of a schedule is one task"),
            (&["--each-line", "f"], "each instant of a schedule is one task"),
            (&["--at", "2026-12-01"], "--from is the first moment"),
            (&["--in", "2h"], "--from is the first moment"),
            (&["--key", "k"], "known by its name"),
            (&["--wait"], "`schedule show NAME`"),
            (&["--confirmed"], "once there is a link"),
            (&["--pause-after", "0"], "after 1 failure at the earliest"),
            (&["--window", "5ms"], "at least 1s"),
            (&["--overlap", "both"], "queue-one"),
            (&["--backoff", "5s"], "need --retries"),
            (&["--cron", "@daily"], "cannot be used with"),
        ] {
            let line = [&["--every", "1m"], options, &["--", "true"]].concat();
            let words = added(&line).unwrap_err();
            assert!(words.contains(told), "{options:?}: {words}");
        }
        for (line, told) in [
            (&["--every", "1m"][..], "--call <NAME>"),
            (&["--", "true"], "--every <TIME>|--cron <FIELDS>"),
            (&["--cron", "61 * * * *", "--", "true"], "'61' is not in 0 to 59"),
            (&["--cron", "@daily", "--tz", "berlin", "--", "true"], "such as Europe/Berlin"),
        ] {
            let words = added(line).unwrap_err();
            assert!(words.contains(told), "{line:?}: {words}");
        }
    }
}
