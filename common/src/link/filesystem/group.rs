//! A group of messages as a file: encoding, decoding, and reading one. Pure but for the
//! reading.
//!
//! A first line `clutch-messages/1 <CRC-32 of all that follows, in hex> <bytes
//! of the header>`, the header (a JSON array of what is known of each message,
//! with the length of its body, and for a dead letter why it is one), then the bodies, one after another.

use super::disk;
use crate::link::{Death, Message};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

const MAGIC: &str = "clutch-messages/1";
/// Longer than any first line.
const LONGEST_LINE: usize = 64;
/// No file of a group is larger: one message may be as large as a body, or several share
/// much less.
const LARGEST_FILE: u64 = 2 * crate::wire::MAX_BODY as u64;

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routing_key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deaths: Vec<Death>,
    bytes: usize,
}

/// The bytes of a file with these messages.
pub(super) fn encode<'a>(messages: impl Iterator<Item = &'a Message> + Clone) -> Vec<u8> {
    let headers: Vec<Header> = messages.clone().map(Header::of).collect();
    // Strings and numbers: there is nothing in it that JSON could not say.
    let header = serde_json::to_vec(&headers).unwrap_or_default();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header);
    for message in messages.clone() {
        crc.update(&message.body);
    }
    let line = format!("{MAGIC} {:08x} {}\n", crc.finalize(), header.len());
    let bodies: usize = headers.iter().map(|header| header.bytes).sum();
    let mut bytes = Vec::with_capacity(line.len() + header.len() + bodies);
    bytes.extend_from_slice(line.as_bytes());
    bytes.extend_from_slice(&header);
    for message in messages {
        bytes.extend_from_slice(&message.body);
    }
    bytes
}

/// The messages in a file.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Message>, String> {
    let end = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n');
    let (line, rest) =
        end.and_then(|end| bytes.split_at_checked(end)).ok_or("it has no first line")?;
    let rest = rest.get(1..).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| "its first line is no text")?;
    let mut words = line.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(format!("its first line does not begin with {MAGIC}"));
    }
    let crc = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
    let length = words.next().and_then(|word| word.parse().ok());
    let (Some(crc), Some(length)) = (crc, length) else {
        return Err("its first line lacks the checksum or the header's length".to_owned());
    };
    if crc32fast::hash(rest) != crc {
        return Err("its checksum does not hold: it is cut short or damaged".to_owned());
    }
    let (header, mut bodies) =
        rest.split_at_checked(length).ok_or("its header is longer than the file")?;
    let headers: Vec<Header> = serde_json::from_slice(header)
        .map_err(|error| format!("its header cannot be read: {error}"))?;
    let mut messages = Vec::with_capacity(headers.len());
    for header in headers {
        let (body, after) =
            bodies.split_at_checked(header.bytes).ok_or("a body is longer than the file")?;
        messages.push(header.message(body.to_vec()));
        bodies = after;
    }
    if bodies.is_empty() { Ok(messages) } else { Err("it is longer than its header says".into()) }
}

/// How many messages a file says that it has: none if it is of another format. Only its
/// beginning is read.
pub(super) fn count(file: impl Read) -> io::Result<usize> {
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    file.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
    let length =
        std::str::from_utf8(&line).ok().and_then(|line| line.trim_end().rsplit(' ').next());
    let Some(length) = length.and_then(|length| length.parse().ok()) else { return Ok(0) };
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    Ok(serde_json::from_slice::<Vec<IgnoredAny>>(&header).map_or(0, |headers| headers.len()))
}

impl Header {
    fn of(message: &Message) -> Self {
        Self {
            message_id: message.message_id.clone(),
            correlation_id: message.correlation_id.clone(),
            kind: message.kind.clone(),
            timestamp_ms: message.timestamp_ms,
            routing_key: message.routing_key.clone(),
            deaths: message.deaths.clone(),
            bytes: message.body.len(),
        }
    }

    fn message(self, body: Vec<u8>) -> Message {
        Message {
            message_id: self.message_id,
            correlation_id: self.correlation_id,
            kind: self.kind,
            timestamp_ms: self.timestamp_ms,
            routing_key: self.routing_key,
            deaths: self.deaths,
            body,
            damage: None,
        }
    }
}

/// The messages of a claimed file, or why it can never be read.
pub(super) fn read(path: &Path) -> io::Result<Result<Vec<Message>, String>> {
    let found = std::fs::symlink_metadata(path)?;
    if !found.is_file() {
        return Ok(Err("it is no plain file".to_owned()));
    }
    if found.len() > LARGEST_FILE {
        return Ok(Err(format!("it has {} bytes, more than any of ours", found.len())));
    }
    match std::fs::read(path) {
        Ok(bytes) => Ok(decode(&bytes)),
        Err(error) if disk::is_for_good(&error) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    prop_compose! {
        fn message()(
            message_id in any::<Option<String>>(), correlation_id in any::<Option<String>>(),
            kind in any::<Option<String>>(), timestamp_ms in any::<Option<u64>>(),
            died in any::<Option<(String, Option<u64>)>>(), body in vec(any::<u8>(), 0..100)
        ) -> Message {
            let mut message =
                Message { message_id, correlation_id, kind, timestamp_ms, body, ..Message::default() };
            if let Some((queue, at_ms)) = died {
                message.died(&queue, "rejected", at_ms);
            }
            message
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in vec(message(), 0..8)) {
            let bytes = encode(messages.iter());
            prop_assert_eq!(count(&*bytes).unwrap(), messages.len());
            prop_assert_eq!(decode(&bytes).unwrap(), messages);
        }

        #[test]
        fn what_is_cut_or_changed_or_longer_is_refused(
            messages in vec(message(), 1..4), at in any::<prop::sample::Index>(), flip in 1..=255u8
        ) {
            let good = encode(messages.iter());
            let at = at.index(good.len());
            prop_assert!(decode(&good[..at]).is_err());
            let mut bad = good.clone();
            bad[at] ^= flip;
            // The first line may say the same thing in other letters.
            prop_assert!(decode(&bad).is_err() || decode(&bad).unwrap() == messages);
            prop_assert!(decode(&[good, vec![0]].concat()).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            drop((decode(&bytes), count(&*bytes)));
        }
    }
}
