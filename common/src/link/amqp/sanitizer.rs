//! Rewrites the bytes that a broker sends so that lapin can read them. Pure.
//!
//! A broker passes on what others publish: headers larger than the frames that were
//! agreed on, nested deeper than a stack, or texts that are no UTF-8. lapin ends the
//! connection over each, and the message comes again on the next one. Here such a message
//! loses what is not readable of its properties, and arrives. Frames of bodies are not
//! looked at.

use std::ops::Range;

/// The bytes of a frame before its payload: type, channel, size.
const OUTER: usize = 7;
/// The bytes of a frame besides its payload.
const AROUND: usize = OUTER + 1;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
/// A frame larger than this is left to lapin, which refuses it.
const LARGEST: usize = 64 * 1024 * 1024;
/// How deep headers may be nested.
const DEEPEST: usize = 16;
/// The headers that are read here; others are dropped before them where not all fit.
const READ: [&[u8]; 2] = [b"crc32", b"x-death"];

const BASIC: u16 = 60;
const RETURN: u16 = 50;
const DELIVER: u16 = 60;
const GET_OK: u16 = 71;

/// The type of a property on the wire.
#[derive(Clone, Copy)]
enum Property {
    Text,
    Table,
    Bytes(usize),
}

/// The properties of a message in their order, from the highest flag down.
const PROPERTIES: [Property; 14] = {
    use Property::{Bytes, Table, Text};
    [
        Text, // content type
        Text, // content encoding
        Table,
        Bytes(1), // delivery mode
        Bytes(1), // priority
        Text,     // correlation id
        Text,     // reply to
        Text,     // expiration
        Text,     // message id
        Bytes(8), // timestamp
        Text,     // type
        Text,     // user id
        Text,     // app id
        Text,     // cluster id
    ]
};

/// Where in the stream of frames one is.
#[derive(Debug, Default)]
pub(super) struct Sanitizer {
    /// How many bytes belong to a frame that is passed on as it is.
    rest: usize,
    /// The last bytes that came, where more are needed to know what to do with them.
    held: Vec<u8>,
}

/// The part of the stream that begins here.
enum Next {
    /// So many bytes to be passed on.
    Pass(usize),
    /// A frame of so many bytes to be looked at.
    Frame(usize),
    /// A frame that is not here as a whole.
    More,
}

impl Sanitizer {
    /// Looks at bytes that came. Those at the start, of which the number is returned, can
    /// be read where they are, in frames of at most `most` bytes; the rest is held.
    pub(super) fn pass(&mut self, bytes: &mut [u8], most: usize) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match self.next(&bytes[at..]) {
                Next::Pass(count) => at += count,
                Next::Frame(size) if mend(&mut bytes[at..at + size], most) => at += size,
                Next::Frame(_) | Next::More => {
                    self.held.extend_from_slice(&bytes[at..]);
                    break;
                }
            }
        }
        at
    }

    /// Whether bytes are held, which new ones follow.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Where new bytes belong that follow those held.
    pub(super) fn held(&mut self) -> &mut Vec<u8> {
        &mut self.held
    }

    /// Takes out of what is held all that can be read.
    pub(super) fn release(&mut self, most: usize) -> Vec<u8> {
        let mut held = std::mem::take(&mut self.held);
        let mut ready = Vec::new();
        let mut at = 0;
        while at < held.len() {
            match self.next(&held[at..]) {
                Next::Pass(count) => {
                    ready.extend_from_slice(&held[at..at + count]);
                    at += count;
                }
                Next::Frame(size) => {
                    let frame = &mut held[at..at + size];
                    if mend(frame, most) {
                        ready.extend_from_slice(frame);
                    } else {
                        ready.extend(thinned(frame, most));
                    }
                    at += size;
                }
                Next::More => break,
            }
        }
        held.drain(..at);
        self.held = held;
        ready
    }

    fn next(&mut self, bytes: &[u8]) -> Next {
        if self.rest == 0 {
            let Some(outer) = bytes.first_chunk::<OUTER>() else { return Next::More };
            let size = number(&outer[3..]) + AROUND;
            if matches!(outer[0], METHOD | HEADER) && size <= LARGEST {
                return if bytes.len() < size { Next::More } else { Next::Frame(size) };
            }
            self.rest = size;
        }
        let count = self.rest.min(bytes.len());
        self.rest -= count;
        Next::Pass(count)
    }
}

/// Makes the texts of a frame readable where they are, and says whether it can be read
/// then, in a frame of at most `most` bytes.
fn mend(frame: &mut [u8], most: usize) -> bool {
    let (size, kind) = (frame.len(), frame[0]);
    let payload = &mut frame[OUTER..size - 1];
    if kind == METHOD {
        mend_method(payload);
        return true;
    }
    match table(payload) {
        Some(Some(table)) => is_sound(&mut payload[table], 0) && size <= most,
        Some(None) | None => true,
    }
}

