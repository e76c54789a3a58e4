//! Lists topics, once or again and again, and shows one in full.

use super::endpoints::age;
use super::{table, watched};
use crate::api::types::{MAX_PAGE, TopicAnswer, TopicPage};
use crate::cli::output;
use crate::cli::topic::{OneTopic, TopicCommand, TopicsArgs};
use crate::client::Client;
use crate::model::{TopicMemberView, TopicSummary, TopicView, WaitingView, WhyNone};
use clutch_common::system::clock::now_ms;
use clutch_common::text::counted::counted;

/// How many functions of a member a table shows.
const FUNCTIONS: usize = 4;

/// Prints the topics by name: a table, or one JSON object.
///
/// # Errors
/// When the service cannot be asked.
pub(crate) async fn list(client: &Client, args: &TopicsArgs, json: bool) -> anyhow::Result<()> {
    let shown = async || shown(&all(client).await?, json);
    if args.watch { watched::run(shown, json).await } else { Ok(output::line(&shown().await?)?) }
}

/// Prints one topic.
///
/// # Errors
/// When the service cannot be asked, or knows no such topic.
pub(crate) async fn show(
    client: &Client,
    TopicCommand::Show(OneTopic { topic }): &TopicCommand,
    json: bool,
) -> anyhow::Result<()> {
    let answer: TopicAnswer = client.get(&format!("/v1/topics/{topic}"), &[]).await?;
    if json {
        return output::json(&answer);
    }
    for line in lines(&answer, now_ms()) {
        output::line(&line)?;
    }
    Ok(())
}

/// All pages as one.
async fn all(client: &Client) -> anyhow::Result<TopicPage> {
    let mut parameters = vec![("limit", MAX_PAGE.to_string())];
    let mut all: TopicPage = client.get("/v1/topics", &parameters).await?;
    while let Some(after) = all.next.take() {
        parameters.truncate(1);
        parameters.push(("after", after));
        let page: TopicPage = client.get("/v1/topics", &parameters).await?;
        all.topics.extend(page.topics);
        all.next = page.next;
    }
    Ok(all)
}

fn shown(page: &TopicPage, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string(page)?);
    }
    let mut lines = Vec::new();
    lines.extend(page.fault.as_deref().map(unlinked_words));
    if page.topics.is_empty() {
        lines.push(
            "There is no topic yet: `clutch-service provision NAME --topic TOPIC` makes an \
             endpoint that is a member of one."
                .to_owned(),
        );
    } else {
        lines.extend(table::lines(TOPIC_COLUMNS, page.topics.iter().map(topic_row)));
    }
    Ok(lines.join("\n"))
}

/// The words for a service that cannot see which members are there.
fn unlinked_words(fault: &str) -> String {
    format!(
        "The service has no link to the broker ({fault}): nothing is placed, and which members are \
         there is not known."
    )
}

/// The names of the columns of topics.
const TOPIC_COLUMNS: [&str; 8] =
    ["TOPIC", "WORKERS", "MEMBERS", "HELD", "CREDIT", "WAITING", "PLACED", "WHY"];

fn topic_row(topic: &TopicSummary) -> [String; TOPIC_COLUMNS.len()] {
    let why = topic.why.as_ref().map(|why| output::one_line(&why.words));
    [
        topic.name.clone(),
        topic.workers.to_string(),
        topic.members.to_string(),
        topic.held.to_string(),
        topic.credit.to_string(),
        topic.waiting.to_string(),
        topic.placed.to_string(),
        why.unwrap_or_default(),
    ]
}

fn lines(answer: &TopicAnswer, now_ms: u64) -> Vec<String> {
    let TopicView { name, workers, members, waiting, placed } = &answer.topic;
    let mut lines = Vec::new();
    lines.extend(answer.fault.as_deref().map(unlinked_words));
    lines.push(format!("topic    {name}"));
    lines.push(format!("workers  {workers} of {}", counted(members.len() as u64, "member")));
    lines.push(format!("waiting  {}", counted(answer.topic.waiting_tasks(), "task")));
    lines.push(format!("placed   {}", counted(*placed, "task")));
    if !members.is_empty() {
        lines.push(String::new());
        let rows = members.iter().map(|member| member_row(member, now_ms));
        lines.extend(table::lines(MEMBER_COLUMNS, rows));
    }
    if !waiting.is_empty() {
        lines.push(String::new());
        lines.extend(table::lines(WAITING_COLUMNS, waiting.iter().map(waiting_row)));
    }
    lines
}

