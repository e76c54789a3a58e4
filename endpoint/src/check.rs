//! Checks whether the endpoint can work here: its configuration, its state folder, the
//! workers of its functions, its broker. Takes neither task nor lease, and does not disturb
//! a daemon that is running.

use crate::cli::PlaceArgs;
use crate::config::{Config, Overrides, functions};
use crate::daemon::SEEN;
use crate::execution::capture::Captured;
use crate::execution::function::FunctionExecutor;
use crate::execution::os::spawn::Spawner;
use crate::exit::{Exit, Failure};
use crate::link::clutch;
use crate::storage::disk_queue::{self, FolderError, FolderLook, OpenError, Options};
use clutch_common::id::StateId;
use clutch_common::link::{self, Check, Fault, Report, Transport, Verdict};
use clutch_common::system::inherited::Descriptors;
use clutch_common::system::removal;
use clutch_common::text::counted::counted;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of the checks.
pub(crate) struct Checked {
    report: Report,
    /// The exit code of `run`; `None` if it could work.
    pub(crate) exit: Option<Exit>,
}

impl Checked {
    fn new(checks: Vec<Check>, exit: Option<Exit>) -> Self {
        Self { report: checks.into(), exit }
    }

    /// Writes the result to stdout: one line per check, or one JSON object.
    pub(crate) fn print(&self, json: bool) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(&self.report)?)?;
        } else {
            self.report.checks.iter().try_for_each(|check| writeln!(out, "{check}"))?;
        }
        out.flush()
    }
}

/// Checks everything that can be checked.
pub(crate) async fn run(
    place: &PlaceArgs,
    worker: Option<PathBuf>,
    standby: bool,
    inherited: Descriptors,
) -> Checked {
    let what = format!("the configuration {} can be used", place.config.display());
    let (config, transport, path) = match load(place, worker) {
        Ok(loaded) => loaded,
        Err(failure) => {
            return Checked::new(vec![Check::failed(&what, &failure)], Some(failure.exit));
        }
    };
    inherited.close();
    let mut checks = vec![Check::passed(&what)];
    checks.extend(membership(&config));
    let (state, state_exit) = state(&config, path.clone()).await;
    let runs_here = state.verdict == Verdict::Warning;
    checks.push(state);
    let workers = workers(&config, &path).await;
    let unfit = workers.iter().any(|check| check.verdict == Verdict::Failed);
    checks.extend(workers);
    let mut broker = link::check(transport.as_ref(), clutch::advice).await;
    if broker_exit(&broker).is_none() {
        broker.extend(rehearse(&config, transport.as_ref(), runs_here || standby).await);
    }
    let exit =
        state_exit.or_else(|| unfit.then_some(Exit::Config)).or_else(|| broker_exit(&broker));
    checks.extend(broker);
    Checked::new(checks, exit)
}

fn load(
    place: &PlaceArgs,
    worker: Option<PathBuf>,
) -> Result<(Config, Arc<dyn Transport>, PathBuf), Failure> {
    let overrides = Overrides { state: place.state.clone(), slots: None, worker };
    let config = Config::load(&place.config, overrides)?;
    let transport = config.transport()?;
    let path = config.state_path()?;
    Ok((config, transport, path))
}

async fn state(config: &Config, path: PathBuf) -> (Check, Option<Exit>) {
    let what = format!("the state folder {} can be used", path.display());
    let options = Options { path, endpoint_id: config.endpoint.id, seen_max: SEEN };
    match tokio::task::spawn_blocking(move || disk_queue::look(&options)).await {
        Err(error) => (Check::failed(&what, &error), Some(Exit::Internal)),
        Ok(looked) => judge(&what, looked),
    }
}

