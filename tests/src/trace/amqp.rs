//! The deliveries and acknowledgements of a client of AMQP 0.9.1, from the
//! bytes of its connection. Pure, and written from the protocol alone.

use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, HashMap, VecDeque};

const GREETING: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// Type, channel and size.
const HEAD: usize = 7;
const FRAME_END: u8 = 0xCE;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const DELIVER: [u8; 4] = [0, 60, 0, 60];
const ACK: [u8; 4] = [0, 60, 0, 80];
const REJECT: [u8; 4] = [0, 60, 0, 90];

/// Deliveries that an acknowledgement settles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Acknowledged {
    /// When the call began that sent its first byte.
    pub(super) at: u64,
    /// The bodies of the deliveries.
    pub(super) bodies: Vec<Vec<u8>>,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    greeted: bool,
    out: Half,
    back: Half,
    channels: HashMap<u16, Channel>,
    /// How many deliveries have come in full.
    pub(super) deliveries: usize,
}

#[derive(Debug, Default)]
struct Channel {
    /// The delivery under way: its tag, its size once that is known, its body.
    coming: Option<(u64, Option<u64>, Vec<u8>)>,
    unsettled: BTreeMap<u64, Vec<u8>>,
}

impl Connection {
    /// Takes in what was sent by a call that began at `begun`; gives the
    /// acknowledgements that are complete with it.
    pub(super) fn sent(&mut self, bytes: &[u8], begun: u64) -> Result<Vec<Acknowledged>> {
        self.out.push(bytes, begun);
        if !self.greeted {
            let Some(greeting) = self.out.take(GREETING.len()) else { return Ok(Vec::new()) };
            ensure!(greeting.bytes == GREETING, "a connection does not begin as AMQP does");
            self.greeted = true;
        }
        let mut acknowledged = Vec::new();
        while let Some(frame) = self.out.frame()? {
            let channel = self.channels.entry(frame.channel).or_default();
            let bodies = match frame.method() {
                Some((ACK, arguments)) => channel.settle(arguments, true)?,
                // Dead letters are settled and not accepted.
                Some((REJECT, arguments)) => {
                    channel.settle(arguments, false)?;
                    continue;
                }
                _ => continue,
            };
            acknowledged.push(Acknowledged { at: frame.at, bodies });
        }
        Ok(acknowledged)
    }

    /// Takes in what was received; gives the bodies that are complete with it.
    pub(super) fn received(&mut self, bytes: &[u8], ended: u64) -> Result<Vec<Vec<u8>>> {
        self.back.push(bytes, ended);
        let mut bodies = Vec::new();
        while let Some(frame) = self.back.frame()? {
            let channel = self.channels.entry(frame.channel).or_default();
            bodies.extend(channel.take(&frame)?);
        }
        self.deliveries += bodies.len();
        Ok(bodies)
    }
}

impl Channel {
    /// Takes in a frame from the broker; gives the body that it completes.
    fn take(&mut self, frame: &Frame) -> Result<Option<Vec<u8>>> {
        match (frame.kind, frame.method(), &mut self.coming) {
            (METHOD, Some((DELIVER, arguments)), coming) => {
                // The name of the consumer comes first.
                let name = usize::from(*arguments.first().context("a delivery to nobody")?);
                let tag = number(arguments.get(1 + name..)).context("a delivery without a tag")?;
                *coming = Some((tag, None, Vec::new()));
            }
            // Class and weight come first.
            (HEADER, _, Some((_, size, _))) => {
                *size = Some(number(frame.payload.get(4..)).context("a message without a size")?);
            }
            (BODY, _, Some((_, _, body))) => body.extend_from_slice(&frame.payload),
            _ => return Ok(None),
        }
        let Some((tag, Some(size), body)) = &self.coming else { return Ok(None) };
        if (body.len() as u64) < *size {
            return Ok(None);
        }
        let body = body.clone();
        self.unsettled.insert(*tag, body.clone());
        self.coming = None;
        Ok(Some(body))
    }

