//! Dead letters in a spool folder.

use super::a_letter_is_seen_to;
use crate::bad_input::still_works;
use clutch_tests::world::World;
use std::path::Path;

/// The checksum of a file of messages.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes
        .iter()
        .fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Writes messages, each with its properties, into a queue by hand.
pub(super) fn put(spool: &Path, queue: &str, messages: &[(serde_json::Value, Vec<u8>)]) {
    let producer = spool.join(format!("queues/{queue}/ready/{}.1", uuid::Uuid::now_v7()));
    std::fs::create_dir(&producer).unwrap();
    for (number, (properties, body)) in (1..).zip(messages) {
        let mut properties = properties.clone();
        properties["bytes"] = body.len().into();
        let header = serde_json::json!([properties]).to_string().into_bytes();
        let content = [&header[..], body].concat();
        let line = format!("clutch-messages/1 {:08x} {}\n", crc32(&content), header.len());
        let file = producer.join(format!(".{number}"));
        std::fs::write(&file, [line.as_bytes(), &content].concat()).unwrap();
        std::fs::rename(&file, producer.join(format!("{number:016}"))).unwrap();
    }
}

#[test]
fn a_message_that_nobody_can_read_is_listed_shown_requeued_and_dropped() {
    let world = World::in_folder().unwrap();
    let endpoint = world.provision("lab").unwrap();
    let _service = world.serve().unwrap();
    let _daemon = world.run(&endpoint).unwrap();
    let queue = format!("{}.tasks", endpoint.id);
    a_letter_is_seen_to(&world, &queue, |body| {
        put(&world.spool(), &queue, &[(serde_json::json!({ "message_id": "m" }), body.to_vec())]);
    });
    still_works(&world, "dead letters");
}
