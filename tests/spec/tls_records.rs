//! The records of a session that is being relayed, with OpenSSL at the other end and with a client whose every record is
//! in the test's hand: changes of keys, records of every size, what came early, and what is no record.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::certificates::{Authority, speaking, written};
use crate::support::programs::Lines;
use crate::support::wire::{KEY, accept, handshake, switching};
use crate::support::{Ending, Over, Proxy, Setup, Upstream, Wire, eventually, noise, within};

/// `openssl s_client` or `s_server` with a connection that is open. It takes a line that begins with a letter for a
/// command, so that only digits are typed.
struct OpenSsl {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: Lines,
}

/// What `s_server` prints of a change of its keys, and of records that have no data.
const NOTES: [&[u8]; 2] = [b"SSL_do_handshake -> 1\n", b"Read BLOCK\n"];

fn without_notes(printed: &[u8]) -> Vec<u8> {
    let mut data = printed.to_vec();
    for note in NOTES {
        while let Some(at) = data.windows(note.len()).position(|window| window == note) {
            data.drain(at..at + note.len());
        }
    }
    data
}

impl OpenSsl {
    fn start(folder: &Path, arguments: &str) -> OpenSsl {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("the tests need openssl");
        OpenSsl {
            stdin: child.stdin.take().expect("a pipe"),
            stdout: child.stdout.take().expect("a pipe"),
            stderr: Lines::follow(child.stderr.take().expect("a pipe")),
            child,
        }
    }

    async fn types(&mut self, bytes: impl AsRef<[u8]>) {
        within("openssl to read", self.stdin.write_all(bytes.as_ref())).await.expect("it reads");
    }

