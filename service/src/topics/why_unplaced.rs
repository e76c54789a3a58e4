//! Why tasks of a kind are not placed, in the sentence that people are shown. Pure.

use super::catalogue::{Catalogue, TaskKind};
use super::member::Member;
use crate::model::{TopicCandidate, unplaced_why};

impl Catalogue {
    /// Why tasks of a kind, by its number, are not placed.
    pub(crate) fn why_unplaced(&self, number: i64, now_ms: u64) -> String {
        let Some(kind) = self.kinds.get(&number) else {
            return "its topic is not known to this run of the service".to_owned();
        };
        let members = self.members().filter(|member| member.facts.topics.contains(&kind.topic));
        let members: Vec<TopicCandidate> =
            members.map(|member| self.candidate(member, number, kind, now_ms)).collect();
        let (function, version) = (kind.function.as_deref(), kind.version.as_deref());
        unplaced_why(&kind.topic, function, version, &members).words
    }

    fn candidate(
        &self,
        member: &Member,
        number: i64,
        kind: &TaskKind,
        now_ms: u64,
    ) -> TopicCandidate {
        let mut functions = member.facts.functions.clone();
        if member.offer.withholds(number) {
            functions.retain(|offer| Some(&offer.name) != kind.function.as_ref());
        }
        TopicCandidate {
            name: member.facts.name.clone(),
            functions,
            held: member.held,
            credit: member.credit(self.lookahead, now_ms),
            why_none: self.obstacle(member, now_ms),
        }
    }
}
