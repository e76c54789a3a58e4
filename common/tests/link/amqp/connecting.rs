//! Connecting: the ways it fails, what was agreed on, and how it ends.

use super::*;
use futures_util::future::join_all;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn hasty() -> Terms {
    Terms { connect_timeout: Duration::from_millis(800), ..Terms::default() }
}

/// Less than the shortest of the default terms that end a wait, and much more
/// than a busy machine needs: what ends within it was ended by what the test
/// set, or by itself.
const BRIEFLY: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_port_where_nobody_listens_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let fault = fault(try_connect(&format!("amqp://127.0.0.1:{port}"), &hasty()).await);
    assert!(matches!(fault, Fault::Refused(_)), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_exist_is_unreachable() {
    let fault = fault(try_connect("amqp://no-such-host.invalid", &Terms::default()).await);
    assert!(matches!(fault, Fault::Unreachable(_)), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_nothing_is_unreachable_in_time_and_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for scheme in ["amqp", "amqps"] {
        let began = Instant::now();
        let fault = fault(try_connect(&format!("{scheme}://127.0.0.1:{port}"), &hasty()).await);
        assert!(matches!(fault, Fault::Unreachable(_)), "{fault}");
        assert!(began.elapsed() < BRIEFLY, "{:?}", began.elapsed());
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut said = Vec::new();
        // Ends only when the socket is closed on the other side.
        within(peer.read_to_end(&mut said)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_no_broker_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut answers = tokio::task::JoinSet::new();
    answers.spawn(async move {
        for answer in ["", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut hello = [0; 8];
            peer.read_exact(&mut hello).await.unwrap();
            peer.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let url = format!("amqp://127.0.0.1:{port}");
    let silent = fault(try_connect(&url, &hasty()).await);
    assert!(matches!(silent, Fault::Unreachable(_)), "{silent}");
    let strange = fault(try_connect(&url, &hasty()).await);
    assert!(matches!(strange, Fault::Protocol(_) | Fault::Unreachable(_)), "{strange}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_port_without_it_is_a_tls_fault() {
    let vhost = broker::vhost();
    let url = vhost.url().replace("amqp://", "amqps://");
    let fault = fault(try_connect(&url, &Terms::default()).await);
    assert!(matches!(fault, Fault::Tls(_)), "{fault}");
}

/// Trusted certificates are read from the environment, so a second process of this
/// very test connects with one.
#[tokio::test(flavor = "multi_thread")]
async fn tls_holds_with_a_trusted_certificate_and_with_no_other() {
    if let Ok(url) = std::env::var("CLUTCH_TEST_TLS_URL") {
        let connection = connect(&url).await;
        connection.declare(&queue("over-tls", &[])).await.unwrap();
        return connection.close().await;
    }
    let (_alone, broker) = broker::private().await;
    let vhost = broker.address().vhost().unwrap();
    let tls = broker.tls().unwrap();
    let url = vhost.url_by(tls.port).unwrap().replace("amqp://", "amqps://");
    let fault = fault(try_connect(&url, &Terms::default()).await);
    assert!(matches!(fault, Fault::Tls(_)), "{fault}");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "amqp::connecting::tls_holds_with_a_trusted_certificate_and_with_no_other",
            "--exact",
        ])
        .env("CLUTCH_TEST_TLS_URL", &url)
        .env("SSL_CERT_FILE", &tls.certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let queues = vhost.queues().unwrap();
    assert_eq!(queues[0]["name"], "over-tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_user_password_or_vhost_is_a_credentials_fault_without_the_password() {
    let vhost = broker::vhost();
    let elsewhere = broker::vhost();
    let outsider = broker::user(&elsewhere, "outsider", ["", "", ""]);
    let into_ours = |url: &str| url.replace(elsewhere.name(), vhost.name());
    let as_user = |user: &str| vhost.url_as(user, "sesame").unwrap();
    for url in [
        as_user("nobody"),
        as_user("outsider"),
        into_ours(&outsider),
        vhost.url().replace(vhost.name(), "nowhere"),
    ] {
        let fault = fault(try_connect(&url, &Terms::default()).await);
        assert!(matches!(fault, Fault::Credentials(_)), "{url}: {fault}");
        assert!(!format!("{fault:?}").contains("sesame"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_limits_is_told_as_a_limit() {
    let vhost = broker::vhost();
    let user = format!("{}-few", vhost.name());
    let url = broker::user(&vhost, &user, [".*", ".*", ".*"]);
    broker::limit(&vhost, ["user-limits", &user, "max-channels"], 1);
    let few = connect(&url).await;
    let _one = few.outlet().await.unwrap();
    let fault = few.outlet().await.err();
    assert!(matches!(&fault, Some(Fault::Limited(text)) if text.contains("(1)")), "{fault:?}");
    few.close().await;

    let transport = link::transport(&vhost.url(), &Terms::default()).unwrap();
    let checks = transport.check().await;
    assert!(checks[0].detail.contains("2047 channels"), "{checks:?}");
    broker::limit(&vhost, ["vhost-limits", vhost.name(), "max-connections"], 1);
    let checks = transport.check().await;
    assert!(matches!(checks[0].fault, Some(Fault::Limited(_))), "{checks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_sees_our_name_and_our_heartbeat() {
    let vhost = broker::vhost();
    let terms = Terms { heartbeat: Duration::from_secs(7), ..Terms::default() };
    let url = format!("{}?heartbeat=33", vhost.url());
    for url in [vhost.url(), url] {
        let name = format!("clutch/{}/seven", url.len());
        let transport = link::transport(&url, &terms).unwrap();
        let connection = transport.connect(&name).await.unwrap();
        let seen = broker::connection(&vhost, &name).await;
        assert_eq!(seen["timeout"], 7, "{seen}");
        assert_eq!(seen["client_properties"]["product"], "clutch");
        connection.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_may_not_do_is_forbidden() {
    let vhost = broker::vhost();
    with_queue(&vhost, "theirs").await.close().await;
    let url = broker::user(&vhost, "guarded", ["^mine$", "^$", "^$"]);
    let connection = connect(&url).await;
    let declared = connection.declare(&queue("theirs", &[])).await;
    let consumed = connection.inlet(&options("theirs", 1, None)).await;
    let leased = connection.inlet(&options("theirs", 1, Some("theirs.lease"))).await;
    let mut outlet = connection.outlet().await.unwrap();
    outlet.publish(&to("theirs"), message(1)).await.unwrap();
    let published = within(outlet.settled()).await;
    for fault in [fault(declared), fault(consumed), fault(leased), fault(published)] {
        assert!(matches!(fault, Fault::Forbidden(_)), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closed_by_an_operator_is_noticed_while_idle() {
    let vhost = broker::vhost();
    with_queue(&vhost, "tasks").await.close().await;
    let consuming = connect_named(&vhost.url(), "idle-consumer").await;
    let publishing = connect_named(&vhost.url(), "idle-publisher").await;
    let mut inlet = consuming.inlet(&options("tasks", 8, None)).await.unwrap();
    let mut outlet = publishing.outlet().await.unwrap();
    let waiting = async { tokio::join!(inlet.receive(8), outlet.settled()) };
    let closing = async {
        broker::close_connection(&vhost, "idle-consumer").await;
        broker::close_connection(&vhost, "idle-publisher").await;
    };
    let ((received, settled), ()) = tokio::join!(within(waiting), closing);
    for fault in [fault(received), fault(settled)] {
        assert!(matches!(&fault, Fault::Closed(text) if text.contains("CONNECTION_FORCED")));
    }
    // And by later calls.
    assert!(matches!(inlet.receive(8).await, Err(Fault::Closed(_))));
    assert!(matches!(outlet.publish(&to("tasks"), message(1)).await, Err(Fault::Closed(_))));
    assert!(matches!(consuming.outlet().await, Err(Fault::Closed(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_is_noticed_by_the_heartbeat_while_idle() {
    let vhost = broker::vhost();
    with_queue(&vhost, "tasks").await.close().await;
    let proxy = broker::proxy(&vhost);
    let terms = Terms { heartbeat: Duration::from_secs(1), ..Terms::default() };
    let connection = try_connect(&broker::through(&proxy, &vhost), &terms).await.unwrap();
    let mut inlet = connection.inlet(&options("tasks", 8, None)).await.unwrap();
    let mut outlet = connection.outlet().await.unwrap();
    proxy.carry(Carry::Stall).unwrap();
    let began = Instant::now();
    let (received, settled) =
        within(async { tokio::join!(inlet.receive(8), outlet.settled()) }).await;
    assert!(began.elapsed() < BRIEFLY, "{:?}", began.elapsed());
    for fault in [fault(received), fault(settled)] {
        assert!(matches!(&fault, Fault::Closed(text) if text.contains("heartbeat")), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_in_time_even_when_the_broker_is_silent() {
    let vhost = broker::vhost();
    let proxy = broker::proxy(&vhost);
    let connection = connect(&broker::through(&proxy, &vhost)).await;
    proxy.carry(Carry::Stall).unwrap();
    let began = Instant::now();
    connection.close().await;
    assert!(began.elapsed() < BRIEFLY, "{:?}", began.elapsed());
    proxy.carry(Carry::Pass).unwrap();
    until_left(&proxy).await;
    let fault = fault(connection.outlet().await);
    assert!(matches!(fault, Fault::Closed(_)), "{fault}");
}

/// Connections die at once, and are closed when the first has told so: to the
/// others it happens while they are closed.
#[tokio::test(flavor = "multi_thread")]
async fn closing_does_not_wait_for_an_answer_of_a_connection_that_has_died() {
    let vhost = broker::vhost();
    with_queue(&vhost, "tasks").await.close().await;
    let mut closing = Duration::ZERO;
    for _ in 0..10 {
        let proxy = broker::proxy(&vhost);
        let url = broker::through(&proxy, &vhost);
        let connections = join_all((0..12).map(|_| connect(&url))).await;
        let mut inlet = connections[0].inlet(&options("tasks", 1, None)).await.unwrap();
        drop(proxy);
        within(inlet.lost()).await;
        let began = Instant::now();
        join_all(connections.iter().map(|connection| connection.close())).await;
        closing += began.elapsed();
    }
    assert!(closing < BRIEFLY, "{closing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_dropped_is_gone() {
    let vhost = broker::vhost();
    let proxy = broker::proxy(&vhost);
    drop(connect(&broker::through(&proxy, &vhost)).await);
    until_left(&proxy).await;
}