    /// What it prints up to and including `end`.
    async fn prints(&mut self, end: &str) -> String {
        let mut printed = Vec::new();
        while !printed.ends_with(end.as_bytes()) {
            let byte = within(&format!("{end:?} from openssl"), next_byte(&mut self.stdout)).await;
            let byte = byte.unwrap_or_else(|_| {
                panic!("{}\n{}", String::from_utf8_lossy(&printed), self.stderr.text())
            });
            printed.push(byte);
        }
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// Checks that it prints exactly this, but for what a server says of itself in between.
    async fn receives(&mut self, wanted: &[u8]) {
        let mut printed = Vec::new();
        while !without_notes(&printed).starts_with(wanted) {
            let enough = wanted.len() + 32 * NOTES[0].len();
            assert!(printed.len() < enough, "{} bytes are not what was sent", wanted.len());
            let missing = wanted.len().saturating_sub(printed.len()).max(1);
            let begin = printed.len();
            printed.resize(begin + missing, 0);
            let rest = &mut printed[begin..];
            let read = tokio::io::AsyncReadExt::read_exact(&mut self.stdout, rest);
            let read = within("what was sent to openssl", read).await;
            read.unwrap_or_else(|error| panic!("{error}\n{}", self.stderr.text()));
        }
    }

    /// Changes its keys; `K` wants the peer's changed as well, `k` does not.
    async fn changes_keys(&mut self, command: &str) {
        self.types(format!("{command}\n")).await;
        // What it reads along with a command is lost.
        let unread = || rustix::io::ioctl_fionread(&self.stdin).expect("a pipe");
        eventually("openssl to read a command", || unread() == 0).await;
    }
}

/// The method of the same name would hide those of [`Wire`].
async fn next_byte(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<u8> {
    tokio::io::AsyncReadExt::read_u8(from).await
}

/// All suites that are spoken with the key that the proxy makes, and how openssl is told to use them.
const SUITES: [&str; 6] = [
    "-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256",
    "-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384",
    "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
    "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
    "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384",
    "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
];

/// Records as they come, many small ones, and padded ones, which TLS 1.2 does not have.
const SHAPES: [&str; 3] = ["", "-max_send_frag 512", "-record_padding 1000"];

/// On either side of what one record and one read of a socket hold.
const LENGTHS: [usize; 6] = [1, 100, 16_384, 16_385, 70_000, 200_000];

/// Bytes that no program takes for a command.
fn digits(seed: u64, length: usize) -> Vec<u8> {
    noise(seed, length).iter().map(|byte| b'0' + byte % 10).collect()
}

/// A session of mere bytes between openssl's client and an upstream in plain.
async fn opened(proxy: &Proxy, upstream: &Upstream, arguments: &str) -> (OpenSsl, Wire) {
    let port = proxy.address(Over::Tls).port();
    let connect = format!("s_client -connect 127.0.0.1:{port} -servername localhost {arguments}");
    let mut client = OpenSsl::start(&proxy.file(""), &connect);
    // The request begins with a letter that is no command.
    client.types(handshake("/")).await;
    let mut leg = upstream.accept().await;
    leg.accept().await;
    let printed = client.prints("\r\n\r\n").await;
    assert!(printed.contains("HTTP/1.1 101 "), "{printed}");
    (client, leg)
}

/// Bytes of every length both ways, as they are, with keys changed in between where there is such a thing.
async fn exchanged(openssl: &mut OpenSsl, other: &mut Wire, is_tls13: bool) {
    for (at, length) in LENGTHS.into_iter().enumerate() {
        let up = digits(at as u64, length);
        openssl.types(&up).await;
        assert!(other.take(length).await == up, "{length} bytes of openssl's");
        if is_tls13 {
            openssl.changes_keys(["K", "k"][at % 2]).await;
        }
        let down = noise(at as u64, length);
        let (_, ()) = tokio::join!(other.send(&down), openssl.receives(&down));
        if is_tls13 {
            openssl.changes_keys(["k", "K", "K"][at % 3]).await;
        }
    }
}

/// openssl's client with each suite, in records of every shape, changing its keys and wanting ours changed: RFC 8446
/// §4.6.3 and §5.4, RFC 5288, RFC 7905.
#[tokio::test]
async fn the_records_of_openssl_s_client_are_relayed() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    for suite in SUITES {
        let is_tls13 = suite.contains("1_3");
        for shape in &SHAPES[..if is_tls13 { 3 } else { 2 }] {
            let (mut client, mut leg) =
                opened(&proxy, &upstream, &format!("{suite} {shape}")).await;
            exchanged(&mut client, &mut leg, is_tls13).await;
            // Its end of input is a close_notify.
            drop(client.stdin);
            leg.expect_end().await;
        }
    }
}

/// An https upstream that is openssl's server, and a session of mere bytes to it.
async fn openssl_upstream(arguments: &str) -> (Proxy, Wire, OpenSsl) {
    let authority = Authority::new();
    let setup = Setup::builtin();
    written(setup.folder(), "up", &authority.issue(&["localhost"]));
    let listen = format!("s_server -accept 127.0.0.1:0 -cert up.crt -key up.key {arguments}");
    let mut server = OpenSsl::start(setup.folder(), &listen);
    server.prints("ACCEPT ").await;
    let address = server.prints("\n").await;
    let port = address.trim().rsplit(':').next().expect("a port").to_owned();
    let setup = Setup::to(&format!("https://localhost:{port}"));
    std::fs::write(setup.folder().join("ca.pem"), authority.pem()).expect("the folder is ours");
    let setup = setup.upstream("ca = \"ca.pem\"").route("frames = \"off\"");
    let proxy = setup.start().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/")).await;
    let asked = server.prints("\r\n\r\n").await.to_ascii_lowercase();
    let key = asked.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
    assert_eq!(key, Some(KEY.to_ascii_lowercase().as_str()));
    // The answer to this is still rustls's to write when the session begins.
    if arguments.contains("1_3") {
        server.changes_keys("K").await;
    }
    server.types(switching(&accept(KEY), "")).await;
    assert_eq!(client.head().await.status(), Some(101));
    (proxy, client, server)
}

/// openssl's server with each suite, in records of every shape, changing its keys and wanting ours changed; and its end.
#[tokio::test]
async fn the_records_of_openssl_s_server_are_relayed() {
    for suite in SUITES {
        let is_tls13 = suite.contains("1_3");
        for shape in &SHAPES[..if is_tls13 { 3 } else { 2 }] {
            let arguments = format!("{suite} {shape} -num_tickets 5");
            let arguments =
                if is_tls13 { arguments } else { arguments.replace("-num_tickets 5", "") };
            let (proxy, mut client, mut server) = openssl_upstream(&arguments).await;
            exchanged(&mut server, &mut client, is_tls13).await;
            // It answers a close_notify with its own.
            client.finish().await;
            client.expect_end().await;
            let end = proxy.event("end").await;
            assert_eq!((&end["ended_by"], &end["why"]), (&"client".into(), &"closed".into()));
        }
    }
}

/// An upstream that ends with a close_notify, one that is killed and says none, and one that writes what is no record.
#[tokio::test]
async fn the_end_of_an_upstream_is_told_apart() {
    let authority = Authority::new();
    let upstream = Upstream::tls(authority.issue(&["localhost"]).server()).await;
    let setup = Setup::to(upstream.endpoint()).upstream("ca = \"ca.pem\"");
    std::fs::write(setup.folder().join("ca.pem"), authority.pem()).expect("the folder is ours");
    let proxy = setup.route("frames = \"off\"").start().await;
    let mut client = proxy.plain().await;
    let (_, mut leg) = proxy.open(&mut client, &upstream).await;
    leg.send("last words").await;
    leg.finish().await;
    client.expect("last words").await;
    client.expect_end().await;
    client.send("and ours").await;
    leg.expect("and ours").await;
    client.finish().await;
    leg.expect_end().await;
    let end = proxy.event("end").await;
    assert_eq!((&end["ended_by"], &end["why"]), (&"upstream".into(), &"closed".into()));

    let (proxy, mut client, mut server) = openssl_upstream("-tls1_3").await;
    // Killed with anything unread it would reset the connection.
    client.send("1").await;
    server.receives(b"1").await;
    server.child.kill().await.expect("it is ours");
    client.expect_end().await;
    client.finish().await;
    assert_eq!(proxy.event("end").await["why"], "truncated");

    // "Lets print some clear text"
    let (proxy, mut client, mut server) = openssl_upstream("-tls1_3").await;
    server.types("P\n").await;
    assert_eq!(client.rest().await, (Vec::new(), Ending::Reset));
    let end = proxy.event("end").await;
    assert_eq!(end["ended_by"], "upstream");
    assert!(end["why"].as_str().is_some_and(|why| why.contains("TLS record")), "{end}");
}

/// Another handshake in the middle of a session (RFC 5246 §7.4.1.2) is refused by a warning, and openssl leaves.
#[tokio::test]
async fn a_session_is_not_negotiated_anew() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    let (mut client, mut leg) = opened(&proxy, &upstream, SUITES[3]).await;
    client.types("R\n").await;
    client.stderr.containing("no renegotiation").await;
    leg.rest().await;
    assert_eq!(
        within("openssl to leave", client.child.wait()).await.expect("ended").code(),
        Some(1)
    );
    // The other way round: a HelloRequest of a server, of which openssl thinks the same.
    let (proxy, mut client, mut server) = openssl_upstream(SUITES[3]).await;
    server.types("r\n").await;
    client.rest().await;
    assert!(proxy.event("end").await["why"].is_string());
}

