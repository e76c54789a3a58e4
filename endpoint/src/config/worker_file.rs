//! A worker's file in the older way to write one: `url`, `exchange`, `topic`, `tasks`,
//! `transport`, `transport_options`, as TOML or JSON. It is laid over the endpoint's own file.
//! Reads one file.
//!
//! Each key is accepted or refused with the sentence that says what it is called here: no key
//! is passed by without a word.

use super::Config;
use super::functions::FunctionSection;
use clutch_common::text::secret;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The transports of the older file that are AMQP.
const AMQP: [&str; 4] = ["amqp", "amqps", "pyamqp", "librabbitmq"];

impl Config {
    /// Lays a worker's file over the endpoint's own: its topic is one of the endpoint, and its tasks
    /// become functions.
    ///
    /// # Errors
    /// In words: which key cannot be taken, and what it is called here.
    pub(super) fn lay_worker_file(&mut self, path: &Path) -> Result<(), String> {
        let named = |why: String| format!("the worker's file {}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        let keys = parse(path, &text).map_err(named)?;
        let path = std::path::absolute(path).map_err(|error| named(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        keys.iter().try_for_each(|(key, value)| self.lay_key(key, value, folder)).map_err(named)
    }

    fn lay_key(&mut self, key: &str, value: &Value, folder: &Path) -> Result<(), String> {
        match key {
            "url" => self.check_url(text(key, value)?),
            "exchange" => {
                let exchange = text(key, value)?;
                if exchange != self.broker.results_exchange {
                    tracing::info!(
                        exchange,
                        "the worker's file names an exchange, which is not used: the service and its \
                         endpoints meet at the broker's virtual host"
                    );
                }
                Ok(())
            }
            "topic" => {
                let topic = text(key, value)?.to_owned();
                if !self.worker.topics.contains(&topic) {
                    self.worker.topics.push(topic);
                }
                Ok(())
            }
            "tasks" => {
                let tasks = value.as_array().ok_or("tasks is no list of \"module:Class\"")?;
                tasks.iter().try_for_each(|task| self.add_task(text(key, task)?, folder))
            }
            "transport" => self.check_transport(text(key, value)?),
            "transport_options" => self.check_options(value),
            "topics" => {
                Err("topics is a key of an executor; a worker has one `topic`. More of them \
                are worker.topics in the endpoint's file"
                    .to_owned())
            }
            "threads_count" | "workers" => {
                Err(format!("{key} is engine.slots in the endpoint's file, or --slots"))
            }
            other => Err(format!(
                "'{other}' is no key of a worker's file: these are url, exchange, topic, tasks, \
                 transport and transport_options"
            )),
        }
    }

    /// Makes a function of `module:Class`, which a Python worker serves.
    fn add_task(&mut self, task: &str, folder: &Path) -> Result<(), String> {
        let parts = task.split_once(':');
        let Some((module, class)) =
            parts.filter(|(module, class)| !module.is_empty() && !class.is_empty())
        else {
            return Err(format!("tasks names '{task}': write \"module:Class\""));
        };
        let name = format!("{module}.{class}");
        let mut path = folder.display().to_string();
        if let Ok(others) = std::env::var("PYTHONPATH")
            && !others.is_empty()
        {
            path = format!("{path}:{others}");
        }
        let function = FunctionSection {
            command: ["python3", "-m", "clutch.named", task].map(str::to_owned).to_vec(),
            env: BTreeMap::from([("PYTHONPATH".to_owned(), path)]),
            cwd: None,
            version: None,
            concurrency: None,
            recycle_after: None,
            memory_limit: None,
            startup_timeout: Duration::from_secs(30),
        };
        match self.functions.insert(name.clone(), function) {
            None => Ok(()),
            Some(_) => Err(format!(
                "tasks names '{task}', and the function '{name}' is there already: name it once, here or \
                 as [functions.\"{name}\"] in the endpoint's file"
            )),
        }
    }

    fn check_url(&self, url: &str) -> Result<(), String> {
        let own = &self.broker.url;
        if place(url) == place(own) {
            return Ok(());
        }
        Err(format!(
            "url is '{}', and the endpoint's file has '{}' as broker.url, which `clutch-service \
             provision` wrote: leave url out, or provision the endpoint at that broker",
            secret::redacted(url),
            secret::redacted(own)
        ))
    }

    fn check_transport(&self, transport: &str) -> Result<(), String> {
        let is_folder = self.broker.url.starts_with("file:");
        let (fits, here) = match transport {
            "filesystem" => (is_folder, "a broker.url that begins with file://"),
            amqp if AMQP.contains(&amqp) => (!is_folder, "a broker.url that begins with amqp://"),
            other => {
                return Err(format!(
                    "transport is '{other}': there are filesystem and amqp, and here the beginning of \
                     broker.url says which"
                ));
            }
        };
        if fits {
            return Ok(());
        }
        Err(format!(
            "transport is '{transport}', which is {here}, and the endpoint's file has '{}', which \
             `clutch-service provision` wrote: provision the endpoint at that broker",
            secret::redacted(&self.broker.url)
        ))
    }

    /// A folder stands for a broker: it is one for both ways.
    fn check_options(&self, value: &Value) -> Result<(), String> {
        let options = value.as_object().ok_or("transport_options is no table")?;
        // Behind the folder, `provision` writes which spool is in it.
        let own = self.broker.url.strip_prefix("file://");
        let own = own.map(|own| own.split_once('?').map_or(own, |(folder, _)| folder));
        let mut folders = Vec::new();
        for (key, value) in options {
            match key.as_str() {
                "data_folder_in" | "data_folder_out" => folders.push(text(key, value)?),
                other => {
                    return Err(format!(
                        "transport_options.{other} has no counterpart here: there are data_folder_in \
                         and data_folder_out, which are one folder, that of broker.url"
                    ));
                }
            }
        }
        let bare = |folder: &str| folder.trim_end_matches('/').to_owned();
        if folders.iter().any(|folder| bare(folder) != bare(folders[0])) {
            return Err(
                "transport_options has two folders: here data_folder_in and data_folder_out are one \
                 folder, that of broker.url"
                    .to_owned(),
            );
        }
        match folders.first() {
            Some(folder) if own.map(bare) != Some(bare(folder)) => Err(format!(
                "transport_options names the folder '{folder}', and the endpoint's file has '{}' as \
                 broker.url: leave the option out, or provision the endpoint with --broker file://{folder}",
                secret::redacted(&self.broker.url)
            )),
            Some(_) | None => Ok(()),
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, String> {
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    toml::from_str(text).map_err(|error| secret::located(text, error.span(), error.message()))
}

fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("{key} is no text"))
}

/// The broker that a URL names: its scheme, host, port and virtual host.
fn place(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("amqp", url));
    let (place, host) = rest.split_once('/').unwrap_or((rest, ""));
    let address = place.rsplit_once('@').map_or(place, |(_, address)| address);
    let port = if scheme == "amqps" { ":5671" } else { ":5672" };
    let port = if scheme == "file" || address.contains(':') { "" } else { port };
    let host = match host {
        "/" | "%2f" | "%2F" => "",
        other => other.split('?').next().unwrap_or_default(),
    };
    format!("{scheme}://{address}{port}/{host}")
}

#[cfg(test)]
mod tests;
