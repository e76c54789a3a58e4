//! Where a stream of AMQP 0.9.1 frames stands, byte by byte. Pure.

/// The eight bytes that a client begins with.
const GREETING: usize = 8;
/// Type, channel and size of a frame.
const HEADER: usize = 7;
/// A payload shorter than this is not torn: heartbeats have none.
const TEARABLE: usize = 8;
/// Class and method of `basic.ack`.
const ACK: [u8; 4] = [0, 60, 0, 80];
const METHOD_FRAME: u8 = 1;
const BODY_FRAME: u8 = 3;
const FRAME_END: u8 = 0xCE;

/// The state of one direction.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    greeting: usize,
    header: [u8; HEADER],
    /// How many bytes of the present frame have come.
    come: usize,
    method: [u8; 4],
}

impl Frames {
    /// The beginning of a direction.
    pub(super) fn new(from_client: bool) -> Self {
        let greeting = if from_client { GREETING } else { 0 };
        Self { greeting, header: [0; HEADER], come: 0, method: [0; 4] }
    }

    /// Takes in a byte.
    pub(super) fn push(&mut self, byte: u8) {
        if self.greeting > 0 {
            self.greeting -= 1;
            return;
        }
        if self.come > HEADER + self.size() {
            self.come = 0;
        }
        if self.come < HEADER {
            self.header[self.come] = byte;
        } else if let Some(place) = self.method.get_mut(self.come - HEADER) {
            *place = byte;
        }
        self.come += 1;
    }

    /// Whether what comes next is the rest of a payload that has begun.
    pub(super) fn is_inside(&self) -> bool {
        let size = if self.come > HEADER { self.size() } else { 0 };
        size >= TEARABLE && self.come < HEADER + size
    }

    /// Whether the byte that has just come is the middle one of a message's body.
    pub(super) fn is_amid_body(&self) -> bool {
        self.is_inside()
            && self.header[0] == BODY_FRAME
            && self.come == HEADER + self.size().div_ceil(2)
    }

    /// Whether what comes next begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.greeting == 0
            && (self.come == 0 || (self.come > HEADER && self.come == HEADER + self.size() + 1))
    }

    /// Whether the frame that has come in full is an acknowledgement, which from a broker is a
    /// confirm.
    pub(super) fn is_acknowledgement(&self) -> bool {
        self.come > 0 && self.is_between() && self.header[0] == METHOD_FRAME && self.method == ACK
    }

    /// The channel of an acknowledgement that has just come in full.
    pub(super) fn acknowledged(&self) -> Option<u16> {
        let channel = u16::from_be_bytes([self.header[1], self.header[2]]);
        self.is_acknowledgement().then_some(channel)
    }

    /// A frame that acknowledges a delivery that no broker ever made.
    pub(super) fn acknowledgement_of_nothing(channel: u16) -> Vec<u8> {
        let mut payload = ACK.to_vec();
        payload.extend(u64::from(u32::MAX).to_be_bytes());
        payload.push(0);
        let mut frame = vec![METHOD_FRAME];
        frame.extend(channel.to_be_bytes());
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame.push(FRAME_END);
        frame
    }

    /// The size of the payload; of use once the header has come.
    fn size(&self) -> usize {
        let [.., a, b, c, d] = self.header;
        u32::from_be_bytes([a, b, c, d]) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        frame.push(FRAME_END);
        frame
    }

    #[test]
    fn the_inside_of_a_payload_is_told_from_all_around_it() {
        let mut bytes = b"AMQP\0\0\x09\x01".to_vec();
        bytes.extend(frame(8, 0, b""));
        bytes.extend(frame(3, 1, b"12345678"));
        bytes.extend(frame(3, 1, b"1234567"));
        bytes.extend(frame(3, 1, &[7; 300]));
        let mut frames = Frames::new(true);
        let inside: Vec<usize> = (0..bytes.len())
            .filter(|index| {
                frames.push(bytes[*index]);
                frames.is_inside()
            })
            .collect();
        let second = 8 + 8 + 7;
        let fourth = second + 9 + 15 + 7;
        let expected: Vec<usize> = (second..second + 7).chain(fourth..fourth + 299).collect();
        assert_eq!(inside, expected);
    }

    #[test]
    fn every_body_has_one_middle_and_nothing_else_has_any() {
        let mut bytes = frame(1, 1, &[0, 60, 0, 40, 1, 2, 3, 4]);
        bytes.extend(frame(2, 1, &[9; 20]));
        bytes.extend(frame(3, 1, &[7; 11]));
        bytes.extend(frame(3, 1, &[7; 10]));
        let mut frames = Frames::new(false);
        let amid: Vec<usize> = (0..bytes.len())
            .filter(|index| {
                frames.push(bytes[*index]);
                frames.is_amid_body()
            })
            .collect();
        let first = 16 + 28 + 7;
        assert_eq!(amid, [first + 5, first + 12 + 7 + 4]);
    }

    #[test]
    fn an_acknowledgement_is_seen_at_its_last_byte_and_a_forged_one_is_one() {
        let mut bytes = frame(3, 9, &ACK);
        bytes.extend(frame(1, 4, &[0, 60, 0, 40, 1]));
        bytes.extend(Frames::acknowledgement_of_nothing(5));
        let mut frames = Frames::new(false);
        let seen: Vec<(usize, u16)> = (0..bytes.len())
            .filter_map(|index| {
                frames.push(bytes[index]);
                Some((index, frames.acknowledged()?))
            })
            .collect();
        assert_eq!(seen, [(bytes.len() - 1, 5)]);
    }
}
