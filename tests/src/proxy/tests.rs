//! The proxy before a server that sends back what it gets.

use super::*;
use std::io::{Read as _, Write as _};

const SOON: Duration = Duration::from_secs(10);

/// A server that echoes, for as long as its clients are there.
struct Echo {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<std::io::Result<()>>>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&ends);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, told) = (stream.unwrap(), Arc::clone(&told));
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    let end = loop {
                        match stream.read(&mut buffer) {
                            Ok(0) => break Ok(()),
                            Ok(count) => stream.write_all(&buffer[..count]).unwrap_or(()),
                            Err(error) => break Err(error),
                        }
                    };
                    told.lock().unwrap().push(end);
                });
            }
        });
        Self { address, ends }
    }

    fn ended(&self) -> usize {
        self.ends.lock().unwrap().len()
    }
}

fn dial(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn answers(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    let mut back = vec![0; bytes.len()];
    stream.write_all(bytes).is_ok() && stream.read_exact(&mut back).is_ok() && back == bytes
}

#[test]
fn a_cut_resets_both_sides_and_what_is_dialled_anew_passes() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    let mut first = dial(&proxy);
    assert!(answers(&mut first, b"one"));
    assert_eq!((proxy.open(), proxy.cut(), proxy.open()), (1, 1, 0));
    assert_eq!(first.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    poll::until("the server to see it", SOON, || Ok((echo.ended() == 1).then_some(()))).unwrap();
    assert!(echo.ends.lock().unwrap()[0].is_err(), "it was closed in order");
    assert!(answers(&mut dial(&proxy), b"two"));
    // What its client has closed is not there to be cut.
    poll::until("the end of a line", SOON, || Ok((proxy.open() == 0).then_some(()))).unwrap();
    assert_eq!(proxy.cut(), 0);
}

#[test]
fn a_stall_keeps_the_sockets_and_delivers_later() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    let mut stream = dial(&proxy);
    assert!(answers(&mut stream, b"one"));
    proxy.carry(Carry::Stall).unwrap();
    let carried = proxy.bytes();
    stream.write_all(b"two").unwrap();
    let held = || proxy.shared.held.load(Ordering::Relaxed);
    let before = held();
    let looked = || Ok((held() > before + 10).then_some(()));
    poll::until("both directions to see the stall, several times", SOON, looked).unwrap();
    let mut late = dial(&proxy);
    late.write_all(b"late").unwrap();
    poll::until("the late one", SOON, || Ok((proxy.open() == 2).then_some(()))).unwrap();
    assert_eq!(proxy.bytes(), carried);
    proxy.carry(Carry::Pass).unwrap();
    for (stream, expected) in [(&mut stream, "two"), (&mut late, "late")] {
        let mut back = vec![0; expected.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, expected.as_bytes());
    }
}

#[test]
fn a_lost_client_is_reset_and_the_server_sees_nothing_of_it() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    let mut stream = dial(&proxy);
    assert!(answers(&mut stream, b"one"));
    assert_eq!(proxy.lose_clients(), 1);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // The end of a connection that was made and closed later is seen.
    assert!(answers(&mut dial(&proxy), b"two"));
    poll::until("a later end", SOON, || Ok((echo.ended() > 0).then_some(()))).unwrap();
    assert_eq!(echo.ended(), 1);
    assert_eq!(proxy.left(), 1);
}

#[test]
fn a_refusing_proxy_does_not_listen_and_comes_back_at_its_port() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    let mut open = dial(&proxy);
    assert!(answers(&mut open, b"one"));
    proxy.carry(Carry::Refuse).unwrap();
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(answers(&mut open, b"two"), "what is open is carried on");
    proxy.carry(Carry::Pass).unwrap();
    assert!(answers(&mut dial(&proxy), b"three"));
}

#[test]
fn a_slow_proxy_keeps_its_rate() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    proxy.carry(Carry::Slow(20_000)).unwrap();
    let started = Instant::now();
    assert!(answers(&mut dial(&proxy), &[b'x'; 5000]));
    // There and back.
    assert!(started.elapsed() >= Duration::from_millis(490), "{:?}", started.elapsed());
}

#[test]
fn one_body_of_so_many_is_damaged_and_nothing_else() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    let mut stream = dial(&proxy);
    proxy.damage(NonZeroUsize::new(2));
    let frame = |kind: u8| [&[kind, 0, 1, 0, 0, 0, 10][..], &[7; 10], &[0xCE]].concat();
    // What comes back begins like no frame: only the way there has bodies.
    let sent = [&b"AMQP\0\0\x09\x01"[..], &frame(3), &frame(2), &frame(3)].concat();
    stream.write_all(&sent).unwrap();
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).unwrap();
    let changed: Vec<usize> = (0..sent.len()).filter(|at| sent[*at] != back[*at]).collect();
    assert_eq!(changed, [8 + 2 * 18 + 7 + 4]);
    assert_eq!(proxy.bodies(Way::There), 2);
    proxy.damage(None);
    assert!(answers(&mut stream, &[frame(3), frame(3)].concat()));
}

#[test]
fn a_torn_frame_arrives_in_part() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    let mut stream = dial(&proxy);
    assert!(answers(&mut stream, b"AMQP\0\0\x09\x01"));
    proxy.tear(Way::There);
    stream.write_all(&[&[3, 0, 1, 0, 0, 0, 100][..], &[7; 101]].concat()).unwrap();
    let mut back = Vec::new();
    assert!(stream.read_to_end(&mut back).is_err());
    assert!(back.len() < 100, "{}", back.len());
    assert_eq!((proxy.torn(), proxy.open()), (1, 0));
}

/// A frame with a method of the class `basic`.
fn method(method: u8) -> Vec<u8> {
    vec![1, 0, 1, 0, 0, 0, 5, 0, 60, 0, method, 7, 0xCE]
}

#[test]
fn a_confirm_that_comes_right_after_the_order_is_held_back() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    let mut stream = dial(&proxy);
    let (confirm, other) = (method(80), method(60));
    for round in 1..=20 {
        assert!(answers(&mut stream, &other));
        proxy.hold_confirms(true);
        stream.write_all(&confirm).unwrap();
        assert!(answers(&mut stream, &other), "round {round}");
        assert_eq!(proxy.confirms_held(), round);
        proxy.hold_confirms(false);
        let mut back = vec![0; confirm.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, confirm);
    }
}

#[test]
fn confirms_are_held_back_and_nothing_else_until_they_may_pass() {
    let echo = Echo::start();
    let proxy = Proxy::before(echo.address).unwrap();
    let mut stream = dial(&proxy);
    let (confirm, other) = (method(80), method(60));
    assert!(answers(&mut stream, &confirm));
    // It begins amid a frame, which goes on.
    assert!(answers(&mut stream, &other[..5]));
    proxy.hold_confirms(true);
    assert!(answers(&mut stream, &other[5..]));
    stream.write_all(&confirm).unwrap();
    assert!(answers(&mut stream, &other));
    assert_eq!(proxy.confirms_held(), 1);
    proxy.hold_confirms(false);
    let mut back = vec![0; confirm.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, confirm);
    assert!(answers(&mut stream, &confirm));
}
