//! Why a task of a topic waits: its members, the functions they have, and why none of them is
//! given it. Pure.
//!
//! A *member* of a topic is an endpoint of which the file names the topic. A task is *placed* when
//! a member is given it, and *claimed* once that member has told that it will start it.

use super::{CauseWords, WaitCause, WaitFacts, Why, retry_pause, span};
use crate::model::{WhyNone, moment};
use clutch_common::task::BUILT_IN;
use clutch_common::wire::FunctionOffer;

/// How many members, or functions of one, a sentence names.
const NAMED: usize = 5;

/// A member of a topic, as far as a cause is told by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicCandidate {
    /// Its name.
    pub(crate) name: String,
    /// The functions that it names, but for those that it answered it does not offer.
    pub(crate) functions: Vec<FunctionOffer>,
    /// How many slots the tasks of topics take that it holds.
    pub(crate) held: u64,
    /// How many they may take.
    pub(crate) credit: u64,
    /// Why it is given no work, if so.
    pub(crate) why_none: Option<WhyNone>,
}

/// How far a task is in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicFacts {
    /// Why it is not placed; nothing if it is.
    pub(crate) unplaced: Option<Why>,
    /// By when it ends as expired, if it is not placed.
    pub(crate) place_by_ms: Option<u64>,
    /// When it was placed.
    pub(crate) placed_at_ms: Option<u64>,
    /// By when it must be claimed.
    pub(crate) start_by_ms: Option<u64>,
    /// Whether it is.
    pub(crate) claimed: bool,
}

/// Says why a task that asks for a function, or for none, in a version, or in any, is not placed at
/// a member of its topic.
pub(crate) fn unplaced_why(
    topic: &str,
    function: Option<&str>,
    version: Option<&str>,
    members: &[TopicCandidate],
) -> Why {
    let why = |cause, words| Why { cause, words };
    // Each endpoint has the functions that are built in.
    let function = function.filter(|name| !name.starts_with(BUILT_IN));
    if members.is_empty() {
        let words = format!(
            "no endpoint is a member of the topic {topic}: write `topics = [\"{topic}\"]` in the \
             [worker] section of an endpoint.toml, or provision one with --topic {topic}"
        );
        return why(WaitCause::NoMember, words);
    }
    let has = |member: &&TopicCandidate| {
        function.is_none_or(|name| offers(member, name).next().is_some())
    };
    if let Some(name) = function.filter(|_| !members.iter().any(|member| has(&member))) {
        let known = told(members.iter(), functions_words);
        let words = format!("no member of the topic {topic} has the function {name}: {known}");
        return why(WaitCause::NoFunction, words);
    }
    let named = members.iter().filter(has);
    let fits = |member: &&TopicCandidate| {
        let wanted = function.zip(version);
        wanted.is_none_or(|(name, version)| {
            offers(member, name).any(|offer| offer.version.as_deref() == Some(version))
        })
    };
    let able: Vec<&TopicCandidate> = named.clone().filter(fits).collect();
    if let Some((name, version)) = function.zip(version).filter(|_| able.is_empty()) {
        let known = told(named, |member| versions_words(member, name));
        let words =
            format!("no member of the topic {topic} has {name} in the version {version}: {known}");
        return why(WaitCause::NoVersion, words);
    }
    if able.iter().any(|member| member.why_none.is_none()) {
        return why(
            WaitCause::Placing,
            "it is about to be placed at a member of its topic".to_owned(),
        );
    }
    let full = |member: &&&TopicCandidate| member.why_none == Some(WhyNone::NoCredit);
    let (cause, first) = match able.iter().filter(full).count() {
        0 => (WaitCause::NoMemberReady, "no member of the topic {} that can do it takes work"),
        _ => (WaitCause::NoCredit, "each member of the topic {} that can do it has enough to do"),
    };
    let known = told(able.into_iter(), obstacle_words);
    why(cause, format!("{}: {known}", first.replace("{}", topic)))
}

/// The offers of a function that a member has.
fn offers<'a>(
    member: &'a TopicCandidate,
    name: &'a str,
) -> impl Iterator<Item = &'a FunctionOffer> {
    member.functions.iter().filter(move |offer| offer.name == name)
}

/// The words for each member, and how many are left out.
fn told<'a>(
    members: impl Iterator<Item = &'a TopicCandidate> + Clone,
    words: impl Fn(&TopicCandidate) -> String,
) -> String {
    let left = members.clone().skip(NAMED).count();
    let each = members.take(NAMED).map(|member| format!("{} {}", member.name, words(member)));
    listed(each.collect(), left, "; ")
}

fn listed(mut words: Vec<String>, left: usize, between: &str) -> String {
    if left > 0 {
        words.push(format!("{left} more"));
    }
    words.join(between)
}

fn functions_words(member: &TopicCandidate) -> String {
    let mut names: Vec<&str> = member.functions.iter().map(|offer| offer.name.as_str()).collect();
    names.dedup();
    if names.is_empty() {
        return "has none".to_owned();
    }
    let left = names.len().saturating_sub(NAMED);
    let shown = names.into_iter().take(NAMED).map(str::to_owned).collect();
    format!("has {}", listed(shown, left, ", "))
}

fn versions_words(member: &TopicCandidate, name: &str) -> String {
    let versions = offers(member, name).map(|offer| match &offer.version {
        Some(version) => format!("has {version}"),
        None => "names none".to_owned(),
    });
    versions.collect::<Vec<String>>().join(" and ")
}

