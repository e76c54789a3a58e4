//! Looks whether a service can work here: its state folder, its socket, its
//! broker. Changes nothing, and needs no running service.

mod missing;
mod place;

use crate::api::types::{Health, MissingPage};
use crate::broker::management::Management;
use crate::cli::DoctorArgs;
use crate::cli::output;
use crate::client::Client;
use crate::config::Settings;
use crate::failure::{self, CANNOT_CREATE, UNAVAILABLE};
use crate::model::Anomalies;
use crate::state_folder::{Holder, StateFolder};
use clutch_common::link::{self, Check, Report, Verdict};
use clutch_common::system::clock::now_ms;
use clutch_common::text::secret::SecretUrl;

/// Tries everything, tells it, and returns the exit code: 0 unless something
/// failed.
///
/// # Errors
/// When no broker was given or its URL cannot be used.
pub(crate) async fn run(settings: &Settings, args: &DoctorArgs) -> anyhow::Result<u8> {
    let transport = settings.transport()?;
    let given = args.management.as_ref().map(SecretUrl::expose);
    let management = Management::of(settings.broker()?, given)?;
    let mut checks = state(&settings.state).await;
    let state_failed = checks.iter().any(|check| check.verdict == Verdict::Failed);
    let broker = link::check(transport.as_ref(), failure::advice).await;
    let usable = broker.iter().all(|check| check.verdict != Verdict::Failed);
    checks.extend(broker);
    if usable {
        checks.extend(place::look(settings, transport.as_ref()).await);
        if let Some(management) = management {
            checks.extend(place::policies(management.hazards().await));
        }
    }
    let report = Report::from(checks);
    let code = if state_failed { CANNOT_CREATE } else { broker_code(&report) };
    if settings.json {
        output::json(&report)?;
        return Ok(code);
    }
    for check in &report.checks {
        output::line(&check.to_string())?;
    }
    Ok(code)
}

async fn state(state: &StateFolder) -> Vec<Check> {
    let elsewhere = state.named_database().map(|path| format!(" with {}", path.display()));
    let elsewhere = elsewhere.unwrap_or_default();
    let what = format!("the state folder {}{elsewhere} can be used", state.path().display());
    let held = match state.check() {
        Ok(held) => held,
        Err(error) => return vec![Check::failed(&what, &format!("{error:#}"))],
    };
    let found = match held {
        Holder::None => "no `clutch-service serve` is running on it",
        Holder::Serve => "a `clutch-service serve` is running on it",
    };
    let answer = Client::new(state).get::<Health>("/v1/health", &[]).await;
    let odd = answer.as_ref().ok().and_then(|health| odd(&health.oddities));
    let page = Client::new(state).get::<MissingPage>("/v1/missing", &[]).await;
    let missing = page.ok().map(|page| missing::check(&page.missing, now_ms()));
    let checks = [Check::passed(&what).with(found), answering(held, answer)];
    checks.into_iter().chain(missing).chain(odd).collect()
}

/// Checks the anomalies that a running service has counted.
fn odd(counted: &Anomalies) -> Option<Check> {
    let Anomalies { unknown, foreign, forgotten, refused, stale, dead_lettered, passed_by } =
        *counted;
    let words = [
        (foreign, "of endpoints that were not provisioned with this state folder (kept as tasks)"),
        (unknown - foreign.min(unknown), "of tasks that are not in the records (kept as tasks)"),
        (forgotten, "of forgotten tasks, which came too late to be kept (not recorded)"),
        (refused, "that contradict the records, which the log names (not recorded)"),
        (stale, "or claims of attempts that are placed elsewhere by now (they end nothing)"),
        (dead_lettered, "in messages that could not be read (among the dead letters)"),
        (passed_by, "control messages of a kind or version that is not known (passed by)"),
    ];
    let told = words.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told.map(|(count, what)| format!("{count} {what}")).collect();
    if told.is_empty() {
        return None;
    }
    let what = "all results since the service started are of tasks of its own";
    Some(Check::warning(what, &told.join("; ")))
}

/// Checks the answer at the socket; that no service runs is no failure.
fn answering(held: Holder, answer: anyhow::Result<Health>) -> Check {
    match (held, answer) {
        (_, Ok(Health { engaged: true, version, .. })) => {
            Check::passed("the service answers").with(&format!("version {version}, engaged"))
        }
        (_, Ok(Health { fault, .. })) => Check::warning(
            "the service answers",
            &format!("it has no link to the broker: {}", fault.unwrap_or_default()),
        ),
        (Holder::None, Err(error)) => Check::passed("no service runs").with(&format!("{error:#}")),
        (Holder::Serve, Err(error)) => Check::warning(
            "the service answers",
            &format!("one is running and does not answer: it starts, stops or hangs ({error:#})"),
        ),
    }
}

fn broker_code(report: &Report) -> u8 {
    let failed = report.checks.iter().find(|check| check.verdict == Verdict::Failed);
    failed.map_or(0, |check| check.fault.as_ref().map_or(UNAVAILABLE, failure::code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::REFUSED;
    use clutch_common::link::Fault;

    fn health(engaged: bool) -> Health {
        let fault = (!engaged).then(|| "gone".to_owned());
        Health {
            version: "1".to_owned(),
            engaged,
            fault,
            oddities: Anomalies::default(),
            policies: Vec::new(),
        }
    }

    #[test]
    fn a_service_that_is_not_running_is_no_failure_and_one_that_is_silent_is_told() {
        let none = || Err(anyhow::anyhow!("no socket"));
        let verdict = |held, answer| answering(held, answer).verdict;
        assert_eq!(verdict(Holder::Serve, Ok(health(true))), Verdict::Passed);
        assert_eq!(verdict(Holder::Serve, Ok(health(false))), Verdict::Warning);
        assert_eq!(verdict(Holder::None, none()), Verdict::Passed);
        assert_eq!(verdict(Holder::Serve, none()), Verdict::Warning);
    }

    #[test]
    fn anomalies_are_a_warning_with_their_counts() {
        assert_eq!(odd(&Anomalies::default()), None);
        let counted = Anomalies {
            unknown: 5,
            foreign: 2,
            forgotten: 0,
            refused: 7,
            stale: 4,
            dead_lettered: 1,
            passed_by: 8,
        };
        let check = odd(&counted).unwrap();
        assert_eq!(check.verdict, Verdict::Warning);
        for words in [
            "2 of endpoints",
            "3 of tasks",
            "7 that contradict",
            "4 or claims",
            "1 in messages",
            "8 control",
        ] {
            assert!(check.detail.contains(words), "{}", check.detail);
        }
    }

    #[test]
    fn the_exit_code_is_that_of_the_first_failure() {
        let code = |checks: Vec<Check>| broker_code(&Report::from(checks));
        assert_eq!(code(vec![Check::passed("a"), Check::warning("b", &"c")]), 0);
        assert_eq!(code(vec![Check::passed("a"), Check::failed("b", &"c")]), UNAVAILABLE);
        let refused = Check::faulty("b", Fault::Credentials("no".to_owned()));
        assert_eq!(code(vec![refused, Check::failed("c", &"d")]), REFUSED);
    }
}