/// The names of the columns of members.
const MEMBER_COLUMNS: [&str; 10] = [
    "MEMBER",
    "STATUS",
    "SLOTS",
    "HELD",
    "CREDIT",
    "HEARD",
    "HOST",
    "INSTANCE",
    "FUNCTIONS",
    "GIVEN NONE AS IT",
];

fn member_row(member: &TopicMemberView, now_ms: u64) -> [String; MEMBER_COLUMNS.len()] {
    [
        member.name.clone(),
        member.status.words().to_owned(),
        member.slots.to_string(),
        member.held.to_string(),
        member.credit.to_string(),
        age(member.last_heard_ms, now_ms),
        output::one_line(&member.host),
        member.instance.to_string(),
        output::one_line(&functions_words(member)),
        member.why_none.map(WhyNone::words).unwrap_or_default(),
    ]
}

fn functions_words(member: &TopicMemberView) -> String {
    if member.functions.is_empty() {
        return "-".to_owned();
    }
    let left = member.functions.len().saturating_sub(FUNCTIONS);
    let mut words: Vec<String> = member
        .functions
        .iter()
        .take(FUNCTIONS)
        .map(|offer| {
            let version = offer.version.as_ref().map(|version| format!(" {version}"));
            let not = member.withheld.contains(&offer.name).then_some(" (rejected)");
            format!("{}{}{}", offer.name, version.unwrap_or_default(), not.unwrap_or_default())
        })
        .collect();
    words.extend((left > 0).then(|| format!("{left} more")));
    words.join(", ")
}

/// The names of the columns of what waits.
const WAITING_COLUMNS: [&str; 4] = ["WAITING FOR", "VERSION", "TASKS", "WHY"];

fn waiting_row(kind: &WaitingView) -> [String; WAITING_COLUMNS.len()] {
    let text = |text: &Option<String>, none: &str| text.as_deref().unwrap_or(none).to_owned();
    [
        text(&kind.function, "a process"),
        text(&kind.version, "any"),
        kind.tasks.to_string(),
        output::one_line(&kind.why.words),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EndpointStatus, WaitCause, Why};
    use clutch_common::id::{EndpointId, StateId};
    use clutch_common::wire::FunctionOffer;

    fn member(name: &str, why_none: Option<WhyNone>) -> TopicMemberView {
        let offer = |n: u32| FunctionOffer {
            name: format!("m.f{n}"),
            version: (n == 1).then(|| "2.0".to_owned()),
        };
        TopicMemberView {
            endpoint: EndpointId::new(),
            name: name.to_owned(),
            status: EndpointStatus::Online,
            instance: StateId::new(),
            host: "node-1".to_owned(),
            slots: 4,
            held: 3,
            credit: 5,
            functions: (1..=6).map(offer).collect(),
            withheld: vec!["m.f2".to_owned()],
            last_heard_ms: 1000,
            why_none,
        }
    }

    #[test]
    fn a_topic_is_told_with_its_members_and_with_what_waits() {
        let why = Why { cause: WaitCause::NoCredit, words: "each has enough".to_owned() };
        let (function, version) = (Some("m.f1".to_owned()), None);
        let topic = TopicView {
            name: "cloud".to_owned(),
            workers: 1,
            members: vec![member("a", None), member("b", Some(WhyNone::Drains))],
            waiting: vec![
                WaitingView { function, version, tasks: 7, why: why.clone() },
                WaitingView { function: None, version: None, tasks: 1, why },
            ],
            placed: 3,
        };
        let summary = TopicSummary::from(&topic);
        assert_eq!((summary.waiting, summary.held, summary.credit), (8, 6, 10));
        let text = lines(&TopicAnswer { engaged: true, fault: None, topic }, 6000).join("\n");
        for words in [
            "workers  1 of 2 members",
            "waiting  8 tasks",
            "m.f1 2.0, m.f2 (rejected), m.f3, m.f4, 2 more",
            "drains",
            "a process",
            "each has enough",
            "5s",
        ] {
            assert!(text.contains(words), "'{words}' is not in:\n{text}");
        }
        let page = TopicPage { engaged: true, fault: None, topics: vec![summary], next: None };
        let text = shown(&page, false).unwrap();
        assert!(text.contains("cloud") && text.contains("each has enough"), "{text}");
        let none = TopicPage { fault: Some("refused".to_owned()), topics: Vec::new(), ..page };
        let text = shown(&none, false).unwrap();
        assert!(text.contains("no link to the broker (refused)"), "{text}");
        assert!(text.contains("There is no topic yet"), "{text}");
    }
}
