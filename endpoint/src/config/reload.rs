//! The differences between the configuration that a daemon runs by and the file as it is:
//! settings that can be taken while it runs, and those that need a restart. Pure.

use super::Config;

/// The keys that differ.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Difference {
    /// Those that are taken while the daemon runs.
    pub(crate) taken: Vec<&'static str>,
    /// Those that need a restart.
    pub(crate) restart: Vec<&'static str>,
}

type Differs = fn(&Config, &Config) -> bool;

/// The settings that are taken while the daemon runs.
const TAKEN: [(&str, Differs); 6] = [
    ("engine.slots", |old, new| old.slots() != new.slots()),
    ("engine.poison_after", |old, new| old.engine.poison_after != new.engine.poison_after),
    ("inbox.max_tasks", |old, new| old.inbox.max_tasks != new.inbox.max_tasks),
    ("inbox.max_bytes", |old, new| old.inbox.max_bytes != new.inbox.max_bytes),
    ("shutdown.deadline", |old, new| old.shutdown.deadline != new.shutdown.deadline),
    ("worker.topics", |old, new| old.worker != new.worker),
];

/// The settings that need a restart: they are in the hands of workers, of a session of the link, or of the
/// disk.
const RESTART: [(&str, Differs); 11] = [
    ("endpoint", |old, new| old.endpoint != new.endpoint),
    ("broker", |old, new| old.broker != new.broker),
    ("state.path", |old, new| old.state.path != new.state.path),
    ("inbox.prefetch", |old, new| old.inbox.prefetch != new.inbox.prefetch),
    ("results", |old, new| old.results != new.results),
    ("engine.grace", |old, new| old.engine.grace != new.engine.grace),
    ("engine.capture_limit", |old, new| old.engine.capture_limit != new.engine.capture_limit),
    ("engine.sandbox", |old, new| old.engine.sandbox != new.engine.sandbox),
    ("messages", |old, new| old.messages != new.messages),
    ("functions", |old, new| old.functions != new.functions),
    ("the workers of functions without `concurrency`, as many as slots", |old, new| {
        let by_slots = |config: &Config| {
            config.functions.values().any(|function| function.concurrency.is_none())
        };
        old.slots() != new.slots() && by_slots(new)
    }),
];

impl Config {
    /// Compares the configuration that a daemon runs by with another one.
    pub(crate) fn difference(&self, new: &Self) -> Difference {
        let differing = |keys: &[(&'static str, Differs)]| {
            let differing = keys.iter().filter(|(_, differs)| differs(self, new));
            differing.map(|(key, _)| *key).collect()
        };
        Difference { taken: differing(&TAKEN), restart: differing(&RESTART) }
    }

    /// Takes what can be taken while the daemon runs.
    pub(crate) fn take(&mut self, new: &Self) {
        self.engine.slots = new.engine.slots;
        self.engine.poison_after = new.engine.poison_after;
        self.inbox.max_tasks = new.inbox.max_tasks;
        self.inbox.max_bytes = new.inbox.max_bytes;
        self.shutdown = new.shutdown.clone();
        self.worker = new.worker.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::FILE;
    use super::*;

    fn with(extra: &str) -> Config {
        Config::parse(&format!("{FILE}\n{extra}")).unwrap()
    }

    #[test]
    fn what_differs_is_taken_or_needs_a_restart_and_all_keys_are_looked_at() {
        let mut old = with("");
        assert_eq!(old.difference(&with("")), Difference::default());
        let new = with(
            "[engine]\nslots = 77\npoison_after = 9\ngrace = \"1s\"\ncapture_limit = 1\n\
             sandbox = \"keep\"\n[inbox]\nmax_tasks = 1\nmax_bytes = 2\nprefetch = 3\n\
             [shutdown]\ndeadline = \"1s\"\n[worker]\ntopics = [\"t\"]\n[results]\nkeep = \"1s\"\n[messages]\nallow = \"any\"\n[state]\npath = \"/x\"\n\
             [functions.add]\ncommand = [\"x\"]",
        );
        let found = old.difference(&new);
        assert_eq!(found.taken, TAKEN.map(|(key, _)| key));
        assert_eq!(found.restart, &RESTART.map(|(key, _)| key)[2..]);
        old.take(&new);
        assert_eq!(old.difference(&new).taken, Vec::<&str>::new());
        let text = FILE.replace("\"lab\"", "\"other\"").replace("10s", "11s");
        let other = Config::parse(&text).unwrap();
        assert_eq!(with("").difference(&other).restart, ["endpoint", "broker"]);
    }
}
