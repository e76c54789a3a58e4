//! Lists endpoints, once or again and again.

use super::{table, watched};
use crate::api::types::{EndpointPage, MAX_PAGE};
use crate::cli::endpoint::EndpointsArgs;
use crate::cli::output;
use crate::client::Client;
use crate::model::EndpointSummary;
use clutch_common::id::TaskId;
use clutch_common::system::clock::now_ms;

/// Prints the endpoints by name: a table, or one JSON object.
pub(crate) async fn run(client: &Client, args: &EndpointsArgs, json: bool) -> anyhow::Result<()> {
    let shown = async || shown(&all(client).await?, json);
    if args.watch { watched::run(shown, json).await } else { Ok(output::line(&shown().await?)?) }
}

/// All pages as one.
async fn all(client: &Client) -> anyhow::Result<EndpointPage> {
    let mut parameters = vec![("limit", MAX_PAGE.to_string())];
    let mut all: EndpointPage = client.get("/v1/endpoints", &parameters).await?;
    while let Some(after) = all.next.take() {
        parameters.truncate(1);
        parameters.push(("after", after));
        let page: EndpointPage = client.get("/v1/endpoints", &parameters).await?;
        all.endpoints.extend(page.endpoints);
        all.next = page.next;
    }
    Ok(all)
}

fn shown(page: &EndpointPage, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string(page)?);
    }
    let mut lines = Vec::new();
    if let Some(fault) = &page.fault {
        lines.push(format!(
            "The service has no link to the broker ({fault}): which endpoints are online, and what \
             waits in their queues, is not known."
        ));
    }
    if page.endpoints.is_empty() {
        lines.push("No endpoint is provisioned yet: `clutch-service provision NAME`.".to_owned());
    } else {
        let now_ms = now_ms();
        let rows = page.endpoints.iter().map(|endpoint| row(endpoint, now_ms));
        lines.extend(table::lines(COLUMNS, rows));
    }
    lines.extend(page.rings.iter().map(|ring| ring_words(ring)));
    Ok(lines.join("\n"))
}

/// A ring of tasks that wait for each other.
pub(super) fn ring_words(ring: &[TaskId]) -> String {
    let tasks: Vec<String> = ring.iter().chain(ring.first()).map(ToString::to_string).collect();
    format!("These tasks wait for each other in a ring: {}", tasks.join(" → "))
}

/// The names of the columns.
const COLUMNS: [&str; 13] = [
    "NAME", "STATUS", "SINCE", "SLOTS", "RUNNING", "ACCEPTED", "QUEUED", "PENDING", "OLDEST",
    "VERSION", "HOST", "HEARD", "ID",
];

fn row(endpoint: &EndpointSummary, now_ms: u64) -> [String; COLUMNS.len()] {
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let age = |then: Option<u64>| then.map_or("-".to_owned(), |then| age(then, now_ms));
    let text = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), output::one_line);
    let mut status = endpoint.status.words().to_owned();
    if endpoint.drain.is_some() && status != "draining" {
        status.push_str(", to drain");
    }
    [
        endpoint.name.clone(),
        status,
        age(endpoint.since_ms),
        number(endpoint.slots),
        number(endpoint.running),
        number(endpoint.accepted),
        number(endpoint.queued),
        endpoint.pending.to_string(),
        age(endpoint.oldest_pending_ms),
        text(&endpoint.version),
        text(&endpoint.host),
        age(endpoint.last_heard_ms),
        endpoint.id.to_string(),
    ]
}

/// How long something was ago, in its two largest units.
pub(super) fn age(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (3660, "1h 1m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(age(1000, 1000 + seconds * 1000 + 5), expected);
        }
        assert_eq!(age(1000, 0), "0s", "clocks differ");
    }
}
