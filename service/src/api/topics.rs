//! Lists topics, shows one in full, and waits until one has so many workers: what is recorded,
//! joined with what the board of this run counts and with what the broker says of queues.

use super::Api;
use super::endpoints;
use super::error::{ApiError, Json};
use super::extract::{Named, Parameters};
use super::problem::{AnyRequest, AskingBroker, Naming};
use super::types::{MAX_PAGE, TopicAnswer, TopicPage};
use crate::model::{
    EndpointStatus, TopicCandidate, TopicMember, TopicMemberView, TopicRecord, TopicSummary,
    TopicView, WaitingView, WhyNone, active, unplaced_why,
};
use crate::store::EndpointRecord;
use crate::topics::MemberView;
use axum::extract::State;
use clutch_common::id::EndpointId;
use clutch_common::task::topic::{CLOCK_TOLERANCE, check_topic};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use utoipa::IntoParams;

/// The longest a request is held.
const LONGEST: Duration = Duration::from_secs(600);
/// How often it is looked how many workers there are, at most and at least: a member that comes
/// tells that, and one that goes is seen to be gone.
const LOOK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Which topics to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TopicsQuery {
    /// The `next` of the page before.
    after: Option<String>,
    /// The most topics of the page; 1000 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// How many workers to wait for, and for how long.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TopicQuery {
    /// Answer once the topic has as many workers, which need not be known yet.
    #[param(minimum = 1)]
    workers: Option<u64>,
    /// How long to wait for them, in milliseconds; at most 10 minutes.
    wait_ms: Option<u64>,
}

/// Lists topics by name.
#[utoipa::path(
    get,
    path = "/v1/topics",
    tag = "topics",
    params(TopicsQuery),
    responses((status = 200, description = "A page of topics", body = TopicPage), AnyRequest),
)]
pub(super) async fn topics(
    State(api): State<Api>,
    Parameters(query): Parameters<TopicsQuery>,
) -> Result<Json<TopicPage>, ApiError> {
    let limit = query.limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit must be from 1 to {MAX_PAGE}")));
    }
    let mut records = api.store.topics().await?;
    records.retain(|topic| query.after.as_ref().is_none_or(|after| topic.name > *after));
    let full = records.len() as u64 > limit;
    records.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = records.last().filter(|_| full).map(|topic| topic.name.clone());
    let seen = ObservedMembers::of(&api, &records).await?;
    let topics = records.into_iter().map(|topic| TopicSummary::from(&seen.view(topic))).collect();
    let fault = endpoints::fault(&api);
    Ok(Json(TopicPage { engaged: fault.is_none(), fault, topics, next }))
}

/// Shows a topic with its members and what waits; or waits until it has so many workers.
#[utoipa::path(
    get,
    path = "/v1/topics/{name}",
    tag = "topics",
    params(("name" = String, Path, description = "The name of the topic"), TopicQuery),
    responses(
        (status = 200, description = "The topic", body = TopicAnswer),
        AnyRequest,
        Naming,
        AskingBroker,
    ),
)]
pub(super) async fn topic(
    State(api): State<Api>,
    Named(name): Named,
    Parameters(query): Parameters<TopicQuery>,
) -> Result<Json<TopicAnswer>, ApiError> {
    let topic = match query.workers {
        Some(0) => {
            return Err(ApiError::bad_request(
                "workers must be more than 0: leave it out, or wait for 1",
            ));
        }
        Some(workers) => {
            check_topic(&name).map_err(|invalid| ApiError::bad_request(invalid.to_string()))?;
            let wait = Duration::from_millis(query.wait_ms.unwrap_or(0)).min(LONGEST);
            until_workers(&api, &name, workers, wait).await?
        }
        None => match view(&api, &name).await? {
            Some(topic) => topic,
            None => return Err(unknown_topic(&api, &name).await?),
        },
    };
    let fault = endpoints::fault(&api);
    Ok(Json(TopicAnswer { engaged: fault.is_none(), fault, topic }))
}

