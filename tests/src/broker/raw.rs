//! Publishes over AMQP what no client library would: any bytes as properties and routing
//! keys, and bodies larger than the management API takes. Speaks to the broker by itself,
//! on one channel with confirms.

use anyhow::{Context as _, Result, bail, ensure};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use url::Url;

const PATIENCE: Duration = Duration::from_secs(60);
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// The bytes of a frame around its payload.
const AROUND: usize = 8;

/// A connection to publish by.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    frame_max: usize,
}

/// The properties of a message as they are on the wire.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    /// The entries of the table of headers, each a name and a value with its type.
    pub headers: Vec<u8>,
    /// The message's id.
    pub message_id: Vec<u8>,
    /// Its type.
    pub kind: Vec<u8>,
}

impl Properties {
    /// Adds a header with a text.
    #[must_use]
    pub fn header(mut self, name: &[u8], value: &[u8]) -> Self {
        self.headers.extend(short(name));
        self.headers.push(b'S');
        self.headers.extend(long(value));
        self
    }

    fn encoded(&self) -> Vec<u8> {
        // Headers, delivery mode, message id, type.
        let flags: u16 = 0x2000 | 0x1000 | 0x0080 | 0x0020;
        let parts: [&[u8]; 5] = [
            &flags.to_be_bytes(),
            &long(&self.headers),
            &[2],
            &short(&self.message_id),
            &short(&self.kind),
        ];
        parts.concat()
    }
}

impl Raw {
    /// Logs in.
    pub fn connect(url: &str) -> Result<Self> {
        let url: Url = url.parse()?;
        let host = (url.host_str().unwrap_or_default(), url.port().unwrap_or(5672));
        let stream = TcpStream::connect(host).context("connecting to the broker")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut raw = Self { stream, frame_max: 4096 };
        raw.stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        raw.expect(10, 10)?;
        let login = format!("\0{}\0{}", url.username(), url.password().unwrap_or_default());
        let answer = [&long(b"")[..], &short(b"PLAIN"), &long(login.as_bytes()), &short(b"en_US")];
        raw.call(0, 10, 11, &answer.concat())?;
        let tune = raw.expect(10, 30)?;
        let frame_max = tune.get(2..6).context("the broker's limits are cut off")?;
        raw.frame_max = usize::try_from(u32::from_be_bytes(frame_max.try_into()?))?.max(4096);
        raw.call(0, 10, 31, &[&tune[..6], &[0, 0]].concat())?;
        let vhost = url.path().trim_start_matches('/');
        raw.call(0, 10, 40, &[short(vhost.as_bytes()), vec![0, 0]].concat())?;
        raw.expect(10, 41)?;
        raw.call(1, 20, 10, &[0])?;
        raw.expect(20, 11)?;
        raw.call(1, 85, 10, &[0])?;
        raw.expect(85, 11)?;
        Ok(raw)
    }

    /// Publishes a message, and waits until the broker has it.
    pub fn publish(
        &mut self,
        exchange: &str,
        key: &[u8],
        properties: &Properties,
        body: &[u8],
    ) -> Result<()> {
        let target = [&[0, 0][..], &short(exchange.as_bytes()), &short(key), &[1]];
        self.call(1, 60, 40, &target.concat())?;
        let size = (body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &properties.encoded()];
        self.send(HEADER, 1, &header.concat())?;
        for part in body.chunks(self.frame_max - AROUND) {
            self.send(BODY, 1, part)?;
        }
        self.expect(60, 80).map(drop)
    }

    /// Consumes a queue until this is dropped: the broker sends one message, which is not read.
    pub fn consume(&mut self, queue: &str) -> Result<()> {
        self.call(1, 60, 10, &[0, 0, 0, 0, 0, 1, 0])?;
        self.expect(60, 11)?;
        let arguments = [&[0, 0][..], &short(queue.as_bytes()), &short(b""), &[0], &long(b"")];
        self.call(1, 60, 20, &arguments.concat())?;
        self.expect(60, 21).map(drop)
    }

    fn call(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) -> Result<()> {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.send(METHOD, channel, &payload)
    }

    fn send(&mut self, kind: u8, channel: u16, payload: &[u8]) -> Result<()> {
        let [high, low] = channel.to_be_bytes();
        let frame = [&[kind, high, low][..], &long(payload), &[0xce]].concat();
        Ok(self.stream.write_all(&frame)?)
    }

    /// Waits for a method, and returns its arguments.
    fn expect(&mut self, class: u16, method: u16) -> Result<Vec<u8>> {
        loop {
            let mut outer = [0; 7];
            self.stream.read_exact(&mut outer).context("waiting for the broker")?;
            let size = u32::from_be_bytes([outer[3], outer[4], outer[5], outer[6]]);
            let mut payload = vec![0; usize::try_from(size)? + 1];
            self.stream.read_exact(&mut payload)?;
            payload.pop();
            if outer[0] != METHOD {
                continue;
            }
            ensure!(payload.len() >= 4, "a method of {} bytes", payload.len());
            let arguments = payload.split_off(4);
            let found = [[payload[0], payload[1]], [payload[2], payload[3]]];
            let found = found.map(u16::from_be_bytes);
            if found != [class, method] {
                bail!("the broker answered {found:?}: {}", String::from_utf8_lossy(&arguments));
            }
            return Ok(arguments);
        }
    }
}

fn short(text: &[u8]) -> Vec<u8> {
    let text = &text[..text.len().min(255)];
    [&[text.len() as u8][..], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}
