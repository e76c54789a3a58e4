//! Frames through the sanitizer: byte by byte, all at once, and at random.

use super::*;
use proptest::prelude::*;

const MOST: usize = 4096;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, 1][..], &length(payload.len()), payload, &[0xce]].concat()
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text].concat()
}

fn sized(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind][..], &length(content.len()), content].concat()
}

fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    [short(name.as_bytes()), value.to_vec()].concat()
}

/// A content header with a type, headers and a message id.
fn header(kind: &[u8], headers: &[Vec<u8>], id: &[u8]) -> Vec<u8> {
    let flags = 0x8000_u16 | 0x2000 | 0x0100 | 0x0040;
    let payload = [
        &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4][..],
        &flags.to_be_bytes(),
        &short(kind),
        &sized(b'F', &headers.concat())[1..],
        &short(id),
        &1_u64.to_be_bytes(),
    ];
    frame(HEADER, &payload.concat())
}

fn body(bytes: &[u8]) -> Vec<u8> {
    frame(3, bytes)
}

/// The sanitized bytes, of bytes that come in pieces of these sizes, over and over.
fn sanitized(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
    let (mut sanitizer, mut out, mut rest) = (Sanitizer::default(), Vec::new(), bytes);
    for size in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).clamp(1, rest.len()));
        rest = after;
        if sanitizer.holds() {
            sanitizer.held().extend_from_slice(piece);
        } else {
            let mut piece = piece.to_vec();
            let passed = sanitizer.pass(&mut piece, MOST);
            out.extend_from_slice(&piece[..passed]);
        }
        out.extend(sanitizer.release(MOST));
    }
    out
}

fn nested(kind: u8, depth: usize) -> Vec<u8> {
    let mut value = vec![b't', 1];
    for _ in 0..depth {
        let inside = if kind == b'F' { entry("n", &value) } else { value };
        value = sized(kind, &inside);
    }
    value
}

#[test]
fn headers_too_large_go_and_those_that_are_read_stay() {
    let crc = entry("crc32", &[&b"l"[..], &7_u64.to_be_bytes()].concat());
    let small = entry("small", &sized(b'S', b"text"));
    let large = |size| entry("x", &sized(b'S', &vec![b'y'; size]));
    for size in [5_000, 33_000, 200_000] {
        let headers = [large(size), small.clone(), crc.clone()];
        let sent = [header(b"t", &headers, b"id"), body(b"body")].concat();
        let thin = header(b"t", &[crc.clone(), small.clone()], b"id");
        let expected = [thin, body(b"body")].concat();
        for pieces in [&[1][..], &[usize::MAX], &[7, 4096]] {
            assert_eq!(sanitized(&sent, pieces), expected, "{size} {pieces:?}");
        }
    }
    let fitting = header(b"t", &[large(1000), crc], b"id");
    assert_eq!(sanitized(&fitting, &[100]), fitting);
}

#[test]
fn headers_nested_deeper_than_a_stack_or_of_no_known_type_go() {
    let bare = header(b"t", &[], b"id");
    for odd in [nested(b'F', 500), nested(b'A', 500), vec![b'Z'], sized(b'F', b"\x09short")] {
        let sent = header(b"t", &[entry("n", &odd)], b"id");
        assert_eq!(sanitized(&sent, &[usize::MAX]), bare);
        assert_eq!(sanitized(&sent, &[3]), bare);
    }
    let shallow = header(b"t", &[entry("n", &nested(b'F', 5))], b"id");
    assert_eq!(sanitized(&shallow, &[64]), shallow);
}

#[test]
fn texts_that_are_no_utf_8_become_readable() {
    let sent = header(b"t\xff", &[entry("a", &[b't', 1])], b"\xc3");
    assert_eq!(sanitized(&sent, &[9]), header(b"t?", &[entry("a", &[b't', 1])], b"?"));
    let name = |name: &[u8]| [short(name), vec![b't', 1]].concat();
    let sent = header("é".as_bytes(), &[name(b"\xe9t\xe9")], b"id");
    assert_eq!(sanitized(&sent, &[9]), header("é".as_bytes(), &[name(b"?t?")], b"id"));
    let deliver = |key: &[u8]| {
        let fixed = [&[0, 60, 0, 60][..], &short(b"tag"), &[0; 9], &short(b"results")];
        frame(METHOD, &[fixed.concat(), short(key)].concat())
    };
    assert_eq!(sanitized(&deliver(b"\xff.results"), &[100]), deliver(b"?.results"));
    let found = |key: &[u8]| {
        let fixed = [&[0, 60, 0, 71][..], &[0; 9], &short(b"results")];
        frame(METHOD, &[fixed.concat(), short(key), vec![0; 4]].concat())
    };
    assert_eq!(sanitized(&found(b"k\x80"), &[1]), found(b"k?"));
}

proptest! {
    #[test]
    fn anything_goes_through_without_a_panic_and_bodies_as_they_are(
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        content in proptest::collection::vec(any::<u8>(), 0..300),
        pieces in proptest::collection::vec(1_usize..50, 1..5),
    ) {
        sanitized(&noise, &pieces);
        sanitized(&frame(HEADER, &noise), &pieces);
        sanitized(&frame(METHOD, &noise), &pieces);
        let flags = [&[0; 12][..], &[0x20, 0], &length(noise.len()), &noise].concat();
        sanitized(&frame(HEADER, &flags), &pieces);
        let bodies = [body(&content), body(&noise), header(b"t", &[], b"i")].concat();
        prop_assert_eq!(sanitized(&bodies, &pieces), bodies);
    }
}
