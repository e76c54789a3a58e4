//! The words by which a process is told of its own side of the endpoint: the socket that answers it, its
//! token there, and the folder with the Python module that speaks with it. Pure, but for a look
//! at the endpoint's own environment.

use super::function::python::{self, Module};
use crate::messages::Messages;
use crate::messages::token::Token;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// The variable with the path of the socket.
pub(crate) const SOCKET: &str = "CLUTCH_SOCKET";
/// The variable with the token.
pub(crate) const TOKEN: &str = "CLUTCH_TOKEN";

/// The tasks' own side of the endpoint.
#[derive(Debug)]
pub(crate) struct TaskSide {
    /// Their messages.
    pub(crate) messages: Arc<Messages>,
    /// The path of the socket, as every program can use it.
    pub(crate) socket: PathBuf,
    /// The Python module.
    pub(crate) module: Module,
}

impl TaskSide {
    /// Tells a new process of it. `python` is the path for Python's modules that was set for it.
    pub(crate) fn tell(&self, command: &mut Command, token: Token, python: Option<&OsStr>) {
        command.env(SOCKET, &self.socket).env(TOKEN, token.to_string());
        command.env(python::VARIABLE, self.module.path(python));
    }
}
