//! The commands that are clients of a running service: `http` asks its API, the others say
//! what to ask for and show the answer.

pub(crate) mod cancel;
pub(crate) mod endpoint;
pub(crate) mod endpoint_show;
pub(crate) mod endpoints;
pub(crate) mod expand;
pub(crate) mod forget;
mod http;
mod interrupt;
mod output_folder;
mod reconnect;
pub(crate) mod results;
pub(crate) mod retry;
pub(crate) mod show;
pub(crate) mod submit;
pub(crate) mod tasks;
pub(crate) mod wait;
pub(crate) mod watch;

pub(crate) use http::Client;

/// A moment as people read it.
pub(crate) fn moment(ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    humantime::format_rfc3339_seconds(at).to_string()
}
