//! `[worker]`: the topics that an endpoint is a member of, and its offer of them and of its
//! functions. Pure.

use super::Config;
use crate::pending::offer::Offer;
use clutch_common::task::topic::{TOPICS_MAX, check_topic};
use serde::Deserialize;

/// `[worker]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkerSection {
    /// The topics of which tasks may be placed here.
    pub(crate) topics: Vec<String>,
}

impl WorkerSection {
    /// Checks the names of the topics.
    ///
    /// # Errors
    /// One cannot be a name or is there twice, or there are too many.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.topics.len() > TOPICS_MAX {
            return Err(format!(
                "worker.topics names {} topics: at most {TOPICS_MAX} are possible",
                self.topics.len()
            ));
        }
        for (index, topic) in self.topics.iter().enumerate() {
            check_topic(topic).map_err(|invalid| format!("worker.topics: {invalid}"))?;
            if self.topics[..index].contains(topic) {
                return Err(format!("worker.topics names '{topic}' twice: name it once"));
            }
        }
        Ok(())
    }
}

impl Config {
    /// Returns what the endpoint offers.
    pub(crate) fn offer(&self) -> Offer {
        let functions = self.functions.iter();
        Offer {
            topics: self.worker.topics.iter().cloned().collect(),
            functions: functions
                .map(|(name, function)| (name.clone(), function.version.clone()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(topics: &[&str]) -> Result<(), String> {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        WorkerSection { topics }.check()
    }

    #[test]
    fn topics_have_plain_names_and_each_is_named_once() {
        checked(&[]).unwrap();
        checked(&["cloud", "gpu-80.G_1"]).unwrap();
        assert!(checked(&["cloud", "a b"]).unwrap_err().contains("worker.topics: 'a b'"));
        assert!(checked(&["cloud", "cloud"]).unwrap_err().contains("'cloud' twice"));
        let many: Vec<String> = (0..=TOPICS_MAX).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(checked(&many).unwrap_err().contains("at most 100"));
    }
}
