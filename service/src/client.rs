//! The commands that are clients of a running service: `http` asks its API, the others say
//! what to ask for and show the answer.

pub(crate) mod cancel;
mod due_time;
pub(crate) mod endpoint;
pub(crate) mod endpoint_show;
pub(crate) mod endpoints;
pub(crate) mod expand;
mod family;
pub(crate) mod forget;
mod http;
mod interrupt;
pub(crate) mod logs;
mod output_folder;
pub(crate) mod recipient;
mod reconnect;
pub(crate) mod results;
pub(crate) mod retry;
pub(crate) mod schedules;
pub(crate) mod show;
pub(crate) mod submit;
mod table;
mod task_options;
pub(crate) mod tasks;
pub(crate) mod topics;
pub(crate) mod wait;
pub(crate) mod watch;
mod watched;
pub(crate) mod workers;

pub(crate) use crate::model::moment;
pub(crate) use http::Client;
