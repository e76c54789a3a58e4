//! The commands about one endpoint.

use super::{endpoint_show, moment};
use crate::api::types::{DrainAnswer, DrainRequest, LostAnswer, LostRequest, RemoveRequest};
use crate::cli::endpoint::{EndpointCommand, OneEndpoint};
use crate::cli::output;
use crate::client::Client;
use crate::model::Removed;
use clutch_common::text::counted::counted;
use serde::Serialize;
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
        EndpointCommand::Remove(args) => {
            let (end_tasks, wait_ms) = (args.end_tasks, millis(args.wait));
            let request = RemoveRequest { end_tasks, wait_ms };
            let removed: Removed = client.post(&path(&args.which, "/remove"), &request).await?;
            return say(&removed, removed.words(), json);
        }
        EndpointCommand::Lost(args) => {
            let request = LostRequest { state: args.state_folder };
            let lost: LostAnswer = client.post(&path(&args.which, "/lost"), &request).await?;
            return say(&lost, lost_words(&lost), json);
        }
        EndpointCommand::Drain(args) => {
            let deadline_in_ms = args.deadline.map(millis);
            client.post(&path(&args.which, "/drain"), &DrainRequest { deadline_in_ms }).await?
        }
        EndpointCommand::Resume(which) => client.post(&path(which, "/resume"), &json!({})).await?,
    };
    say(&answer, words(&answer), json)
}

fn say(answer: &impl Serialize, words: String, json: bool) -> anyhow::Result<()> {
    if json { output::json(answer) } else { Ok(output::line(&words)?) }
}

fn lost_words(answer: &LostAnswer) -> String {
    let LostAnswer { name, states, tasks, .. } = answer;
    if states.is_empty() {
        return format!("{name} has no state folder that may have tasks: nothing is lost");
    }
    let folders = counted(states.len() as u64, "state folder");
    format!(
        "{name}: {folders} declared lost; {} without an outcome may be lost. What waits in its \
         queue stays there. When an instance of it is active, tasks that it does not know are \
         submitted again, or end as interrupted where they must not rerun. If none ever will be, \
         `clutch-service endpoint remove {name} --end-tasks`",
        counted(*tasks, "task")
    )
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