/// Makes exchange and routing key readable in a method that comes with a message.
fn mend_method(payload: &mut [u8]) -> Option<()> {
    let class = payload.first_chunk::<4>()?;
    let method = u16::from_be_bytes([class[2], class[3]]);
    if u16::from_be_bytes([class[0], class[1]]) != BASIC {
        return None;
    }
    let mut at = match method {
        // Consumer tag; delivery tag and a flag.
        DELIVER => text(payload, 4)? + 9,
        GET_OK => 4 + 9,
        // Reply code, reply text.
        RETURN => text(payload, 6)?,
        _ => return None,
    };
    for _ in 0..2 {
        at = text(payload, at)?;
    }
    Some(())
}

/// Makes the texts of a content header readable, and finds its table of headers if it has
/// one; nothing where the header is none.
fn table(payload: &mut [u8]) -> Option<Option<Range<usize>>> {
    // Class, weight, size of the body.
    let flags = u16::from_be_bytes(*payload.get(12..)?.first_chunk()?);
    let mut at = 14;
    let mut found = None;
    for (index, property) in PROPERTIES.iter().enumerate() {
        if flags & (0x8000 >> index) == 0 {
            continue;
        }
        at = match property {
            Property::Text => text(payload, at)?,
            Property::Bytes(count) => at + count,
            Property::Table => {
                let start = at + 4;
                let end = start + number(payload.get(at..start)?);
                payload.get(start..end)?;
                found = Some(start..end);
                end
            }
        };
    }
    Some(found)
}

/// Makes a short text readable, and says where it ends.
fn text(bytes: &mut [u8], at: usize) -> Option<usize> {
    let start = at + 1;
    let end = start + usize::from(*bytes.get(at)?);
    let mut rest = bytes.get_mut(start..end)?;
    while let Err(error) = std::str::from_utf8(rest) {
        let bad = error.valid_up_to();
        rest[bad] = b'?';
        rest = &mut rest[bad + 1..];
    }
    Some(end)
}

/// Whether a table can be read, with the names in it made readable.
fn is_sound(table: &mut [u8], depth: usize) -> bool {
    let mut at = 0;
    while at < table.len() {
        let Some(value) = text(table, at) else { return false };
        let Some(size) = sound(&mut table[value..], depth) else { return false };
        at = value + size;
    }
    true
}

/// The size of a value that can be read, with its type.
fn sound(value: &mut [u8], depth: usize) -> Option<usize> {
    let size = extent(value)?;
    let (&mut kind, content) = value[..size].split_first_mut()?;
    if !matches!(kind, b'A' | b'F') {
        return Some(size);
    }
    if depth == DEEPEST {
        return None;
    }
    let mut content = &mut content[4..];
    if kind == b'F' {
        return is_sound(content, depth + 1).then_some(size);
    }
    while !content.is_empty() {
        let size = sound(content, depth + 1)?;
        content = &mut content[size..];
    }
    Some(size)
}

/// The size of a value, with its type.
fn extent(value: &[u8]) -> Option<usize> {
    let size = 1 + match value.first()? {
        b't' | b'b' | b'B' => 1,
        b's' | b'u' | b'U' => 2,
        b'I' | b'i' | b'f' => 4,
        b'L' | b'l' | b'd' | b'T' => 8,
        b'D' => 5,
        b'V' => 0,
        b'S' | b'x' | b'A' | b'F' => 4 + number(value.get(1..5)?),
        _ => return None,
    };
    (size <= value.len()).then_some(size)
}

/// A content header in a frame of at most `most` bytes, with those of its headers that can
/// be read and fit.
fn thinned(frame: &mut [u8], most: usize) -> Vec<u8> {
    let size = frame.len();
    let payload = &mut frame[OUTER..size - 1];
    let Some(Some(table)) = table(payload) else { return frame.to_vec() };
    let fixed = size - table.len();
    let kept = kept(&mut payload[table.clone()], most.saturating_sub(fixed));
    tracing::info!(
        bytes = size,
        kept = fixed + kept.len(),
        "a message has more headers than a frame holds, or such as cannot be read: these are \
         left out"
    );
    let mut thin = frame[..OUTER + table.start - 4].to_vec();
    thin.extend(length(kept.len()));
    thin.extend(kept);
    thin.extend_from_slice(&frame[OUTER + table.end..]);
    let inner = length(thin.len() - AROUND);
    thin[3..OUTER].copy_from_slice(&inner);
    thin
}

/// The entries of a table that can be read, as many as there is room for, those that are
/// read here first.
fn kept(table: &mut [u8], room: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    for read in [true, false] {
        let mut at = 0;
        while let Some(value) = text(table, at)
            && let Some(size) = extent(&table[value..])
        {
            let end = value + size;
            let fits = kept.len() + end - at <= room;
            if READ.contains(&&table[at + 1..value]) == read
                && fits
                && sound(&mut table[value..end], 0).is_some()
            {
                kept.extend_from_slice(&table[at..end]);
            }
            at = end;
        }
    }
    kept
}

/// A number of four bytes.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().take(4).fold(0, |number, byte| (number << 8) | usize::from(*byte))
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests;
