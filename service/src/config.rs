//! Composes the settings from flags, environment and the optional file, in that
//! order of precedence. Reads that file and nothing else.

use crate::cli::GlobalArgs;
use crate::failure::{CONFIG, Failure, usage};
use crate::state_folder::StateFolder;
use clutch_common::link::{Terms, Transport, shared_transport};
use clutch_common::system::folder;
use clutch_common::text::secret::{self, SecretUrl};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

/// The settings of every command.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The broker's URL, secrets included, if one was given.
    broker: Option<SecretUrl>,
    /// The state folder, with the place of the database.
    pub(crate) state: StateFolder,
    /// Whether stdout is to carry JSON.
    pub(crate) json: bool,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct File {
    broker: Option<SecretUrl>,
    state: Option<std::path::PathBuf>,
    database: Option<std::path::PathBuf>,
}

impl Settings {
    /// The settings for these arguments.
    ///
    /// # Errors
    /// When the file cannot be used, or no state folder can be found.
    pub(crate) fn load(args: &GlobalArgs, broker: Option<&SecretUrl>) -> anyhow::Result<Self> {
        let file = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let state = match args.state.clone().or(file.state) {
            Some(path) => StateFolder::new(path),
            None => StateFolder::default_for(
                std::env::var_os("XDG_STATE_HOME"),
                std::env::var_os("HOME"),
            )
            .ok_or_else(|| usage("no state folder: pass --state DIR or set CLUTCH_STATE"))?,
        };
        let state = match args.database.as_ref().or(file.database.as_ref()) {
            Some(path) => state.with_database(path),
            None => state,
        };
        Ok(Self { broker: broker.cloned().or(file.broker), state, json: args.json })
    }

    /// Settings that come from no argument.
    #[must_use]
    pub(crate) fn of(broker: &str, state: StateFolder) -> Self {
        Self { broker: Some(broker.into()), state, json: false }
    }

    /// The broker's URL.
    pub(crate) fn broker(&self) -> anyhow::Result<&str> {
        self.broker.as_ref().map(SecretUrl::expose).ok_or_else(|| {
            usage(
                "no broker: pass --broker amqp://user:password@host:5672/vhost or \
                 --broker file:///folder, set CLUTCH_BROKER, or put `broker = \"…\"` into the file given with --config",
            )
        })
    }

    /// The transport to the broker.
    ///
    /// # Errors
    /// When no broker was given, or its URL cannot be used.
    pub(crate) fn transport(&self) -> anyhow::Result<Arc<dyn Transport>> {
        reachable(self.broker()?)
    }
}

/// The transport to the broker at `url`, as other processes reach it.
pub(crate) fn reachable(url: &str) -> anyhow::Result<Arc<dyn Transport>> {
    shared_transport(url, &Terms::default()).map_err(|error| usage(error.to_string()))
}

fn read(path: &Path) -> anyhow::Result<File> {
    let bad = |reason: String| {
        Failure::new(CONFIG, format!("the configuration {}: {reason}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let wrong = |error: &toml::de::Error| secret::located(&text, error.span(), error.message());
    let file: File = toml::from_str(&text).map_err(|error| bad(wrong(&error)))?;
    if file.broker.as_ref().is_some_and(SecretUrl::has_password) {
        folder::check_private(path).map_err(bad)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit_code;

    fn args(config: Option<&Path>) -> GlobalArgs {
        let config = config.map(Path::to_path_buf);
        GlobalArgs { state: None, database: None, config, json: false }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("service.toml");
        std::fs::write(&file, "\u{feff}broker = 'amqp://file'\r\nstate = '/from/file'\r\n")
            .unwrap();
        let settings = Settings::load(&args(Some(&file)), None).unwrap();
        assert_eq!(settings.broker().unwrap(), "amqp://file");
        assert_eq!(settings.state.path(), Path::new("/from/file"));
        let flag = SecretUrl::from("amqp://flag");
        let settings = Settings::load(&args(Some(&file)), Some(&flag)).unwrap();
        assert_eq!(settings.broker().unwrap(), "amqp://flag");
    }

    #[test]
    fn the_database_is_where_the_flag_or_the_file_says_from_the_state_folder_on() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("service.toml");
        std::fs::write(&file, "state = '/s'\ndatabase = 'db/x'\n").unwrap();
        let place = |global: &GlobalArgs| {
            Settings::load(global, None).unwrap().state.database().display().to_string()
        };
        let mut global = args(Some(&file));
        assert_eq!(place(&global), "/s/db/x");
        global.database = Some("/elsewhere/y".into());
        assert_eq!(place(&global), "/elsewhere/y");
        let none = GlobalArgs { state: Some("/s".into()), ..args(None) };
        assert_eq!(place(&none), "/s/clutch.db");
    }

    #[test]
    fn a_broker_that_no_other_process_reaches_is_wrong_usage() {
        for url in ["memory:", "memory:lab"] {
            let global = GlobalArgs { state: Some("/s".into()), ..args(None) };
            let settings = Settings::load(&global, Some(&SecretUrl::from(url)));
            let error = settings.unwrap().transport().err().unwrap();
            assert_eq!(exit_code(&error), crate::failure::USAGE);
            assert!(error.to_string().contains("in one process"), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("service.toml");
        std::fs::write(&file, "brokr = 'amqp://file'\n").unwrap();
        let error = Settings::load(&args(Some(&file)), None).unwrap_err();
        assert!(error.to_string().contains("brokr"), "{error}");
        assert_eq!(exit_code(&error), CONFIG);
    }

    #[test]
    fn a_file_that_holds_a_password_and_that_others_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("service.toml");
        for (url, mode, good) in [
            ("amqp://u:sesame@h", 0o644, false),
            ("amqp://u:sesame@h", 0o600, true),
            ("file:///spool", 0o644, true),
        ] {
            std::fs::write(&file, format!("broker = '{url}'\n")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            match Settings::load(&args(Some(&file)), None) {
                Ok(_) => assert!(good, "{url} {mode:o}"),
                Err(error) => {
                    assert!(!good && error.to_string().contains("chmod 600"), "{error}");
                    assert_eq!(exit_code(&error), CONFIG);
                }
            }
        }
    }

    #[test]
    fn the_password_is_in_no_error_and_no_debug_output() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("service.toml");
        for wrong in [
            "broker = 'amqp://u:sesame@h",
            "broker = ['amqp://u:sesame@h']",
            "x = 'amqp://u:sesame@h' y",
        ] {
            std::fs::write(&file, format!("\n{wrong}\n")).unwrap();
            let error = format!("{:#}", Settings::load(&args(Some(&file)), None).unwrap_err());
            assert!(error.contains("line 2") && !error.contains("sesame"), "{error}");
        }
        let settings = Settings::of("amqp://u:sesame@h", StateFolder::new("/s"));
        assert!(!format!("{settings:?}").contains("sesame"));
    }
}
