//! Lines of strace into calls: what was called with what, what it returned,
//! when it began and when it had ended. Pure.
//!
//! Moments are line numbers. strace writes a line when a call begins, and a
//! second one for its end where another thread's call came between: what had
//! ended before something began stands above it.

use anyhow::{Context as _, Result, bail};
use std::collections::HashMap;

const UNFINISHED: &[u8] = b"<unfinished ...>";
const RESUMED: &[u8] = b" resumed>";

/// A call that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Call {
    /// Its name.
    pub(super) name: String,
    /// The file of its first argument, a file descriptor; empty if it is none.
    pub(super) target: String,
    /// The strings among its arguments: data, or paths.
    pub(super) strings: Vec<Vec<u8>>,
    /// The value that it returned.
    pub(super) result: i64,
    /// When it began.
    pub(super) begun: u64,
    /// When it had ended; the same line if nothing came between.
    pub(super) ended: u64,
}

impl Call {
    /// The data that it wrote or read: as much as it returned.
    pub(super) fn data(&self) -> Vec<u8> {
        let mut data = self.strings.concat();
        data.truncate(usize::try_from(self.result).unwrap_or(0));
        data
    }
}

/// Reads lines in order.
#[derive(Debug, Default)]
pub(super) struct Calls {
    line: u64,
    /// By thread, the call that it is in.
    open: HashMap<u32, (u64, Vec<u8>)>,
}

impl Calls {
    /// Takes in a line; gives the call that ended with it.
    pub(super) fn push(&mut self, line: &[u8]) -> Result<Option<Call>> {
        self.line += 1;
        self.read(line.trim_ascii_end()).with_context(|| format!("line {} of the trace", self.line))
    }

    fn read(&mut self, line: &[u8]) -> Result<Option<Call>> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (thread, text) = line.split_at(digits);
        let thread = std::str::from_utf8(thread)?.parse().context("it names no thread")?;
        let text = text.trim_ascii_start();
        if text.starts_with(b"---") {
            return Ok(None);
        }
        if text.starts_with(b"+++") {
            self.open.remove(&thread);
            return Ok(None);
        }
        if let Some(text) = text.strip_suffix(UNFINISHED) {
            self.open.insert(thread, (self.line, text.trim_ascii_end().to_vec()));
            return Ok(None);
        }
        if !text.starts_with(b"<... ") {
            return call(text, self.line, self.line);
        }
        let Some((begun, mut whole)) = self.open.remove(&thread) else { return Ok(None) };
        let resumed = find(text, RESUMED).context("a call goes on that nothing says")?;
        whole.extend_from_slice(&text[resumed + RESUMED.len()..]);
        call(&whole, begun, self.line)
    }
}

/// A call, written out; none if it never returned.
fn call(text: &[u8], begun: u64, ended: u64) -> Result<Option<Call>> {
    let opens = find(text, b"(").context("there is no call")?;
    let equals = text.windows(3).rposition(|window| window == b" = ").context("it has no end")?;
    let name = String::from_utf8(text[..opens].to_vec())?;
    let value = String::from_utf8_lossy(&text[equals + 3..]).into_owned();
    let value = value.split(['<', ' ']).next().unwrap_or_default();
    if value == "?" {
        return Ok(None);
    }
    let result = value.parse().with_context(|| format!("{name} returned '{value}'"))?;
    let (target, rest) = target(&text[opens + 1..equals]);
    Ok(Some(Call { name, target, strings: strings(rest)?, result, begun, ended }))
}

/// The file of a leading file descriptor, and the other arguments.
fn target(arguments: &[u8]) -> (String, &[u8]) {
    let digits = arguments.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let named = digits > 0 && arguments.get(digits) == Some(&b'<');
    // The name of a connection has a `>` in it.
    let end = arguments.windows(2).position(|two| two == b">," || two == b">)");
    match end {
        Some(end) if named => {
            let target = String::from_utf8_lossy(&arguments[digits + 1..end]).into_owned();
            (target, &arguments[end + 1..])
        }
        _ => (String::new(), arguments),
    }
}