fn obstacle_words(member: &TopicCandidate) -> String {
    match member.why_none {
        Some(WhyNone::NoCredit) => {
            format!("holds {} of its credit of {}", member.held, member.credit)
        }
        Some(why) => why.words(),
        None => "takes work".to_owned(),
    }
}

/// Why it is not placed, and until when it waits for that.
pub(super) fn unplaced(facts: &WaitFacts) -> CauseWords {
    let topic = facts.topic.as_ref()?;
    let Why { cause, words } = topic.unplaced.clone()?;
    if let Some(pause) = retry_pause(facts) {
        return Some(pause);
    }
    let words = match topic.place_by_ms.map(|by| by.saturating_sub(facts.now_ms)) {
        Some(left) => {
            format!("{words}; it ends as expired if it is not placed within {}", span(left))
        }
        None => words,
    };
    Some((cause, words))
}

/// The cause of a task that is placed and not claimed, and what becomes of it then.
pub(super) fn unclaimed(facts: &WaitFacts) -> CauseWords {
    let topic = facts.topic.as_ref().filter(|topic| !topic.claimed && topic.unplaced.is_none())?;
    if facts.live.is_some() {
        return None;
    }
    let (placed, by) = (topic.placed_at_ms?, topic.start_by_ms?);
    let since = span(facts.now_ms.saturating_sub(placed));
    let endpoint = &facts.endpoint;
    let words = if facts.now_ms <= by {
        format!(
            "it was placed at {endpoint} {since} ago, which has not claimed it yet: unless it does \
             until {}, another member gets it",
            moment(by)
        )
    } else {
        format!(
            "it was placed at {endpoint} {since} ago, which has not claimed it until {}: another \
             member gets it once it is certain that it never starts there",
            moment(by)
        )
    };
    Some((WaitCause::Unclaimed, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, functions: &[(&str, Option<&str>)]) -> TopicCandidate {
        let offer = |(name, version): &(&str, Option<&str>)| FunctionOffer {
            name: (*name).to_owned(),
            version: version.map(str::to_owned),
        };
        TopicCandidate {
            name: name.to_owned(),
            functions: functions.iter().map(offer).collect(),
            held: 0,
            credit: 4,
            why_none: None,
        }
    }

    fn says(
        asked: (Option<&str>, Option<&str>),
        members: &[TopicCandidate],
        cause: WaitCause,
        words: &[&str],
    ) {
        let why = unplaced_why("cloud", asked.0, asked.1, members);
        assert_eq!(why.cause, cause, "{}", why.words);
        for word in words {
            assert!(why.words.contains(word), "'{word}' is not in: {}", why.words);
        }
    }

    #[test]
    fn a_topic_without_members_says_how_to_make_one() {
        let words = ["member of the topic cloud", "`topics = [\"cloud\"]`", "--topic cloud"];
        says((Some("m.f"), None), &[], WaitCause::NoMember, &words);
    }

    #[test]
    fn what_no_member_has_is_told_with_what_they_have() {
        let members = [member("a", &[("m.g", None), ("m.h", None)]), member("b", &[])];
        let words = ["has the function m.f: a has m.g, m.h; b has none"];
        says((Some("m.f"), None), &members, WaitCause::NoFunction, &words);
        says((None, None), &members, WaitCause::Placing, &[]);
        let members = [member("a", &[("m.f", Some("1"))]), member("b", &[("m.f", None)])];
        let words = ["has m.f in the version 2: a has 1; b names none"];
        says((Some("m.f"), Some("2")), &members, WaitCause::NoVersion, &words);
        says((Some("m.f"), Some("1")), &members, WaitCause::Placing, &[]);
    }

    #[test]
    fn of_many_members_a_few_are_named() {
        let functions: Vec<String> = (1..=7).map(|n| format!("f{n}")).collect();
        let offers: Vec<(&str, Option<&str>)> =
            functions.iter().map(|name| (name.as_str(), None)).collect();
        let members: Vec<TopicCandidate> =
            (1..=9).map(|n| member(&format!("m{n}"), &offers)).collect();
        let words = ["m1 has f1, f2, f3, f4, f5, 2 more; m2", "; 4 more"];
        says((Some("g"), None), &members, WaitCause::NoFunction, &words);
    }

    #[test]
    fn members_that_can_do_it_and_are_given_none_are_told_with_the_reason() {
        let with = |name, why_none| TopicCandidate { why_none, ..member(name, &[("m.f", None)]) };
        let mut members = vec![
            with("a", Some(WhyNone::Drains)),
            with("b", Some(WhyNone::Away)),
            with("c", Some(WhyNone::Clock { behind_ms: -20_000 })),
            member("other", &[("m.g", None)]),
        ];
        let words = ["takes work: a drains; b is away; c has a clock that is 20 s ahead of"];
        says((Some("m.f"), None), &members, WaitCause::NoMemberReady, &words);
        let full = TopicCandidate { held: 4, ..with("d", Some(WhyNone::NoCredit)) };
        members.push(full);
        let words = ["enough to do: a drains; b is away;", "d holds 4 of its credit of 4"];
        says((Some("m.f"), None), &members, WaitCause::NoCredit, &words);
        members.push(with("e", None));
        says((Some("m.f"), None), &members, WaitCause::Placing, &[]);
    }
}