/// The topic when it has so many workers, or when the time is over.
async fn until_workers(
    api: &Api,
    name: &str,
    workers: u64,
    wait: Duration,
) -> Result<TopicView, ApiError> {
    let until = Instant::now() + wait;
    let mut news = api.store.topic_board().news();
    loop {
        news.mark_unchanged();
        let topic = view(api, name).await?.unwrap_or_else(|| TopicView {
            name: name.to_owned(),
            workers: 0,
            members: Vec::new(),
            waiting: Vec::new(),
            placed: 0,
        });
        if topic.workers >= workers || Instant::now() >= until {
            return Ok(topic);
        }
        let looked = Instant::now();
        let changed = async {
            // Tasks that end are news as well.
            tokio::time::sleep(LOOK.0).await;
            drop(tokio::time::timeout_at(looked + LOOK.1, news.changed()).await);
        };
        tokio::select! {
            biased;
            () = api.stop.cancelled() => return Err(ApiError::stopping()),
            () = tokio::time::sleep_until(until) => (),
            () = changed => (),
        }
    }
}

async fn view(api: &Api, name: &str) -> Result<Option<TopicView>, ApiError> {
    let Some(record) = api.store.topic(name).await? else { return Ok(None) };
    let records = [record];
    let seen = ObservedMembers::of(api, &records).await?;
    Ok(records.into_iter().map(|record| seen.view(record)).next())
}

/// The members of a topic, as far as causes are told by them.
pub(super) async fn candidates(api: &Api, name: &str) -> Result<Vec<TopicCandidate>, ApiError> {
    let topic = view(api, name).await?;
    let members = topic.into_iter().flat_map(|topic| topic.members);
    Ok(members.map(|member| member.candidate()).collect())
}

/// The error for an unknown topic; it lists the known ones.
async fn unknown_topic(api: &Api, name: &str) -> Result<ApiError, ApiError> {
    /// How many names are listed.
    const LISTED: usize = 20;
    let known = api.store.topics().await?;
    let more = if known.len() > LISTED { ", …" } else { "" };
    let names: Vec<String> = known.into_iter().take(LISTED).map(|topic| topic.name).collect();
    let known = match names.is_empty() {
        true => "no endpoint is a member of one (`clutch-service provision NAME --topic TOPIC`), \
                 and no task was submitted to one"
            .to_owned(),
        false => format!("known are {}{more}", names.join(", ")),
    };
    Ok(ApiError::not_found(format!("there is no topic '{name}': {known}")))
}

/// The members of topics, as the records, the broker and the board have them.
struct ObservedMembers {
    endpoints: BTreeMap<EndpointId, (EndpointRecord, EndpointStatus)>,
    board: BTreeMap<EndpointId, MemberView>,
}