/// Records of a few bytes each, both ways.
#[tokio::test]
async fn small_records_are_relayed() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    for version in [&TLS12, &TLS13] {
        let mut config = speaking(version);
        config.max_fragment_size = Some(32);
        let mut client = proxy.tls(config, "localhost").await;
        let (_, mut leg) = proxy.open(&mut client, &upstream).await;
        let (up, down) = (noise(1, 100_000), noise(2, 100_000));
        let ((), taken) = tokio::join!(client.send(&up), leg.take(up.len()));
        assert!(taken == up);
        let ((), taken) = tokio::join!(leg.send(&down), client.take(down.len()));
        assert!(taken == down);
    }
}

/// A client that sends right behind its handshake, in one piece with it: whole records, many of them, and one that is cut
/// anywhere. That is what TLS has read when the session begins; with the two ways in which a handshake of TLS is made.
#[tokio::test]
async fn records_right_behind_the_handshake_are_relayed() {
    for more in ["", "[tls]\nunknown_name = \"refuse\""] {
        let upstream = Upstream::raw().await;
        let setup = Setup::to(upstream.endpoint()).route("frames = \"off\"").also(more);
        let proxy = setup.start().await;
        for version in [&TLS12, &TLS13] {
            for cut in [0, 1, 4, 5, 6, 20, 300, 20_000] {
                let mut client = proxy.tls(speaking(version), "localhost").await;
                let early: Vec<_> = (0..5).flat_map(|seed| noise(seed, 200)).collect();
                let last = noise(9, 40_000);
                let mut sealed = client.seal(handshake("/"));
                for piece in early.chunks(100) {
                    sealed.extend(client.seal(piece));
                }
                let tail = client.seal(&last);
                sealed.extend(&tail[..cut]);
                client.send_sealed(&sealed).await;
                let mut leg = upstream.accept().await;
                leg.accept().await;
                assert_eq!(client.head().await.status(), Some(101));
                assert!(leg.take(early.len()).await == early, "{version:?}, {cut}");
                let ((), taken) =
                    tokio::join!(client.send_sealed(&tail[cut..]), leg.take(last.len()));
                assert!(taken == last, "{version:?}, {cut}");
                leg.send("back").await;
                client.expect("back").await;
            }
        }
    }
}

/// Keys that the client changes right behind its handshake, before the session begins.
#[tokio::test]
async fn keys_are_changed_before_the_session_begins() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    let mut client = proxy.tls(speaking(&TLS13), "localhost").await;
    let mut sealed = Vec::new();
    for piece in
        ["GET / HTTP/1.1\r\n", handshake("/").strip_prefix("GET / HTTP/1.1\r\n").expect("so")]
    {
        client.change_keys();
        sealed.extend(client.seal(piece));
    }
    client.change_keys();
    sealed.extend(client.seal("early"));
    client.send_sealed(&sealed).await;
    let mut leg = upstream.accept().await;
    leg.accept().await;
    assert_eq!(client.head().await.status(), Some(101));
    leg.expect("early").await;
    for _ in 0..3 {
        client.change_keys();
        client.send("up").await;
        leg.expect("up").await;
        leg.send("down").await;
        client.expect("down").await;
    }
}

