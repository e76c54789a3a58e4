//! Traces written by hand: the good one passes, and every step that is left out
//! or comes too late is named.

use super::amqp::written::{acknowledgement, delivery};
use super::*;

const SMALL: Uuid = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);
const LARGE: Uuid = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8058);
const PEER: &str = "9<TCP:[127.0.0.1:4->127.0.0.1:5]>";

/// The steps of a good trace, by name.
type Steps = Vec<(&'static str, String)>;

fn quoted(bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("\"{escaped}\", {}", bytes.len())
}

fn task(id: Uuid) -> String {
    format!(r#"{{"id":"{id}","attempt":1,"work":{{}}}}"#)
}

/// A record as it lies among others in the store: key, checksum, content.
fn record(id: Uuid, form: u8, content: &[u8]) -> Vec<u8> {
    [b"i\0\0\0\0\0\0\0\x07", &id.as_bytes()[..], &[0, 0, 0, 1, form], b"crc!", content].concat()
}

fn place(payload: &[u8]) -> Vec<u8> {
    let words = [1, 3, payload.len() as u64, u64::from(crc32fast::hash(payload))];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A message brings a task that lies in its record and one that is spooled.
fn good() -> Steps {
    let message = format!(r#"{{"tasks":[{},{}]}}"#, task(SMALL), task(LARGE));
    let delivered = delivery(1, &[message.as_bytes()]);
    let spooled = [b"abc", task(LARGE).as_bytes()].concat();
    let records = [
        record(SMALL, 0, task(SMALL).as_bytes()),
        record(LARGE, 1, &place(task(LARGE).as_bytes())),
    ]
    .concat();
    let file = "/s/spool/0000000000000001";
    vec![
        ("greet", format!("1 sendto({PEER}, \"AMQP\\0\\0\\t\\1\", 8, 0, NULL, 0) = 8")),
        ("deliver", format!("1 recvfrom({PEER}, {}, 0) = {}", quoted(&delivered), delivered.len())),
        ("spool", format!("2 write(5<{file}.tmp>, {}) = {}", quoted(&spooled), spooled.len())),
        ("file", format!("2 fsync(5<{file}.tmp>) = 0")),
        ("name", format!("2 rename(\"{file}.tmp\", \"{file}\") = 0")),
        ("folder", "2 fsync(5</s/spool>) = 0".to_owned()),
        ("store", format!("3 pwrite64(4</s/queue/db>, {}) = {}", quoted(&records), records.len())),
        ("commit", "2 fdatasync(6</s/queue/db>) = 0".to_owned()),
        ("ack", format!("1 sendto({PEER}, {}, 0) = 21", quoted(&acknowledgement(1, true)))),
    ]
}

fn judged(steps: &Steps) -> Proof {
    let lines: Vec<&str> = steps.iter().map(|(_, line)| line.as_str()).collect();
    judge((lines.join("\n") + "\n8 write(").as_bytes(), Path::new("/s")).unwrap()
}

fn index(steps: &Steps, name: &str) -> usize {
    steps.iter().position(|(step, _)| *step == name).unwrap()
}

fn without(name: &str) -> Steps {
    let mut steps = good();
    steps.remove(index(&steps, name));
    steps
}

fn moved(name: &str, before: &str) -> Steps {
    let mut steps = good();
    let step = steps.remove(index(&steps, name));
    steps.insert(index(&steps, before), step);
    steps
}

fn changed(name: &str, from: &str, to: &str) -> Steps {
    let mut steps = good();
    let line = &mut steps.iter_mut().find(|(step, _)| *step == name).unwrap().1;
    assert!(line.contains(from), "{line}");
    *line = line.replace(from, to);
    steps
}

/// A step begins where it stood and ends only after another one.
fn stretched(name: &str, until_after: &str) -> Steps {
    let mut steps = good();
    let at = index(&steps, name);
    let (thread, call) = steps[at].1.split_once(' ').unwrap();
    let (begin, end) = call.rsplit_once(')').unwrap();
    let function = begin.split('(').next().unwrap();
    let end = format!("{thread} <... {function} resumed>){end}");
    steps[at].1 = format!("{thread} {begin} <unfinished ...>");
    steps.insert(index(&steps, until_after) + 1, ("end", end));
    steps
}

fn breaches(steps: &Steps) -> Vec<(Uuid, Missing)> {
    judged(steps).breaches.iter().map(|breach| (breach.task, breach.missing)).collect()
}

fn both(missing: Missing) -> Vec<(Uuid, Missing)> {
    vec![(SMALL, missing), (LARGE, missing)]
}

#[test]
fn a_good_trace_passes_and_is_counted() {
    let proof = judged(&good());
    let expected = Proof {
        deliveries: 1,
        acknowledgements: 1,
        tasks: 2,
        spooled: 1,
        in_inbox: 2,
        syncs: 1,
        breaches: Vec::new(),
    };
    assert_eq!(proof, expected);
}

#[test]
fn an_acknowledgement_before_the_sync_of_the_store_is_caught() {
    let early = both(Missing::StoreSync);
    assert_eq!(breaches(&moved("ack", "commit")), early);
    assert_eq!(breaches(&without("commit")), early);
    assert_eq!(breaches(&changed("commit", "= 0", "= -1 EIO (Input/output error)")), early);
    // The sync had begun, and not ended; or the write had not ended when it began.
    assert_eq!(breaches(&stretched("commit", "ack")), early);
    assert_eq!(breaches(&stretched("store", "commit")), early);
    // The acknowledgement had begun.
    let mut steps = moved("ack", "commit");
    let at = index(&steps, "ack");
    let (begin, end) = steps[at].1.rsplit_once(')').unwrap();
    let end = format!("1 <... sendto resumed>){end}");
    steps[at].1 = format!("{begin} <unfinished ...>");
    steps.push(("end", end));
    assert_eq!(breaches(&steps), early);
}

#[test]
fn a_sync_of_another_file_or_before_the_write_covers_nothing() {
    let early = both(Missing::StoreSync);
    assert_eq!(breaches(&changed("commit", "/s/queue/db", "/s/mark")), early);
    assert_eq!(breaches(&changed("commit", "/s/queue/db", "/t/queue/db")), early);
    assert_eq!(breaches(&moved("commit", "store")), early);
}

#[test]
fn an_acknowledgement_of_what_was_never_written_is_caught() {
    assert_eq!(breaches(&without("store")), both(Missing::Record));
    assert_eq!(breaches(&changed("store", "/s/queue/db", "/s/mark")), both(Missing::Record));
    // Of another attempt, and without its content.
    let other = quoted(&[0, 0, 0, 1, 0])[1..21].to_owned();
    let steps = changed("store", &other, &other.replace("\\001", "\\002"));
    assert_eq!(breaches(&steps), [(SMALL, Missing::Record)]);
    let content = quoted(task(SMALL).as_bytes())[1..41].to_owned();
    let steps = changed("store", &content, &"\\000".repeat(10));
    assert_eq!(breaches(&steps), [(SMALL, Missing::Record)]);
}

#[test]
fn a_payload_that_was_not_synced_is_caught() {
    let early = [(LARGE, Missing::FileSync)];
    assert_eq!(breaches(&without("file")), early);
    assert_eq!(breaches(&moved("file", "spool")), early);
    assert_eq!(breaches(&moved("file", "folder")), early);
    assert_eq!(breaches(&stretched("file", "name")), early);
    assert_eq!(breaches(&stretched("spool", "file")), early);
}

#[test]
fn a_folder_that_was_not_synced_is_caught() {
    let early = [(LARGE, Missing::FolderSync)];
    assert_eq!(breaches(&without("folder")), early);
    assert_eq!(breaches(&moved("folder", "name")), early);
    assert_eq!(breaches(&stretched("name", "folder")), early);
    assert_eq!(breaches(&stretched("folder", "store")), early);
    assert_eq!(breaches(&changed("folder", "/s/spool", "/s/queue")), early);
}

#[test]
fn a_payload_without_a_name_or_with_other_bytes_is_caught() {
    assert_eq!(breaches(&without("name")), [(LARGE, Missing::Name)]);
    let end = quoted(b"}}")[1..9].to_owned();
    assert_eq!(breaches(&changed("spool", &end, "\\040\\040")), [(LARGE, Missing::Payload)]);
    assert_eq!(breaches(&without("spool")), [(LARGE, Missing::Record)]);
}

#[test]
fn a_task_that_ended_before_its_group_was_written_is_kept_by_what_it_became() {
    let result = format!(r#"{{"task_id":"{SMALL}","attempt":1,"outcome":"succeeded"}}"#);
    let mut steps = without("store");
    let seen = [SMALL.as_bytes(), &1_u32.to_le_bytes()[..]].concat();
    for kept in [record(SMALL, 0, result.as_bytes()), seen] {
        let line = format!("3 pwrite64(4</s/queue/db>, {}) = {}", quoted(&kept), kept.len());
        steps.insert(index(&steps, "commit"), ("store", line));
        let proof = judged(&steps);
        assert_eq!((proof.in_inbox, proof.breaches.len()), (0, 1), "{proof}");
        assert_eq!(proof.breaches[0].task, LARGE);
        steps.remove(index(&steps, "store"));
    }
}

#[test]
fn data_that_was_cut_and_what_is_not_amqp_are_no_proof() {
    for bad in [
        "1 write(5</s/queue/db>, \"ab\"..., 9) = 9",
        "1 sendto(9<TCP:[a->b]>, \"GET / HT\", 8) = 8",
    ] {
        assert!(judge(format!("{bad}\n").as_bytes(), Path::new("/s")).is_err(), "{bad}");
    }
}

#[test]
fn a_trace_is_whole_when_it_says_how_its_process_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    for (text, whole) in [
        ("", false),
        ("7 fsync(5</s>) = 0\n", false),
        ("7 fsync(5</s>) = 0\n8 +++ exited with 0 +++\n", false),
        ("8 +++ exited with 0 +++\n7     +++ exited with 0 +++", false),
        ("8 +++ exited with 0 +++\n7     +++ exited with 0 +++\n", true),
        ("7 +++ killed by SIGKILL +++\n8 write(1</s>, \"", true),
        ("17 +++ exited with 0 +++\n", false),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(is_whole(&path, 7).unwrap(), whole, "{text}");
    }
}

#[test]
fn a_breach_is_told_in_words() {
    let proof = judged(&moved("ack", "commit"));
    let words = proof.breaches[0].to_string();
    assert!(words.contains("line 8") && words.contains("no sync had covered"), "{words}");
    assert!(proof.to_string().contains("2 acknowledged too early"), "{proof}");
}
