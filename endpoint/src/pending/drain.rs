//! Whether the endpoint is drained: it starts no task and reads none. Pure.
//!
//! Two can drain it, independently of each other: the service, by a message that is in force
//! until its `resume`, and a person at the endpoint. It is drained while either does.

/// The origin of a drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DrainedBy {
    /// A message of the service.
    Service,
    /// A command at the endpoint.
    Person,
}

/// A drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Drained {
    /// When tasks that still run are stopped, in milliseconds since the Unix epoch.
    pub(crate) deadline_ms: Option<u64>,
}

/// The drains that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Drains {
    /// By the service.
    pub(crate) service: Option<Drained>,
    /// By a person.
    pub(crate) person: Option<Drained>,
}

impl Drains {
    /// Begins, changes or ends a drain. Returns whether anything is different.
    pub(crate) fn set(&mut self, by: DrainedBy, drained: Option<Drained>) -> bool {
        let place = match by {
            DrainedBy::Service => &mut self.service,
            DrainedBy::Person => &mut self.person,
        };
        std::mem::replace(place, drained) != drained
    }

    /// Whether the endpoint is drained.
    pub(crate) fn is_draining(&self) -> bool {
        self.service.is_some() || self.person.is_some()
    }

    /// The first deadline of the drains.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let deadline = |drained: Option<Drained>| drained.and_then(|drained| drained.deadline_ms);
        deadline(self.service).into_iter().chain(deadline(self.person)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_drain_is_ended_by_its_own_resume_and_the_first_deadline_counts() {
        let mut drains = Drains::default();
        let until = |deadline_ms| Some(Drained { deadline_ms });
        assert!(!drains.is_draining());
        assert!(drains.set(DrainedBy::Service, until(Some(9))));
        assert!(!drains.set(DrainedBy::Service, until(Some(9))), "it is as it was");
        assert!(drains.set(DrainedBy::Person, until(Some(5))));
        assert_eq!(drains.deadline_ms(), Some(5));
        assert!(drains.set(DrainedBy::Person, None));
        assert!(drains.is_draining());
        assert_eq!(drains.deadline_ms(), Some(9));
        assert!(drains.set(DrainedBy::Service, None));
        assert!(!drains.is_draining());
    }
}