/// A client that reads nothing changes its keys and wants ours changed (RFC 8446 §4.6.3): its words still arrive, and
/// when it reads again, all that was on its way is there in order.
#[tokio::test]
async fn keys_are_changed_while_the_client_reads_nothing() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    let mut client = proxy.slow_reader_over(Over::Tls).await;
    let (_, mut leg) = proxy.open(&mut client, &upstream).await;
    let down = noise(1, 32 << 20);
    let sent = leg.send_until_stuck(&down).await;
    assert!(sent < down.len(), "everything found room");
    for _ in 0..20 {
        client.change_keys();
        let sealed = client.seal("up");
        client.send_sealed(&sealed).await;
        leg.expect("up").await;
    }
    assert!(client.take(sent).await == down[..sent]);
    leg.send("and on").await;
    client.expect("and on").await;
    client.send("and back").await;
    leg.expect("and back").await;
}

/// A TLS connection with a session of mere bytes on it.
async fn session(
    proxy: &Proxy,
    upstream: &Upstream,
) -> (tokio_rustls::client::TlsStream<TcpStream>, Wire) {
    let stream = proxy.try_tls(&Arc::new(speaking(&TLS13)), "localhost").await;
    let mut client = stream.expect("the TLS handshake succeeds");
    client.write_all(handshake("/").as_bytes()).await.expect("the proxy reads");
    let mut leg = upstream.accept().await;
    leg.accept().await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("an answer", next_byte(&mut client)).await.expect("an answer"));
    }
    (client, leg)
}

/// A record that was changed on its way ends its session with bad_record_mac (RFC 8446 §5.2), and one that says it is
/// too long with record_overflow; what was said before is relayed, and no other session notices.
#[tokio::test]
async fn a_changed_record_ends_its_session_alone() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    let (mut other, mut other_leg) = proxy.session(Over::Tls, &upstream).await;
    let too_long = [23, 3, 3, 0x41, 1];
    for alert in [AlertDescription::BadRecordMac, AlertDescription::RecordOverflow] {
        let (mut client, mut leg) = session(&proxy, &upstream).await;
        client.write_all(b"good").await.expect("the proxy reads");
        leg.expect("good").await;
        let (tcp, tls) = client.get_mut();
        std::io::Write::write_all(&mut tls.writer(), b"changed").expect("there is room");
        let mut sealed = Vec::new();
        tls.write_tls(&mut sealed).expect("a vector takes everything");
        *sealed.last_mut().expect("a record") ^= 1;
        let bytes = if alert == AlertDescription::BadRecordMac { &sealed[..] } else { &too_long };
        assert_eq!(tcp.try_write(bytes).expect("there is room"), bytes.len());
        let error = within("an alert", next_byte(&mut client)).await.expect_err("this is the end");
        let error = error.get_ref().and_then(|error| error.downcast_ref());
        assert_eq!(error, Some(&rustls::Error::AlertReceived(alert)));
        assert_eq!(leg.rest().await, (Vec::new(), Ending::Reset));
        other.send("up").await;
        other_leg.expect("up").await;
        other_leg.send("down").await;
        other.expect("down").await;
    }
}

/// All that was said before it arrives, however much of it was still on its way.
#[tokio::test]
async fn what_came_before_a_changed_record_arrives() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    let (mut client, mut leg) = proxy.session(Over::Tls, &upstream).await;
    let said = noise(3, 8 << 20);
    let (heard, ()) = tokio::join!(leg.rest(), async {
        client.send(&said).await;
        let mut changed = client.seal("changed");
        *changed.last_mut().expect("a record") ^= 1;
        client.send_sealed(&changed).await;
    });
    assert!(heard == (said, Ending::Reset));
}

/// A session over a connection that resumes an earlier one: its keys follow from other secrets.
#[tokio::test]
async fn the_records_of_a_resumed_connection_are_relayed() {
    let (proxy, upstream) = Proxy::scripted_bytes().await;
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(speaking(version));
        for round in 0..3 {
            let stream = proxy.try_tls(&config, "localhost").await.expect("a TLS handshake");
            let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(is_resumed, round > 0);
            let mut client = Wire::new(stream);
            let (_, mut leg) = proxy.open(&mut client, &upstream).await;
            for _ in 0..2 {
                if version.version == ProtocolVersion::TLSv1_3 {
                    client.change_keys();
                }
                client.send("up").await;
                leg.expect("up").await;
                leg.send("down").await;
                client.expect("down").await;
            }
        }
    }
}
