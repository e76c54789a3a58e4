//! The commands about one endpoint.

use super::{endpoint_show, moment};
use crate::api::types::{DrainAnswer, DrainRequest};
use crate::cli::endpoint::{EndpointCommand, OneEndpoint};
use crate::cli::output;
use crate::client::Client;
use serde_json::json;
use std::time::Duration;
use url::form_urlencoded::byte_serialize;

/// Does what was asked for, and says what holds from then on.
pub(crate) async fn run(
    client: &Client,
    command: &EndpointCommand,
    json: bool,
) -> anyhow::Result<()> {
    let answer: DrainAnswer = match command {
        EndpointCommand::Show(which) => {
            return endpoint_show::run(client, &path(which, ""), json).await;
        }
        EndpointCommand::Drain(args) => {
            let deadline_in_ms = args.deadline.map(millis);
            client.post(&path(&args.which, "/drain"), &DrainRequest { deadline_in_ms }).await?
        }
        EndpointCommand::Resume(which) => client.post(&path(which, "/resume"), &json!({})).await?,
    };
    if json { output::json(&answer) } else { Ok(output::line(&words(&answer))?) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The path of an endpoint in the API.
fn path(which: &OneEndpoint, rest: &str) -> String {
    let name: String = byte_serialize(which.endpoint.as_bytes()).collect();
    format!("/v1/endpoints/{name}{rest}")
}

fn words(answer: &DrainAnswer) -> String {
    let name = &answer.name;
    let mut words = match (answer.draining, answer.changed) {
        (true, true) => format!("{name} drains: it finishes what runs and starts nothing more"),
        (true, false) => format!("{name} drains already"),
        (false, true) => format!("{name} starts tasks again"),
        (false, false) => format!("{name} was not draining"),
    };
    if let Some(deadline) = answer.deadline_ms {
        words.push_str(&format!("; what still runs at {} is stopped", moment(deadline)));
    }
    if answer.draining {
        words.push_str(&format!(
            ". Tasks that are submitted to it wait until `clutch-service endpoint resume {name}`"
        ));
    }
    if let Some(why) = &answer.unsent {
        words.push_str(&format!(
            "\nIt is recorded, and the endpoint is not told yet ({why}): it is told as soon as \
             that is possible"
        ));
    }
    words
}