impl ObservedMembers {
    /// Looks at the members of these topics.
    async fn of(api: &Api, topics: &[TopicRecord]) -> Result<Self, ApiError> {
        let members: BTreeSet<EndpointId> =
            topics.iter().flat_map(|topic| &topic.members).map(|member| member.endpoint).collect();
        let board = api.store.topic_board().view().members.into_iter();
        let board = board.map(|member| (member.endpoint, member)).collect();
        let mut records = Vec::new();
        let mut after = String::new();
        while records.len() < members.len() {
            let page = api.store.endpoint_records(after, MAX_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.endpoint.name.clone();
            records.extend(page.into_iter().filter(|one| members.contains(&one.endpoint.id)));
        }
        let endpoints = endpoints::with_status(api, records).await.into_iter();
        let endpoints =
            endpoints.map(|(record, status)| (record.endpoint.id, (record, status))).collect();
        Ok(Self { endpoints, board })
    }

    fn view(&self, topic: TopicRecord) -> TopicView {
        let mut members: Vec<TopicMemberView> =
            topic.members.iter().filter_map(|member| self.member(member)).collect();
        members.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let candidates: Vec<TopicCandidate> =
            members.iter().map(TopicMemberView::candidate).collect();
        let waiting = topic.waiting.into_iter().map(|kind| {
            let asked = (kind.function.as_deref(), kind.version.as_deref());
            let why = unplaced_why(&topic.name, asked.0, asked.1, &candidates);
            WaitingView { function: kind.function, version: kind.version, tasks: kind.tasks, why }
        });
        TopicView {
            workers: members.iter().filter(|member| member.is_worker()).count() as u64,
            waiting: waiting.collect(),
            name: topic.name,
            members,
            placed: topic.placed,
        }
    }

    fn member(&self, member: &TopicMember) -> Option<TopicMemberView> {
        let (record, status) = self.endpoints.get(&member.endpoint)?;
        let state = active(&record.states)?;
        let board = self.board.get(&member.endpoint);
        let host = state.told.details.as_ref().map(|details| details.host.clone());
        let told = board.and_then(|board| board.why_none);
        Some(TopicMemberView {
            endpoint: member.endpoint,
            name: member.name.clone(),
            status: *status,
            instance: state.known.id,
            host: host.unwrap_or_default(),
            slots: member.slots,
            held: board.map_or(0, |board| board.held),
            credit: board.map_or(member.slots, |board| board.credit),
            functions: member.functions.clone(),
            withheld: board.map(|board| board.withheld.clone()).unwrap_or_default(),
            last_heard_ms: state.heard_at_ms.max(board.map_or(0, |board| board.heard_at_ms)),
            why_none: why_none(*status, member, told),
        })
    }
}

/// Why a member is given no work, if so: what the broker says of it is newer than what the board
/// knows.
fn why_none(
    status: EndpointStatus,
    member: &TopicMember,
    board: Option<WhyNone>,
) -> Option<WhyNone> {
    let tolerance = i64::try_from(CLOCK_TOLERANCE.as_millis()).unwrap_or(i64::MAX);
    let behind_ms = member.clock_offset_ms.unwrap_or(0);
    match (status, board) {
        (EndpointStatus::Draining, _) => Some(WhyNone::Drains),
        (EndpointStatus::Unknown, board) => board,
        (EndpointStatus::Online, _) if member.draining => Some(WhyNone::Drains),
        (EndpointStatus::Online, _) if behind_ms.abs() > tolerance => {
            Some(WhyNone::Clock { behind_ms })
        }
        (EndpointStatus::Online, Some(why @ (WhyNone::NotTaken | WhyNone::NoCredit))) => Some(why),
        (EndpointStatus::Online, _) => None,
        (
            EndpointStatus::Standby
            | EndpointStatus::Offline
            | EndpointStatus::Lost
            | EndpointStatus::NeverSeen
            | EndpointStatus::NoQueue,
            _,
        ) => Some(WhyNone::Away),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_says_of_a_member_goes_before_what_the_board_knew() {
        let member = |draining, clock_offset_ms| TopicMember {
            endpoint: EndpointId::new(),
            name: "a".to_owned(),
            slots: 4,
            functions: Vec::new(),
            draining,
            clock_offset_ms: Some(clock_offset_ms),
        };
        let well = member(false, 20);
        for (status, member, board, expected) in [
            (EndpointStatus::Online, &well, None, None),
            (EndpointStatus::Online, &well, Some(WhyNone::Away), None),
            (EndpointStatus::Online, &well, Some(WhyNone::NoCredit), Some(WhyNone::NoCredit)),
            (EndpointStatus::Offline, &well, Some(WhyNone::NoCredit), Some(WhyNone::Away)),
            (EndpointStatus::Standby, &well, None, Some(WhyNone::Away)),
            (EndpointStatus::Draining, &well, None, Some(WhyNone::Drains)),
            (EndpointStatus::Online, &member(true, 0), None, Some(WhyNone::Drains)),
            (
                EndpointStatus::Online,
                &member(false, -16_000),
                None,
                Some(WhyNone::Clock { behind_ms: -16_000 }),
            ),
            (EndpointStatus::Unknown, &well, Some(WhyNone::Unheard), Some(WhyNone::Unheard)),
        ] {
            assert_eq!(why_none(status, member, board), expected, "{status:?} {board:?}");
        }
    }
}
