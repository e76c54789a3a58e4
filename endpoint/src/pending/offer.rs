//! The offer of an endpoint: the topics that it is a member of, and its functions with their
//! versions. Pure. The endpoint's file is the judge of what runs here, whatever the service
//! believed when it placed a task.

use clutch_common::task::topic::TOPICS_MAX;
use clutch_common::task::{BUILT_IN, Task, Work};
use clutch_common::wire::{FUNCTIONS_MAX, FunctionOffer};
use std::collections::{BTreeMap, BTreeSet};

/// The topics and functions of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Offer {
    /// The topics of which it is a member.
    pub(crate) topics: BTreeSet<String>,
    /// The functions, each with its version where it has one.
    pub(crate) functions: BTreeMap<String, Option<String>>,
}

impl Offer {
    /// The topics, as they are told to the service.
    pub(crate) fn told_topics(&self) -> Vec<String> {
        self.topics.iter().take(TOPICS_MAX).cloned().collect()
    }

    /// The functions, as they are told to the service.
    pub(crate) fn told_functions(&self) -> Vec<FunctionOffer> {
        let functions = self.functions.iter().take(FUNCTIONS_MAX);
        let offer = |(name, version): (&String, &Option<String>)| FunctionOffer {
            name: name.clone(),
            version: version.clone(),
        };
        functions.map(offer).collect()
    }

    /// Why a task of a topic cannot start here, in words; `None` if it can.
    pub(crate) fn lacks(&self, task: &Task) -> Option<String> {
        let terms = task.topic.as_ref()?;
        if !self.topics.contains(&terms.name) {
            let topics = listed(self.topics.iter().map(String::as_str));
            return Some(format!(
                "the endpoint is no member of the topic '{}'; its topics are: {topics}",
                terms.name
            ));
        }
        let Work::Call(call) = &task.work else { return None };
        if call.function.starts_with(BUILT_IN) {
            return None;
        }
        let asked = terms.version.as_deref();
        match self.functions.get(&call.function) {
            None => {
                let functions = listed(self.functions.keys().map(String::as_str));
                Some(format!(
                    "the endpoint's file does not name the function '{}'; its functions are: \
                     {functions}",
                    call.function
                ))
            }
            Some(version) if asked.is_some_and(|asked| version.as_deref() != Some(asked)) => {
                Some(format!(
                    "the endpoint has the function '{}' in {}, not in the version '{}'",
                    call.function,
                    version.as_ref().map_or_else(
                        || "no version".to_owned(),
                        |version| format!("the version '{version}'")
                    ),
                    asked.unwrap_or_default()
                ))
            }
            Some(_) => None,
        }
    }
}

/// Names in one line, of many the first.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 20;
    let mut names = names.peekable();
    let mut shown: Vec<&str> = names.by_ref().take(MOST).collect();
    if names.peek().is_some() {
        shown.push("and more");
    }
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::json::Json;
    use clutch_common::task::topic::TopicTerms;
    use clutch_common::task::{Call, Process};

    fn offer() -> Offer {
        let functions = [("add", Some("2")), ("plain", None)];
        let functions = functions.map(|(name, version)| (name.into(), version.map(Into::into)));
        Offer { topics: ["cloud".to_owned()].into(), functions: functions.into() }
    }

    fn of(topic: &str, version: Option<&str>, work: impl Into<Work>) -> Task {
        let mut task = Task::new(TaskId::new(), Process::default());
        task.work = work.into();
        let version = version.map(Into::into);
        task.topic = Some(TopicTerms { name: topic.into(), start_by_ms: 1, version });
        task
    }

    fn call(function: &str) -> Work {
        Work::Call(Call::new(function, Json::empty_array()))
    }

    #[test]
    fn a_task_runs_where_its_topic_and_its_function_in_that_version_are_offered() {
        let process = Work::Process(Process::default());
        for good in [
            of("cloud", None, process.clone()),
            of("cloud", None, call("add")),
            of("cloud", Some("2"), call("add")),
            of("cloud", None, call("plain")),
            of("cloud", None, call("clutch.echo")),
        ] {
            assert_eq!(offer().lacks(&good), None);
        }
        for (bad, why) in [
            (of("other", None, process.clone()), "no member of the topic 'other'"),
            (of("cloud", None, call("sub")), "does not name the function 'sub'"),
            (of("cloud", Some("1"), call("add")), "in the version '2', not in the version '1'"),
            (of("cloud", Some("1"), call("plain")), "in no version"),
        ] {
            let told = offer().lacks(&bad).unwrap();
            assert!(told.contains(why), "{told}");
        }
        let addressed = Task { topic: None, ..of("other", None, process) };
        assert_eq!(offer().lacks(&addressed), None);
    }
}
