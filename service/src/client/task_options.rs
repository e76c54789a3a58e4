//! Turns the options of a command line that describe a task into the properties of one, of
//! `submit` and of schedules alike.
//!
//! Touches the files that options name, and stdin.

use crate::cli::retry::RetryPolicyArgs;
use crate::cli::task::TaskArgs;
use crate::client::expand::{CallTemplate, Items, Made, Pattern, Template};
use crate::failure::usage;
use crate::model::{RetryPolicy, TaskSpec};
use anyhow::Context as _;
use clutch_common::task::blob::Blob;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// A task with the properties that the options give, but not their work.
pub(super) fn changed(base: TaskSpec, args: &TaskArgs) -> anyhow::Result<TaskSpec> {
    let stdin = args.stdin.as_deref().map(|path| read(path, "--stdin")).transpose()?;
    let mut env = base.env;
    env.extend(args.env.iter().cloned());
    Ok(TaskSpec {
        name: args.name.clone().or(base.name),
        argv: base.argv,
        call: base.call,
        env,
        cwd: args.cwd.clone().or(base.cwd),
        stdin: stdin.map_or(base.stdin, Blob),
        walltime_ms: args.walltime.map(millis).or(base.walltime_ms),
        expires_in_ms: args.expires.map(millis).or(base.expires_in_ms),
        rerun: base.rerun && !args.no_rerun,
        priority: args.order.priority.unwrap_or(base.priority),
        cores: args.order.cores.unwrap_or(base.cores),
    })
}

/// The template of the work that the options give.
pub(super) fn pattern(args: &TaskArgs) -> anyhow::Result<Pattern> {
    let Some(function) = &args.call else {
        return Ok(Pattern::Program(Template::new(args.argv.clone(), args.shell)));
    };
    CallTemplate::new(function.clone(), args.json_arg.clone(), &args.json_kwarg)
        .map(Pattern::Function)
        .map_err(|reason| usage(format!("--json-kwarg: {reason}")))
}

/// The task with this work.
pub(super) fn with(base: &TaskSpec, made: Made) -> TaskSpec {
    match made {
        Made::Argv(argv) => TaskSpec { argv, call: None, ..base.clone() },
        Made::Call(call) => TaskSpec { call: Some(call), argv: Vec::new(), ..base.clone() },
    }
}

/// A task with all that the options give: one that has its work keeps it where they give none.
pub(super) fn one(base: TaskSpec, args: &TaskArgs) -> anyhow::Result<TaskSpec> {
    let base = changed(base, args)?;
    if args.call.is_none() && args.argv.is_empty() {
        return Ok(base);
    }
    let made = Items::One.expand(&pattern(args)?).next();
    Ok(made.map_or(base.clone(), |made| with(&base, made)))
}

/// When the service is to run tasks again by itself; a policy that is known keeps what the options
/// do not change.
pub(super) fn retry(
    known: Option<RetryPolicy>,
    args: &RetryPolicyArgs,
) -> anyhow::Result<Option<RetryPolicy>> {
    let RetryPolicyArgs { retries, backoff, retry_on } = args;
    if retries.is_none() && backoff.is_none() && retry_on.is_empty() {
        return Ok(known);
    }
    let mut policy = match (retries, known) {
        (Some(retries), None) => RetryPolicy::of(*retries),
        (Some(retries), Some(known)) => RetryPolicy { retries: *retries, ..known },
        (None, Some(known)) => known,
        (None, None) => return Err(usage("--backoff and --retry-on need --retries")),
    };
    if let Some((first, longest)) = backoff {
        (policy.first_pause_ms, policy.longest_pause_ms) = (millis(*first), millis(*longest));
    }
    if !retry_on.is_empty() {
        policy.on.clone_from(retry_on);
    }
    policy.check().map_err(|reason| usage(format!("--retries: {reason}")))?;
    Ok(Some(policy))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a path stands for this command's own stdin.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// The content of a file that an option names.
pub(super) fn read(path: &Path, option: &str) -> anyhow::Result<Vec<u8>> {
    if !is_stdin(path) {
        return std::fs::read(path)
            .map_err(|error| usage(format!("{option}: cannot read {}: {error}", path.display())));
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).with_context(|| format!("{option}: stdin"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;
    use clutch_common::task::result::Outcome;
    use std::collections::BTreeMap;

    fn args(line: &[&str]) -> TaskArgs {
        let line = [&["c", "submit", "e"], line].concat();
        let Command::Submit(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!("another command than submit");
        };
        args.task
    }

    #[test]
    fn options_change_what_they_name_and_leave_the_rest() {
        let first = args(&["--env", "A=1", "--walltime", "9s", "--no-rerun", "--", "a", "b"]);
        let first = one(TaskSpec::plain(), &first).unwrap();
        assert_eq!((first.walltime_ms, first.rerun, first.cores), (Some(9000), false, 1));
        let second = args(&["--env", "B=2", "--cores", "3", "--shell", "--", "c d"]);
        let second = one(first.clone(), &second).unwrap();
        let names: Vec<&str> = second.env.keys().map(String::as_str).collect();
        assert_eq!((names, second.walltime_ms, second.rerun), (vec!["A", "B"], Some(9000), false));
        assert_eq!((second.argv.len(), second.cores), (3, 3));
        let call = one(TaskSpec { env: BTreeMap::new(), ..first }, &args(&["--call", "f"]));
        let call = call.unwrap();
        assert!(call.argv.is_empty() && call.call.is_some() && call.check().is_ok(), "{call:?}");
    }

    #[test]
    fn retries_change_what_they_name_and_need_a_number() {
        let retries = |known: Option<RetryPolicy>, line: &[&str]| {
            retry(known, &args(&[line, &["--", "true"]].concat()).retry)
        };
        assert_eq!(retries(None, &[]).unwrap(), None);
        let three = retries(None, &["--retries", "3"]).unwrap();
        assert_eq!(three, Some(RetryPolicy::of(3)));
        let slow = retries(three.clone(), &["--backoff", "5s..9s", "--retry-on", "expired"]);
        let slow = slow.unwrap().unwrap();
        assert_eq!((slow.retries, slow.first_pause_ms, slow.longest_pause_ms), (3, 5000, 9000));
        assert_eq!(slow.on, [Outcome::Expired]);
        assert_eq!(retries(three.clone(), &[]).unwrap(), three);
        let words = retries(None, &["--backoff", "5s"]).unwrap_err().to_string();
        assert!(words.contains("need --retries"), "{words}");
        let words = retries(None, &["--retries", "0"]).unwrap_err().to_string();
        assert!(words.contains("from 1 to"), "{words}");
    }
}
