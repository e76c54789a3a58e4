//! The commands of a running task: `clutch-endpoint task …`.

use super::client::task::{Answered, TaskClient};
use crate::cli::{Contents, TaskCommand};
use crate::exit::{Exit, Failure};
use clutch_common::task::blob::Blob;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use std::io::{Read as _, Write as _};
use std::time::Duration;

/// Does a command.
pub(crate) async fn run(command: TaskCommand) -> Result<(), Failure> {
    let mut client = TaskClient::connect().await?;
    match command {
        TaskCommand::Whoami => print(&client.ask("GET", "/v1/whoami", Vec::new()).await?.body),
        TaskCommand::Send { to, addressee, contents, wait, attempt, id, mailbox } => {
            let mut target = format!("/v1/messages?to={to}&wait={}", span(wait));
            add(&mut target, "addressee", &addressee);
            if let Some(attempt) = attempt {
                add(&mut target, "attempt", &attempt.to_string());
            }
            if let Some(id) = id {
                add(&mut target, "id", &id.to_string());
            }
            if mailbox {
                add(&mut target, "mailbox", "true");
            }
            print(&client.ask("POST", &target, read(contents)?).await?.body)
        }
        TaskCommand::Receive { addressees, timeout, from, json } => {
            let mut target = "/v1/messages?hold=connection".to_owned();
            addressees.iter().for_each(|name| add(&mut target, "addressee", name));
            if let Some(timeout) = timeout {
                add(&mut target, "timeout", &span(timeout));
            }
            if let Some(from) = from {
                add(&mut target, "from", &from.to_string());
            }
            receive(&mut client, &target, json).await
        }
        TaskCommand::Progress { words } => post(&mut client, "/v1/progress", &words).await,
        TaskCommand::Log { words } => post(&mut client, "/v1/log", &words).await,
        TaskCommand::Cancelled { timeout } => {
            let mut target = "/v1/cancelled".to_owned();
            if let Some(timeout) = timeout {
                target = format!("{target}?timeout={}", span(timeout));
            }
            let answered = client.ask("GET", &target, Vec::new()).await?;
            print(&in_time(answered, "the task was not asked to end in time")?.body)
        }
        TaskCommand::Submit { contents, id } => {
            let id = id.map(|id| format!("?id={id}")).unwrap_or_default();
            let target = format!("/v1/tasks{id}");
            print(&client.ask("POST", &target, read(contents)?).await?.body)
        }
        TaskCommand::Outcome { task, wait } => {
            let target = format!("/v1/tasks/{task}?wait={}", span(wait));
            let answered = client.ask("GET", &target, Vec::new()).await?;
            print(&in_time(answered, "the task has no outcome yet")?.body)
        }
    }
}

/// A message as JSON.
#[derive(Serialize)]
struct Received<'a> {
    source: &'a str,
    source_attempt: &'a str,
    addressee: String,
    message: &'a str,
    body: Blob,
}

/// Receives a message, and takes it once it is written.
async fn receive(client: &mut TaskClient, target: &str, json: bool) -> Result<(), Failure> {
    let answered = client.ask("GET", target, Vec::new()).await?;
    let answered = in_time(answered, "no message came in time")?;
    let delivery = answered.header("clutch-delivery").to_owned();
    let addressee = percent_decode_str(answered.header("clutch-addressee"));
    let written = if json {
        let received = Received {
            source: answered.header("clutch-source"),
            source_attempt: answered.header("clutch-source-attempt"),
            addressee: addressee.decode_utf8_lossy().into_owned(),
            message: answered.header("clutch-message"),
            body: answered.body.to_vec().into(),
        };
        let text = serde_json::to_string(&received);
        let text = text.map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
        write_out(format!("{text}\n").as_bytes())
    } else {
        write_out(&answered.body)
    };
    written.map_err(|error| {
        let words = format!("writing the message to stdout: {error}; it is given back");
        Failure::new(Exit::Internal, words)
    })?;
    client.ask("POST", &format!("/v1/messages/{delivery}/ack"), Vec::new()).await?;
    Ok(())
}

async fn post(client: &mut TaskClient, target: &str, words: &[String]) -> Result<(), Failure> {
    client.ask("POST", target, words.join(" ").into_bytes()).await.map(drop)
}

fn in_time(answered: Answered, otherwise: &str) -> Result<Answered, Failure> {
    if answered.is_empty() { Err(Failure::new(Exit::Retry, otherwise)) } else { Ok(answered) }
}

fn span(span: Duration) -> String {
    format!("{}ms", span.as_millis())
}

fn add(target: &mut String, name: &str, value: &str) {
    let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
    for part in ["&", name, "=", &value.to_string()] {
        target.push_str(part);
    }
}

fn read(contents: Contents) -> Result<Vec<u8>, Failure> {
    let failed = |what: String| Failure::new(Exit::Data, what);
    if let Some(text) = contents.text {
        return Ok(text.into_bytes());
    }
    if let Some(file) = contents.file {
        let shown = file.display().to_string();
        return std::fs::read(file).map_err(|error| failed(format!("reading {shown}: {error}")));
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|error| failed(format!("reading standard input: {error}")))?;
    Ok(bytes)
}

fn print(body: &[u8]) -> Result<(), Failure> {
    write_out(body)
        .map_err(|error| Failure::new(Exit::Internal, format!("writing to stdout: {error}")))
}

fn write_out(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_escaped() {
        let mut target = "/x?a=1".to_owned();
        add(&mut target, "addressee", "a b&c=d/é");
        assert_eq!(target, "/x?a=1&addressee=a%20b%26c%3Dd%2F%C3%A9");
    }
}
