//! Looks whether the endpoint can work here: its configuration, its state
//! folder, its broker. Takes neither task nor lease, and leaves a daemon that is
//! running alone.

use crate::cli::PlaceArgs;
use crate::clutch;
use crate::config::{Config, Overrides, exposure};
use crate::daemon::SEEN;
use crate::disk_queue::{self, FolderError, Found, OpenError, Options};
use crate::exit::{Exit, Failure};
use clutch_common::link::{Check, Report, Transport, Verdict};
use std::io::Write as _;
use std::sync::Arc;

/// What was found.
pub(crate) struct Checked {
    report: Report,
    /// How `run` would end; none if it could work.
    pub(crate) exit: Option<Exit>,
}

impl Checked {
    fn new(checks: Vec<Check>, exit: Option<Exit>) -> Self {
        Self { report: checks.into(), exit }
    }

    /// Writes it to stdout: one line per check, or one JSON object.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(crate) fn print(&self, json: bool) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            return writeln!(out, "{}", serde_json::to_string(&self.report)?);
        }
        self.report.checks.iter().try_for_each(|check| writeln!(out, "{check}"))
    }
}

/// Tries everything that can be tried.
pub(crate) async fn run(place: &PlaceArgs) -> Checked {
    let what = format!("the configuration {} can be used", place.config.display());
    let (config, transport) = match load(place) {
        Ok(loaded) => loaded,
        Err(failure) => {
            return Checked::new(vec![Check::failed(&what, &failure)], Some(failure.exit));
        }
    };
    let mut checks = vec![match exposure(&place.config) {
        None => Check::passed(&what),
        Some(exposure) => Check::warning(&what, &exposure),
    }];
    let (state, state_exit) = state(&config).await;
    checks.push(state);
    let (broker, broker_exit) = broker(transport.as_ref()).await;
    checks.extend(broker);
    Checked::new(checks, state_exit.or(broker_exit))
}

fn load(place: &PlaceArgs) -> Result<(Config, Arc<dyn Transport>), Failure> {
    let overrides = Overrides { state: place.state.clone(), slots: None };
    let config = Config::load(&place.config, overrides)?;
    let transport = config.transport()?;
    config.state_path()?;
    Ok((config, transport))
}

async fn state(config: &Config) -> (Check, Option<Exit>) {
    let path = match config.state_path() {
        Ok(path) => path,
        Err(failure) => {
            return (Check::failed("there is a state folder", &failure), Some(failure.exit));
        }
    };
    let what = format!("the state folder {} can be used", path.display());
    let options = Options { path, endpoint_id: config.endpoint.id, seen_max: SEEN };
    match tokio::task::spawn_blocking(move || disk_queue::look(&options)).await {
        Err(error) => (Check::failed(&what, &error), Some(Exit::Internal)),
        Ok(looked) => judge(&what, looked),
    }
}

/// A daemon that is running is no failure: it uses the folder.
fn judge(what: &str, looked: Result<Found, OpenError>) -> (Check, Option<Exit>) {
    match looked {
        Ok(Found::Nothing) => (Check::passed(what).with("nothing is in it yet"), None),
        Ok(Found::Pending { tasks, results }) => {
            let pending = format!("{tasks} tasks and {results} results are pending in it");
            (Check::passed(what).with(&pending), None)
        }
        Err(OpenError::Folder(FolderError::Locked { pid, .. })) => {
            let who = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            let held = format!(
                "a clutch-endpoint{who} is running on it: what is in it was not looked at, and a \
                 second one cannot start"
            );
            (Check::warning(what, &held), None)
        }
        Err(error) => {
            let chain = format!("{:#}", anyhow::Error::from(error));
            (Check::failed(what, &chain), Some(Exit::State))
        }
    }
}

async fn broker(transport: &dyn Transport) -> (Vec<Check>, Option<Exit>) {
    let address = transport.address();
    let mut checks = transport.check().await;
    for check in &mut checks {
        check.what = format!("{address}: {}", check.what);
        if let Some(advice) = check.fault.as_ref().map(clutch::advice) {
            *check = check.clone().with(advice);
        }
    }
    let failed = checks.iter().find(|check| check.verdict == Verdict::Failed);
    let exit = failed.map(|check| check.fault.as_ref().map_or(Exit::Unavailable, clutch::exit));
    (checks, exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_told_and_is_no_failure_and_an_unusable_one_is() {
        let path = std::path::PathBuf::from("/s");
        let locked = FolderError::Locked { path: path.clone(), pid: Some(7) };
        let (check, exit) = judge("a", Err(locked.into()));
        assert_eq!((check.verdict, exit), (Verdict::Warning, None));
        assert!(check.detail.contains("process 7"), "{check}");
        let (check, exit) = judge("a", Err(FolderError::NotAFolder { path }.into()));
        assert_eq!((check.verdict, exit), (Verdict::Failed, Some(Exit::State)));
        let (check, _) = judge("a", Ok(Found::Pending { tasks: 2, results: 3 }));
        assert!(check.to_string().contains("2 tasks and 3 results"), "{check}");
    }
}