fn strings(arguments: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut strings = Vec::new();
    let mut bytes = arguments.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'"' {
            continue;
        }
        let mut string = Vec::new();
        loop {
            match bytes.next().context("a string does not end")? {
                b'"' => break,
                b'\\' => string.push(escaped(&mut bytes)?),
                plain => string.push(plain),
            }
        }
        if bytes.peek() == Some(&b'.') {
            bail!("data was cut: strace was told to print too little of it");
        }
        strings.push(string);
    }
    Ok(strings)
}

fn escaped(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> Result<u8> {
    let first = bytes.next().context("a string does not end")?;
    let byte = match first {
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'r' => b'\r',
        b'"' | b'\\' => first,
        b'0'..=b'7' => {
            let mut value = u32::from(first - b'0');
            for _ in 0..2 {
                let Some(digit) = bytes.next_if(|byte| (b'0'..=b'7').contains(byte)) else { break };
                value = value * 8 + u32::from(digit - b'0');
            }
            u8::try_from(value).context("no byte is so large")?
        }
        other => bail!("what '\\{}' stands for is not known", char::from(other)),
    };
    Ok(byte)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<Call> {
        let mut calls = Calls::default();
        lines.iter().filter_map(|line| calls.push(line.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn a_call_on_one_line_is_read_with_its_data() {
        let line =
            r#"7  sendto(9<TCP:[1.2.3.4:5->6.7.8.9:10]>, "a\"\\\0019\n\377", 7, 0, NULL, 0) = 5"#;
        let [call] = &read(&[line])[..] else { panic!("one call") };
        assert_eq!(
            (call.name.as_str(), call.target.as_str()),
            ("sendto", "TCP:[1.2.3.4:5->6.7.8.9:10]")
        );
        assert_eq!(call.strings, [b"a\"\\\x019\n\xff"]);
        assert_eq!((call.data(), call.result), (b"a\"\\\x019".to_vec(), 5));
        assert_eq!((call.begun, call.ended), (1, 1));
    }

    #[test]
    fn a_call_that_others_interrupt_begins_and_ends_where_it_says() {
        let calls = read(&[
            "7  fdatasync(5</s/queue/db> <unfinished ...>",
            "8  recvfrom(9<TCP:[a->b]>,  <unfinished ...>",
            "7  --- SIGCHLD {si_signo=SIGCHLD} ---",
            r#"8  <... recvfrom resumed>"ab", 99, 0, NULL, NULL) = 2"#,
            "7  <... fdatasync resumed>)         = 0",
        ]);
        let seen: Vec<_> =
            calls.iter().map(|call| (call.name.as_str(), call.begun, call.ended)).collect();
        assert_eq!(seen, [("recvfrom", 2, 4), ("fdatasync", 1, 5)]);
        assert_eq!((calls[0].data(), calls[1].target.as_str()), (b"ab".to_vec(), "/s/queue/db"));
    }

    #[test]
    fn several_pieces_paths_and_errors_are_read() {
        let calls = read(&[
            r#"1 writev(3<TCP:[a->b]>, [{iov_base="ab", iov_len=2}, {iov_base="cd", iov_len=2}], 2) = 3"#,
            r#"1 rename("/s/1.tmp", "/s/1") = 0"#,
            r#"1 recvfrom(3<TCP:[a->b]>, 0x7f00, 9, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)"#,
            "1 +++ exited with 0 +++",
        ]);
        assert_eq!(calls[0].data(), b"abc");
        assert_eq!(calls[1].strings, [&b"/s/1.tmp"[..], b"/s/1"]);
        assert!(calls[2].result == -1 && calls[2].data().is_empty(), "{calls:?}");
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused_and_what_never_ended_is_no_call() {
        for bad in
            [r#"1 write(3</a>, "ab"..., 9) = 9"#, "one two", "1 write", r#"1 write(1, "a) = 1"#]
        {
            assert!(Calls::default().push(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(
            read(&["1 write(3</a>, \"ab\", 2 <unfinished ...>", "1 +++ killed by SIGKILL +++"]),
            []
        );
        assert_eq!(read(&[r#"1 write(3</a>, "ab", 2) = ?"#]), []);
    }
}
