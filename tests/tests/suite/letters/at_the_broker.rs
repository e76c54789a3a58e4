//! Dead letters at a RabbitMQ.

use super::{a_letter_is_seen_to, handle, letters, listed, task, until};
use crate::bad_input::still_works;
use crate::running;
use clutch_tests::world::World;
use serde_json::json;

#[test]
fn a_message_that_nobody_can_read_is_listed_shown_requeued_and_dropped() {
    let test = "a_message_that_nobody_can_read_is_listed_shown_requeued_and_dropped";
    let Some(run) = running(test) else { return };
    let queue = format!("{}.tasks", run.endpoint.id);
    let id = uuid::Uuid::new_v4().to_string();
    a_letter_is_seen_to(&run.world, &queue, |body| {
        let properties = json!({ "message_id": id, "headers": { "colour": "red" } });
        run.world.vhost().publish("", &queue, properties, body).unwrap();
        let there = until(&run.world, 1);
        let whole = letters(&run.world, &["show", handle(&there[0]), "--json"]).json().unwrap();
        assert_eq!(whole["message_id"], id);
        assert_eq!(whole["extra"]["headers"]["colour"], "red", "{whole}");
    });
    still_works(&run.world, "dead letters");
}

/// An endpoint without a daemon, and a queue that delivers a message twice at most.
struct Limited {
    world: World,
    queue: String,
}

impl Limited {
    fn or_skip(test: &str, kind: &str) -> Option<Self> {
        let world = World::or_skip(test)?;
        let endpoint = world.provision_with("lab", &["--queue", kind]).unwrap();
        Some(Self { queue: format!("{}.tasks", endpoint.id), world })
    }

    /// Submits a task and has its message delivered too often. Returns its id.
    fn deliver_too_often(&self) -> String {
        let submit = ["submit", "lab", "--key", "k", "--json", "--", "true"];
        self.world.service(&submit).unwrap().ok().unwrap();
        let id = self.world.result("k").unwrap()["id"].as_str().unwrap().to_owned();
        // A queue of the same name that counts to one, and has no consumer of its own.
        let vhost = self.world.vhost();
        vhost.delete(&self.queue).unwrap();
        let arguments = json!({
            "x-queue-type": "quorum",
            "x-delivery-limit": 1,
            "x-dead-letter-exchange": "dead-letters",
        });
        vhost.declare(&self.queue, arguments).unwrap();
        let properties = json!({ "type": "clutch.tasks", "message_id": "m" });
        vhost.publish("", &self.queue, properties, &task(&id)).unwrap();
        self.again();
        id
    }

    fn again(&self) {
        for _ in 0..2 {
            assert_eq!(self.world.vhost().give_back(&self.queue, 1).unwrap().len(), 1);
        }
    }
}

#[test]
fn a_message_past_its_delivery_limit_is_kept_and_dropping_it_ends_its_task() {
    let test = "a_message_past_its_delivery_limit_is_kept_and_dropping_it_ends_its_task";
    let Some(limited) = Limited::or_skip(test, "classic") else { return };
    let world = &limited.world;
    let mut service = world.serve().unwrap();
    let id = limited.deliver_too_often();
    assert_eq!(service.stop(clutch_tests::world::SOON).unwrap(), 0);

    let there = until(world, 1);
    assert_eq!(there[0]["reason"], "delivery_limit", "{}", there[0]);
    assert_eq!(
        (&there[0]["queue"], &there[0]["tasks"]),
        (&limited.queue.clone().into(), &1.into())
    );
    assert_eq!(there[0]["problem"], json!(null));

    let kept = letters(world, &["drop", handle(&there[0])]);
    assert_eq!(kept.code, 1);
    assert!(kept.text().contains(&id) && kept.text().contains("--yes"), "{}", kept.text());
    assert_eq!(listed(world), there, "nothing has changed");

    letters(world, &["requeue", handle(&there[0])]).ok().unwrap();
    assert!(listed(world).is_empty());
    limited.again();
    let there = until(world, 1);
    let dropped = letters(world, &["drop", handle(&there[0]), "--yes"]).ok().unwrap();
    assert!(dropped.text().contains(&id), "{}", dropped.text());
    assert!(listed(world).is_empty());

    let _service = world.serve().unwrap();
    world.wait("k").unwrap();
    let result = world.result("k").unwrap();
    assert_eq!(result["result"]["outcome"], "cancelled", "{result}");
    assert!(result["result"]["reason"].as_str().unwrap().contains("dropped"), "{result}");
}

