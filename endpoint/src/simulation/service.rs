//! The service in a run: publishes tasks, some of them twice, some that cannot be
//! run or read, and records the first result of each attempt. Its own link is
//! sound.

use super::oracle::{Expected, name};
use super::plan::Mishap;
use super::process::ENDPOINT;
use super::world::World;
use clutch_common::id::TaskId;

use clutch_common::link::{Destination, Fault, InletOptions, Message, Settlement, Transport};
use clutch_common::result::Outcome;
use clutch_common::task::{Process, Task};
use clutch_common::{topology, wire};
use std::sync::Arc;

/// Publishes all that the plan asks for.
pub(super) async fn publish(world: Arc<World>, broker: Arc<dyn Transport>) -> Result<(), Fault> {
    let connection = broker.connect("service").await?;
    let mut outlet = connection.outlet().await?;
    let to = Destination { exchange: String::new(), routing_key: topology::tasks_queue(ENDPOINT) };
    let mut number = 0;
    let pause = world.plan.storm.as_millis() as u64 / (2 * world.plan.messages);
    for _ in 0..world.plan.messages {
        tokio::time::sleep(world.millis(0..2 * pause + 1)).await;
        let (message, tasks) = message(&world, &mut number);
        for (task, expected) in &tasks {
            world.note(format_args!("service: publishes {}: {expected:?}", name(task.attempt())));
            world.tell(|oracle| oracle.publishes(task.attempt(), *expected));
        }
        let times = if world.mishap(Mishap::Repeated) { 2 } else { 1 };
        if times > 1 {
            world.note(format_args!("service: publishes them twice"));
            for (task, _) in &tasks {
                world.tell(|oracle| oracle.publishes_again(task.attempt()));
            }
        }
        for _ in 0..times {
            outlet.publish(&to, message.clone()).await?;
            for (_, settlement) in outlet.settled().await? {
                if settlement == Settlement::Confirmed {
                    for (task, _) in &tasks {
                        world.tell(|oracle| oracle.submitted(task.attempt()));
                    }
                }
            }
        }
    }
    connection.close().await;
    Ok(())
}

/// Some tasks in a message, and how they must end.
fn message(world: &World, number: &mut u128) -> (Message, Vec<(Task, Expected)>) {
    let count = world.within(1..world.plan.message_tasks + 1);
    let mut tasks: Vec<(Task, Expected)> = (0..count).map(|_| task(world, number)).collect();
    let mut body = wire::encode_tasks(&tasks.iter().map(|(task, _)| task).collect::<Vec<_>>());
    let correlation_id = (count == 1).then(|| tasks[0].0.id.to_string());
    if count == 1 && world.within(0..30) == 0 {
        body.truncate(body.len() / 2);
        tasks[0].1 = Expected::Not(Outcome::Rejected);
    }
    (Message { correlation_id, body, ..Message::default() }, tasks)
}

fn task(world: &World, number: &mut u128) -> (Task, Expected) {
    *number += 1;
    let process = |argv: &[&str]| Process {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        ..Process::default()
    };
    let mut task = Task::new(TaskId(uuid::Uuid::from_u128(*number)), process(&["true"]));
    let expected = match world.within(0..20) {
        0 => {
            task.work = clutch_common::task::Work::Process(Process::default());
            Expected::Not(Outcome::Rejected)
        }
        1 => {
            task.expires_at_ms = Some(1);
            Expected::Not(Outcome::Expired)
        }
        2..7 => {
            task.rerun = false;
            Expected::Run { rerun: false }
        }
        _ => Expected::Run { rerun: true },
    };
    (task, expected)
}

/// Records results for as long as it is polled.
pub(super) async fn collect(world: Arc<World>, broker: Arc<dyn Transport>) -> Result<(), Fault> {
    let connection = broker.connect("service/results").await?;
    let options = InletOptions {
        queue: topology::RESULTS_QUEUE.to_owned(),
        prefetch: 100,
        lease: Some(topology::SERVICE_LEASE.to_owned()),
    };
    let mut inlet = connection.inlet(&options).await?;
    loop {
        for delivery in inlet.receive(100).await? {
            let decoded = match wire::decode_to_service(&delivery.message.body) {
                wire::ToService::Results(results) => results,
                wire::ToService::Presence(_) | wire::ToService::Ping => wire::Results::default(),
            };
            if let Some(unreadable) = decoded.unreadable.first() {
                world.fail(format!("a result cannot be read: {unreadable}"));
            }
            for result in decoded.results {
                let (attempt, outcome) = (result.attempt(), result.outcome);
                let new = world.judge(|oracle| oracle.records(attempt, outcome));
                let how = if new == Some(true) { "records" } else { "has already" };
                world.note(format_args!("service: {how} {} {outcome}", name(attempt)));
            }
            inlet.acknowledge(delivery.tag).await?;
        }
    }
}
