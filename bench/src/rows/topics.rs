//! Work of a topic over several members, beside as much that is addressed to the same members:
//! no-op calls, and processes.

use super::Bench;
use super::submissions::PATIENCE;
use crate::report::{Row, Side};
use anyhow::{Context as _, Result, ensure};
use clutch_tests::process::Daemon;
use clutch_tests::world::{SOON, World};
use std::time::Instant;

/// The share of the rate of addressed tasks that tasks of a topic have to reach.
const BAR: f64 = 0.85;
/// How many members there are.
const MEMBERS: [usize; 3] = [1, 2, 4];
/// The topic.
const TOPIC: &str = "bench";
/// How many tasks each member runs at once.
const SLOTS: usize = 64;
/// The kinds of work, and the words of each.
const WORK: [(&str, &[&str]); 2] = [
    ("calls", &["--call", "clutch.echo", "--json-arg", "{}"]),
    ("processes", &["--", "/bin/true"]),
];

/// How tasks find a member.
#[derive(Clone, Copy)]
enum Way {
    /// The service places them.
    Topic,
    /// Each is submitted to a member, as many to each.
    Addressed,
}

/// Members of the topic on a service.
struct Members {
    world: World,
    names: Vec<String>,
    _daemons: Vec<Daemon>,
    _service: Daemon,
}

/// The row `topics`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let counts = [bench.scale.submitted, bench.scale.processes];
    let about = format!(
        "{} no-op calls and {} processes over several members with {SLOTS} slots each, as one \
         submission for each member: by their topic, and in turn addressed to the members; from \
         the first `clutch-service submit` until all are recorded, everything durable; all \
         folders are on {}",
        counts[0],
        counts[1],
        bench.file_system()?
    );
    let mut row = Row::new("topics", about);
    for count in MEMBERS {
        let members = Members::start(bench, count)?;
        for ((what, work), tasks) in WORK.into_iter().zip(counts) {
            let mut rates = [Vec::new(), Vec::new()];
            let mut ratios = Vec::new();
            // The first tasks find everything cold.
            for way in [Way::Addressed, Way::Topic] {
                members.rate(way, &format!("warm.{what}"), tasks / 10, work)?;
            }
            for repetition in 0..bench.scale.repetitions {
                let key = format!("{what}.{repetition}");
                let addressed = members.rate(Way::Addressed, &key, tasks, work)?;
                let topic = members.rate(Way::Topic, &key, tasks, work)?;
                rates[0].push(topic);
                rates[1].push(addressed);
                ratios.push(topic / addressed);
            }
            let [topic, addressed] = rates;
            row.add(&format!("{what}, {count} by topic"), "tasks/s", &topic);
            row.add(&format!("{what}, {count} addressed"), "tasks/s", &addressed);
            let what = format!("{what}, {count} by topic to addressed");
            row.hold(&what, "ratio", &ratios, (Side::AtLeast, BAR));
        }
    }
    Ok(row)
}

impl Members {
    fn start(bench: &Bench, count: usize) -> Result<Self> {
        let world = World::on(bench.broker()?)?;
        let names: Vec<String> = (0..count).map(|number| format!("m{number}")).collect();
        let provisioned = names.iter().map(|name| world.provision_with(name, &["--topic", TOPIC]));
        let endpoints: Vec<_> = provisioned.collect::<Result<_>>()?;
        let service = world.serve()?;
        let slots = SLOTS.to_string();
        let daemons = endpoints.iter().map(|it| world.run_with(it, &["--slots", &slots]));
        let daemons = daemons.collect::<Result<_>>()?;
        let all = count.to_string();
        world.service(&["wait-for-workers", TOPIC, "-n", &all, "--timeout", "60s"])?.ok()?;
        Ok(Self { world, names, _daemons: daemons, _service: service })
    }

    /// Submits so many tasks, shared out over a submission for each member, and waits for all
    /// outcomes; returns how many were recorded in a second.
    fn rate(&self, way: Way, key: &str, tasks: usize, work: &[&str]) -> Result<f64> {
        let share = tasks / self.names.len();
        ensure!(share > 0, "there are too few tasks");
        let started = Instant::now();
        let done: Result<Vec<()>> = std::thread::scope(|scope| {
            let submissions = self.names.iter().map(|name| {
                scope.spawn(move || -> Result<()> {
                    let (to, way) = match way {
                        Way::Topic => (["--topic", TOPIC].to_vec(), "topic"),
                        Way::Addressed => (vec![name.as_str()], "addressed"),
                    };
                    let (key, array) = (format!("{key}.{way}.{name}"), format!("1-{share}"));
                    let begin = [&["submit"], &to[..], &["--key", &key, "--wait"]].concat();
                    let line = [&begin[..], &["--array", &array], work].concat();
                    self.world.service_within(&line, PATIENCE.max(SOON))?.ok().map(drop)
                })
            });
            let submissions: Vec<_> = submissions.collect();
            let joined = submissions.into_iter().map(|it| it.join().ok().context("it panicked")?);
            joined.collect()
        });
        done?;
        Ok((share * self.names.len()) as f64 / started.elapsed().as_secs_f64())
    }
}