/// Judges a state folder. A daemon that is running on it is no failure.
fn judge(what: &str, looked: Result<FolderLook, OpenError>) -> (Check, Option<Exit>) {
    match looked {
        Ok(FolderLook::Nothing) => (Check::passed(what).with("nothing is in it yet"), None),
        Ok(FolderLook::Pending { tasks, results }) => {
            let (tasks, results) = (counted(tasks as u64, "task"), counted(results, "result"));
            let pending = format!("{tasks} and {results} are pending in it");
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

/// Starts a worker of each function, apart from those of a daemon that is running.
async fn workers(config: &Config, state: &Path) -> Vec<Check> {
    if config.functions.is_empty() {
        return Vec::new();
    }
    let what = "workers can be started";
    let base = beside(state);
    let prepared = functions::prepare(&config.functions, &config.worker_defaults(&base));
    let spawner = Spawner::new(config.endpoint.id, StateId::new());
    let checks = match (prepared, spawner) {
        (Ok(configs), Ok(spawner)) => {
            let functions = FunctionExecutor::new(configs, &Arc::new(spawner));
            let tried = functions.try_out().await;
            let version = |name: &str| config.functions.get(name)?.version.as_deref();
            let judge = |(name, tried): (String, _)| worker(&name, version(&name), tried);
            tried.into_iter().map(judge).collect()
        }
        (Err(reason), _) => vec![Check::failed(what, &reason)],
        (_, Err(error)) => vec![Check::failed(what, &error)],
    };
    drop(removal::remove_all(&base));
    checks
}

/// Names a folder for workers to be tried in: in the state folder's place, or in the
/// nearest folder above that exists. Its path has the same odd characters as the state
/// folder's, so that a worker starts here as it would there.
fn beside(state: &Path) -> PathBuf {
    let there = state.ancestors().find(|folder| folder.is_dir());
    let mut name = state.file_name().unwrap_or_default().to_owned();
    name.push(format!(".check-{}", StateId::new()));
    there.map_or_else(std::env::temp_dir, Path::to_owned).join(name)
}

/// Names the topics that the endpoint is a member of.
fn membership(config: &Config) -> Option<Check> {
    let topics = &config.worker.topics;
    let what = format!("tasks are taken of {}", counted(topics.len() as u64, "topic"));
    (!topics.is_empty()).then(|| Check::passed(&what).with(&topics.join(", ")))
}

/// Judges the start of a worker; the last line that it wrote may say why it failed.
fn worker(name: &str, version: Option<&str>, tried: Result<(), (String, Captured)>) -> Check {
    let version = version.map_or_else(String::new, |version| format!(", version {version},"));
    let what = format!("a worker of the function '{name}'{version} starts");
    match tried {
        Ok(()) => Check::passed(&what),
        Err((why, stderr)) => {
            let text = String::from_utf8_lossy(&stderr.bytes);
            match text.lines().rfind(|line| !line.trim().is_empty()) {
                Some(last) => Check::failed(&what, &format!("{why}. It wrote: {last}")),
                None => Check::failed(&what, &why),
            }
        }
    }
}

/// Tries whether `run` could take its lease, consume its tasks and publish its results. A
/// held lease is no failure where the daemon that runs here holds it, or where an instance
/// waits for it.
async fn rehearse(config: &Config, transport: &dyn Transport, may_be_held: bool) -> Vec<Check> {
    let name = format!("clutch/{}/check", config.endpoint.id);
    let tried = match transport.connect(&name).await {
        Ok(connection) => {
            let tried = connection.rehearse(&config.inlet(), &config.results()).await;
            connection.close().await;
            tried
        }
        Err(fault) => vec![Check::faulty("the broker takes a connection", fault)],
    };
    tried.into_iter().map(|check| advised(check, may_be_held)).collect()
}

fn advised(check: Check, may_be_held: bool) -> Check {
    match &check.fault {
        Some(Fault::Locked(held)) if may_be_held => Check::warning(&check.what, held),
        Some(fault) => {
            let advice = clutch::advice(fault);
            check.with(advice)
        }
        None => check,
    }
}

fn broker_exit(checks: &[Check]) -> Option<Exit> {
    let failed = checks.iter().find(|check| check.verdict == Verdict::Failed);
    failed.map(|check| check.fault.as_ref().map_or(Exit::Unavailable, clutch::exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_told_and_is_no_failure_and_an_unusable_one_is() {
        let path = PathBuf::from("/s");
        let locked = FolderError::Locked { path: path.clone(), pid: Some(7) };
        let (check, exit) = judge("a", Err(locked.into()));
        assert_eq!((check.verdict, exit), (Verdict::Warning, None));
        assert!(check.detail.contains("process 7"), "{check}");
        let (check, exit) = judge("a", Err(FolderError::NotAFolder { path }.into()));
        assert_eq!((check.verdict, exit), (Verdict::Failed, Some(Exit::State)));
        let (check, _) = judge("a", Ok(FolderLook::Pending { tasks: 2, results: 3 }));
        assert!(check.to_string().contains("2 tasks and 3 results"), "{check}");
    }

    #[test]
    fn a_worker_that_does_not_start_is_told_with_its_last_words() {
        assert_eq!(worker("add", Some("2"), Ok(())).verdict, Verdict::Passed);
        let bytes = b"Traceback\nImportError: no numpy\n\n".to_vec();
        let tried = Err(("it is of no use".to_owned(), Captured { bytes, omitted: 0 }));
        let check = worker("add", None, tried);
        assert_eq!(check.verdict, Verdict::Failed);
        let words = check.to_string();
        assert!(words.contains("'add'") && words.contains("ImportError: no numpy"), "{words}");
    }

    #[test]
    fn a_lease_that_is_held_is_a_failure_unless_it_may_be() {
        let held = || Check::faulty("the lease is free", Fault::Locked("by another".to_owned()));
        let refused = advised(held(), false);
        assert_eq!(broker_exit(std::slice::from_ref(&refused)), Some(Exit::Refused));
        assert!(refused.to_string().contains("--standby"), "{refused}");
        assert_eq!(advised(held(), true).verdict, Verdict::Warning);
        let forbidden = Check::faulty("results", Fault::Forbidden("no".to_owned()));
        assert_eq!(broker_exit(&[advised(forbidden, true)]), Some(Exit::Refused));
    }

    #[test]
    fn a_failure_at_the_broker_ends_as_run_would() {
        let refused = Check::faulty("b", Fault::Credentials("no".to_owned()));
        let away = Check::faulty("b", Fault::Unreachable("no".to_owned()));
        for (check, exit) in [
            (Check::warning("a", &"odd"), None),
            (Check::failed("a", &"bad"), Some(Exit::Unavailable)),
            (away, Some(Exit::Unavailable)),
            (refused, Some(Exit::Refused)),
        ] {
            assert_eq!(broker_exit(&[Check::passed("x"), check]), exit);
        }
    }
}