#[test]
fn looking_at_a_quorum_queue_leaves_its_letters_however_often() {
    let test = "looking_at_a_quorum_queue_leaves_its_letters_however_often";
    let Some(limited) = Limited::or_skip(test, "quorum") else { return };
    let vhost = limited.world.vhost();
    for number in 0..3 {
        let properties = json!({ "message_id": number.to_string() });
        vhost.publish("dead-letters", "", properties, b"stray").unwrap();
    }
    // RabbitMQ 4 takes 20 deliveries for the end where nothing else is said.
    for _ in 0..25 {
        let ids = listed(&limited.world);
        let ids: Vec<&str> = ids.iter().map(|one| one["message_id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["0", "1", "2"]);
    }
    let kept = letters(&limited.world, &["requeue", "--all"]);
    assert_eq!(kept.code, 1);
    assert!(kept.text().contains("does not say which queue"), "{}", kept.text());
    let few = letters(&limited.world, &["list", "--limit", "1"]).ok().unwrap();
    assert_eq!(few.text().lines().count(), 2);
    assert!(few.stderr.contains("2 more"), "{}", few.stderr);
}

#[test]
fn a_letter_whose_queue_is_gone_or_full_is_kept_in_words() {
    let test = "a_letter_whose_queue_is_gone_or_full_is_kept_in_words";
    let Some(limited) = Limited::or_skip(test, "classic") else { return };
    let (world, vhost) = (&limited.world, limited.world.vhost());
    let id = uuid::Uuid::new_v4().to_string();
    vhost.publish("", &limited.queue, json!({}), &task(&id)).unwrap();
    assert_eq!(vhost.refuse(&limited.queue, 1).unwrap().len(), 1);
    let there = until(world, 1);
    let full = json!({ "x-max-length": 0, "x-overflow": "reject-publish" });
    for (arguments, words) in [(None, "no queue takes"), (Some(full), "is full")] {
        if let Some(arguments) = arguments {
            vhost.declare(&limited.queue, arguments).unwrap();
        } else {
            vhost.delete(&limited.queue).unwrap();
        }
        let kept = letters(world, &["requeue", "--all"]);
        assert_eq!(kept.code, 1);
        assert!(kept.text().contains("kept") && kept.text().contains(words), "{}", kept.text());
        assert_eq!(listed(world), there);
    }
}

#[test]
fn a_broker_that_is_gone_or_has_no_letters_is_told() {
    let test = "a_broker_that_is_gone_or_has_no_letters_is_told";
    let Some(world) = World::or_skip(test) else { return };
    let none = letters(&world, &["list"]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("clutch-service provision"), "{}", none.stderr);
    let gone = letters(&world, &["list", "--broker", "amqp://127.0.0.1:1"]);
    assert_eq!(gone.code, 69);
    world.provision("lab").unwrap();
    let user = format!("letters-{}", uuid::Uuid::new_v4());
    // As an endpoint of one's own is given: its queue, and nothing more.
    let own = ["^mine\\.lease$", "^(mine\\.lease|results)$", "^mine\\.(tasks|lease)$"];
    world.vhost().user(&user, "secret", own).unwrap();
    let url = world.vhost().url_as(&user, "secret").unwrap();
    let shut = letters(&world, &["list", "--broker", &url]);
    world.vhost().delete_user(&user).unwrap();
    assert_eq!(shut.code, 77, "{}", shut.stderr);
}