    /// Takes out what a tag settles, alone or with all before it.
    fn settle(&mut self, arguments: &[u8], may_be_many: bool) -> Result<Vec<Vec<u8>>> {
        let tag = number(Some(arguments)).context("a settlement without a tag")?;
        let multiple = may_be_many && arguments.get(8).is_some_and(|bits| bits & 1 == 1);
        if !multiple {
            return Ok(self.unsettled.remove(&tag).into_iter().collect());
        }
        let last = if tag == 0 { u64::MAX } else { tag };
        let settled = self.unsettled.extract_if(..=last, |_, _| true);
        Ok(settled.map(|(_, body)| body).collect())
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Half {
    bytes: VecDeque<u8>,
    /// How many of the bytes came when.
    moments: VecDeque<(usize, u64)>,
}

struct Piece {
    bytes: Vec<u8>,
    at: u64,
}

struct Frame {
    kind: u8,
    channel: u16,
    payload: Vec<u8>,
    /// When its first byte came.
    at: u64,
}

impl Frame {
    fn method(&self) -> Option<([u8; 4], &[u8])> {
        let (method, arguments) = self.payload.split_first_chunk()?;
        (self.kind == METHOD).then_some((*method, arguments))
    }
}

impl Half {
    fn push(&mut self, bytes: &[u8], at: u64) {
        if !bytes.is_empty() {
            self.bytes.extend(bytes);
            self.moments.push_back((bytes.len(), at));
        }
    }

    fn take(&mut self, count: usize) -> Option<Piece> {
        if self.bytes.len() < count {
            return None;
        }
        let at = self.moments.front()?.1;
        let mut left = count;
        while let Some((length, _)) = self.moments.front_mut() {
            if *length > left {
                *length -= left;
                break;
            }
            left -= *length;
            self.moments.pop_front();
        }
        Some(Piece { bytes: self.bytes.drain(..count).collect(), at })
    }

    fn frame(&mut self) -> Result<Option<Frame>> {
        if self.bytes.len() < HEAD {
            return Ok(None);
        }
        let head: Vec<u8> = self.bytes.iter().take(HEAD).copied().collect();
        let [kind, c1, c2, s1, s2, s3, s4] = head[..] else { return Ok(None) };
        let size = u32::from_be_bytes([s1, s2, s3, s4]) as usize;
        let Some(piece) = self.take(HEAD + size + 1) else { return Ok(None) };
        ensure!(piece.bytes.last() == Some(&FRAME_END), "a frame does not end as AMQP's do");
        let payload = piece.bytes[HEAD..HEAD + size].to_vec();
        Ok(Some(Frame { kind, channel: u16::from_be_bytes([c1, c2]), payload, at: piece.at }))
    }
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    bytes?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Traces for tests.
#[cfg(test)]
pub(super) mod written {
    use super::{ACK, BODY, DELIVER, FRAME_END, HEADER, METHOD};

    /// A frame on channel 1.
    pub(in super::super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &size[..], payload, &[FRAME_END]].concat()
    }

    /// A delivery; its body comes in pieces.
    pub(in super::super) fn delivery(tag: u64, pieces: &[&[u8]]) -> Vec<u8> {
        let size: usize = pieces.iter().map(|piece| piece.len()).sum();
        let method = [&DELIVER, &b"\x03tag"[..], &tag.to_be_bytes(), &[0, 0, 0]].concat();
        let header = [&[0, 60, 0, 0], &(size as u64).to_be_bytes()[..], &[0, 0]].concat();
        let mut bytes = [frame(METHOD, &method), frame(HEADER, &header)].concat();
        for piece in pieces {
            bytes.extend(frame(BODY, piece));
        }
        bytes
    }

    /// An acknowledgement.
    pub(in super::super) fn acknowledgement(tag: u64, multiple: bool) -> Vec<u8> {
        frame(METHOD, &[&ACK, &tag.to_be_bytes()[..], &[u8::from(multiple)]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::written::{acknowledgement, delivery, frame};
    use super::*;

    fn consuming(deliveries: &[&[u8]]) -> Connection {
        let mut connection = Connection::default();
        assert_eq!(connection.sent(GREETING, 1).unwrap(), []);
        for (index, body) in deliveries.iter().enumerate() {
            let bytes = delivery(index as u64 + 1, &[body]);
            assert_eq!(connection.received(&bytes, 2).unwrap(), [*body]);
        }
        connection
    }

    fn bodies(acknowledged: &[Acknowledged]) -> Vec<&[u8]> {
        acknowledged.iter().flat_map(|one| &one.bodies).map(Vec::as_slice).collect()
    }

    #[test]
    fn a_delivery_in_any_pieces_is_one() {
        let mut connection = consuming(&[]);
        let bytes = [delivery(1, &[b"ab", b"cd"]), frame(8, b""), delivery(2, &[])].concat();
        let mut seen = Vec::new();
        for byte in bytes {
            seen.extend(connection.received(&[byte], 2).unwrap());
        }
        assert_eq!(seen, [&b"abcd"[..], b""]);
        assert_eq!(connection.deliveries, 2);
    }

    #[test]
    fn an_acknowledgement_settles_one_or_all_up_to_it() {
        let mut connection = consuming(&[b"a", b"b", b"c", b"d"]);
        let one = connection.sent(&acknowledgement(2, false), 3).unwrap();
        assert_eq!(bodies(&one), [b"b"]);
        let many = connection.sent(&acknowledgement(3, true), 4).unwrap();
        assert_eq!(bodies(&many), [b"a", b"c"]);
        let rest = connection.sent(&acknowledgement(0, true), 5).unwrap();
        assert_eq!(bodies(&rest), [b"d"]);
    }

    #[test]
    fn an_acknowledgement_leaves_when_its_first_byte_does() {
        let mut connection = consuming(&[b"a"]);
        let bytes = [frame(8, b""), acknowledgement(1, false)].concat();
        assert_eq!(connection.sent(&bytes[..9], 3).unwrap(), []);
        assert_eq!(connection.sent(&bytes[9..], 6).unwrap()[0].at, 3);
        assert_eq!(connection.sent(&bytes, 7).unwrap()[0].at, 7);
    }

    #[test]
    fn what_is_rejected_is_not_acknowledged() {
        let mut connection = consuming(&[b"a", b"b"]);
        let reject = [&REJECT, &1_u64.to_be_bytes()[..], &[0]].concat();
        assert_eq!(connection.sent(&frame(METHOD, &reject), 3).unwrap(), []);
        assert_eq!(bodies(&connection.sent(&acknowledgement(2, true), 4).unwrap()), [b"b"]);
    }

    #[test]
    fn what_is_not_amqp_is_refused() {
        assert!(Connection::default().sent(b"GET / HTTP/1.1", 1).is_err());
        let mut connection = consuming(&[]);
        assert!(connection.received(&[1, 0, 1, 0, 0, 0, 1, 7, 7], 2).is_err());
    }
}
