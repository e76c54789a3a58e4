//! Why tasks of a kind are not placed, in a sentence for people. Pure.

use super::catalogue::{Catalogue, TaskKind};
use super::member::Member;
use super::view::WhyNone;

/// How many members a sentence names.
const NAMED: usize = 5;

impl Catalogue {
    /// Why tasks of a kind, by its number, are not placed.
    pub(crate) fn why_unplaced(&self, number: i64, now_ms: u64) -> String {
        match self.kinds.get(&number) {
            Some(kind) => self.why_kind(number, kind, now_ms),
            None => "its topic is not known to this run of the service".to_owned(),
        }
    }

    fn why_kind(&self, number: i64, kind: &TaskKind, now_ms: u64) -> String {
        let topic = &kind.topic;
        let members: Vec<&Member> =
            self.members().filter(|member| member.facts.topics.contains(topic)).collect();
        if members.is_empty() {
            return format!("no endpoint names the topic '{topic}'");
        }
        let able: Vec<&&Member> =
            members.iter().filter(|member| member.offer.has(number, kind)).collect();
        if able.is_empty() {
            let wanted = match (&kind.function, &kind.version) {
                (Some(function), Some(version)) => {
                    format!("the function '{function}' in version '{version}'")
                }
                (Some(function), None) => format!("the function '{function}'"),
                (None, _) => "processes".to_owned(),
            };
            let known = listed(members.iter().map(|member| offers(member, kind)));
            return format!("no member of the topic '{topic}' has {wanted} (known: {known})");
        }
        let state = |member: &&&Member| {
            let words = match self.obstacle(member, now_ms) {
                Some(WhyNone::Drains) => "drains",
                Some(WhyNone::Clock { .. }) => "has a clock that is off",
                Some(WhyNone::Away) => "is away",
                Some(WhyNone::Unheard) => "was not heard for a while",
                Some(WhyNone::NotTaken) => "has a queue that takes nothing",
                Some(WhyNone::NoCredit) => "has no credit left",
                None => "has room",
            };
            format!("{} {words}", member.facts.name)
        };
        let states = listed(able.iter().map(state));
        format!("no member of the topic '{topic}' could take it: {states}")
    }
}

/// The versions of a function that a member has, or all its functions.
fn offers(member: &Member, kind: &TaskKind) -> String {
    let name = &member.facts.name;
    let wanted = kind.function.as_ref();
    let versions = member.facts.functions.iter().filter(|offer| Some(&offer.name) == wanted);
    let versions: Vec<String> = versions
        .map(|offer| match &offer.version {
            Some(version) => format!("{} in version '{version}'", offer.name),
            None => format!("{} without a version", offer.name),
        })
        .collect();
    if !versions.is_empty() {
        return format!("{name} with {}", versions.join(", "));
    }
    let functions = listed(member.facts.functions.iter().map(|offer| offer.name.clone()));
    if functions.is_empty() { name.clone() } else { format!("{name} with {functions}") }
}

/// The first of some words, and how many more there are.
fn listed(words: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = words.collect();
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all.join(", ")
}
