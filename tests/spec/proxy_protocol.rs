//! The PROXY protocol, as HAProxy's `doc/proxy-protocol.txt` has it (its sections are meant by §): who may say for whom
//! a connection comes, what is then held of it, and what upstreams are told.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::{Authority, trusting_anyone};
use crate::support::programs::curl;
use crate::support::wire::{Head, handshake};
use crate::support::{Over, Proxy, Setup, Upstream, Wire, within};

/// §2.1: 203.0.113.7 has connected to 192.0.2.1.
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n";

/// §2.2: the same, and a TLV with the name that the client asked for.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x1A\xCB\x00\x71\x07\xC0\x00\x02\x01\xDC\x04\x01\xBB\
                    \x02\x00\x0Bexample.org";

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n";
const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// The loopback network is the load balancer's.
fn rule(rule: &str) -> String {
    format!("proxy_protocol = \"{rule}\"\ntrusted = [\"127.0.0.0/8\"]")
}

/// Only 127.0.0.2 is the load balancer: what comes from 127.0.0.1 comes from a stranger.
fn strict_rule(rule: &str) -> String {
    format!("proxy_protocol = \"{rule}\"\ntrusted = [\"127.0.0.2\"]")
}

async fn start(keys: &str) -> (Proxy, Upstream) {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint())
        .listener(keys)
        .environment("RUST_LOG", "tidegate=debug")
        .start()
        .await;
    (proxy, upstream)
}

/// A connection that begins with these bytes and goes on with TLS, if that is spoken there.
async fn begun(proxy: &Proxy, over: Over, first: &[u8]) -> Wire {
    let mut tcp = proxy.tcp(over).await;
    tcp.write_all(first).await.expect("the proxy reads");
    match over {
        Over::Plain => Wire::new(tcp),
        Over::Tls => {
            let tls = Proxy::try_tls_over(tcp, &Arc::new(trusting_anyone()), "localhost").await;
            Wire::new(tls.expect("TLS comes after the header"))
        }
    }
}

/// Sends each piece by itself. The pauses let the proxy look in between; what comes of it does not depend on that.
async fn in_pieces<'a>(client: &mut Wire, pieces: impl IntoIterator<Item = &'a [u8]>) {
    for piece in pieces {
        client.send(piece).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What the upstream sees of the next request.
async fn answered(upstream: &Upstream, client: &mut Wire) -> Head {
    let mut leg = upstream.accept().await;
    let head = leg.head().await;
    leg.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.head().await.status(), Some(204));
    head
}

/// Checks that the proxy closes without a word, and logs why.
async fn turned_away(proxy: &Proxy, mut client: Wire, why: &str) {
    let (said, _) = client.rest().await;
    assert_eq!(String::from_utf8_lossy(&said), "");
    proxy.says(why).await;
}

/// How many connections the metrics say were turned away.
async fn count_turned_away(proxy: &Proxy) -> u64 {
    let (_, metrics) = proxy.ask("GET", "/metrics").await;
    let counts = metrics.lines().filter_map(|line| {
        line.strip_prefix("tidegate_proxy_protocol_failures_total{")?.rsplit(' ').next()
    });
    counts.map(|count| count.parse::<u64>().expect("a count")).sum()
}

/// Either version, before plain HTTP and before TLS: the client that is announced is the one that the upstream and the
/// log hear of (§2), and nobody else's word on it counts.
#[tokio::test]
async fn the_announced_client_is_the_client() {
    for required in ["accept", "require"] {
        let (proxy, upstream) = start(&rule(required)).await;
        for (over, header) in
            [(Over::Plain, V1), (Over::Plain, V2), (Over::Tls, V1), (Over::Tls, V2)]
        {
            let mut client = begun(&proxy, over, header).await;
            client.send(GET).await;
            let head = answered(&upstream, &mut client).await;
            assert_eq!(head.field("x-forwarded-for"), Some("203.0.113.7"));
            let is_tls = over == Over::Tls;
            proxy
                .record(|r| r["client"] == "203.0.113.7:56324" && r["tls"].is_string() == is_tls)
                .await;
        }
        assert_eq!(count_turned_away(&proxy).await, 0);
    }
}

/// A session of an announced client is found by that client's address.
#[tokio::test]
async fn sessions_are_found_by_the_announced_client() {
    let (proxy, upstream) = start(&rule("require")).await;
    let mut client = begun(&proxy, Over::Tls, V2).await;
    let (_, _leg) = proxy.open(&mut client, &upstream).await;
    let listed = |target: &'static str| {
        let proxy = &proxy;
        async move { proxy.told("GET", target).await["sessions"].as_array().map(Vec::len) }
    };
    assert_eq!(listed("/sessions?client=203.0.113.0/24").await, Some(1));
    assert_eq!(listed("/sessions?client=127.0.0.0/8").await, Some(0));
    let open = proxy.event("open").await;
    assert_eq!(open["client"], "203.0.113.7:56324");
}

/// However the network cuts it: a header in two pieces at every place and in single bytes, with the request right
/// behind it in the last piece. Nothing of the request is lost.
#[tokio::test]
async fn a_header_may_come_in_any_pieces() {
    let (proxy, upstream) = start(&rule("require")).await;
    for header in [V1, V2] {
        let whole = [header, GET.as_bytes()].concat();
        for at in 0..=header.len() {
            let mut client = proxy.plain().await;
            in_pieces(&mut client, [&whole[..at], &whole[at..]]).await;
            let head = answered(&upstream, &mut client).await;
            assert_eq!(head.field("x-forwarded-for"), Some("203.0.113.7"), "cut at {at}");
        }
        let mut client = proxy.plain().await;
        in_pieces(&mut client, whole.chunks(1)).await;
        let head = answered(&upstream, &mut client).await;
        assert_eq!(head.field("x-forwarded-for"), Some("203.0.113.7"));
    }
}

/// `"require"`: who is not trusted is closed, whatever it sends; nginx and HAProxy leave it to a firewall.
#[tokio::test]
async fn strangers_are_turned_away_where_a_header_is_required() {
    let (proxy, upstream) = start(&strict_rule("require")).await;
    for first in [V1, V2, GET.as_bytes(), b""] {
        let mut client = proxy.plain().await;
        let _ = client.try_send(first).await;
        turned_away(&proxy, client, "not within `trusted`").await;
    }
    upstream.expect_untouched().await;
    assert_eq!(count_turned_away(&proxy).await, 4);
    let mut balancer = proxy.plain_from("127.0.0.2").await;
    balancer.send([V1, GET.as_bytes()].concat()).await;
    let head = answered(&upstream, &mut balancer).await;
    assert_eq!(head.field("x-forwarded-for"), Some("203.0.113.7"));
}

/// `"accept"`: a stranger's header is not believed. It is garbage to HTTP and to TLS, which say so.
#[tokio::test]
async fn headers_of_strangers_are_garbage() {
    let (proxy, upstream) = start(&strict_rule("accept")).await;
    for over in [Over::Plain, Over::Tls] {
        for header in [V1, V2] {
            let mut client = Wire::new(proxy.tcp(over).await);
            client.send([header, GET.as_bytes()].concat()).await;
            assert_eq!(client.response().await.status(), 400);
        }
    }
    upstream.expect_untouched().await;
    let mut client = proxy.plain().await;
    client.send(GET).await;
    let head = answered(&upstream, &mut client).await;
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
}

/// `"accept"`: a trusted peer without a header is an ordinary one, also if it begins almost like one, with the line
/// break that RFC 9112 §2.2 lets servers skip, or in single bytes.
#[tokio::test]
async fn a_trusted_peer_may_do_without_a_header() {
    let (proxy, upstream) = start(&rule("accept")).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PROPFIND / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut client = proxy.plain().await;
        in_pieces(&mut client, request.as_bytes().chunks(1)).await;
        let head = answered(&upstream, &mut client).await;
        assert_eq!(
            format!("{}\r\n", head.first()),
            request.trim_start().split_inclusive('\n').next().expect("a line")
        );
        assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    }
    let mut client = begun(&proxy, Over::Tls, b"").await;
    client.send(GET).await;
    let head = answered(&upstream, &mut client).await;
    assert_eq!(head.field("x-forwarded-for"), Some("10.9.9.9, 127.0.0.1"));
}

/// `"require"`: a trusted peer that begins with something else is closed (§2.2: "the connection must be dropped"), and
/// so is one whose header is wrong, with either rule.
#[tokio::test]
async fn what_is_no_header_ends_the_connection() {
    let wrong: [(&[u8], &str); 5] = [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 056324 443\r\n", "malformed"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\nGET / HTTP/1.1\r\n", "malformed"),
        (&[b'P', b'R', b'O', b'X', b'Y', b' ', b'U'].repeat(16), "no CRLF within 107"),
        (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00", "no version and command"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF", "65535 bytes long"),
    ];
    for required in ["accept", "require"] {
        let (proxy, upstream) = start(&rule(required)).await;
        for (bytes, why) in wrong {
            let mut client = proxy.plain().await;
            client.send(bytes).await;
            turned_away(&proxy, client, why).await;
        }
        let mut client = proxy.plain().await;
        client.send(&V2[..20]).await;
        client.finish().await;
        turned_away(&proxy, client, "left before its PROXY header was complete").await;
        assert_eq!(count_turned_away(&proxy).await, 6);
        // A health check that only connects, and one that resets then, as HAProxy's do, are no failures.
        let mut client = proxy.plain().await;
        client.finish().await;
        turned_away(&proxy, client, "left without a word").await;
        proxy.plain().await.reset();
        proxy.says_again("left without a word", 1).await;
        assert_eq!(count_turned_away(&proxy).await, 6);
        if required == "require" {
            for over in [Over::Plain, Over::Tls] {
                let mut client = Wire::new(proxy.tcp(over).await);
                client
                    .send(if over == Over::Plain { GET.as_bytes() } else { b"\x16\x03\x01" })
                    .await;
                turned_away(&proxy, client, "it sent no PROXY header").await;
            }
        }
        upstream.expect_untouched().await;
    }
}

/// Whoever does not send its header within `header_timeout` is closed; until then it counts as a connection, and keeps
/// nobody from being accepted.
#[tokio::test]
async fn a_header_that_does_not_come_is_waited_for_and_given_up() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint())
        .listener(&rule("require"))
        .also("[limits]\nconnections = 9\nheader_timeout = \"3s\"")
        .environment("RUST_LOG", "tidegate=debug")
        .start()
        .await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(proxy.plain().await);
        let mut slow = proxy.plain().await;
        slow.send(&V2[..14]).await;
        silent.push(slow);
    }
    let mut client = begun(&proxy, Over::Plain, V1).await;
    client.send(GET).await;
    answered(&upstream, &mut client).await;
    let mut one_too_many = begun(&proxy, Over::Plain, V1).await;
    one_too_many.get("/").await.refused(503, "connections");
    for wire in silent {
        turned_away(&proxy, wire, "no PROXY header in time").await;
    }
    assert_eq!(count_turned_away(&proxy).await, 8);
}

fn is_one_accepted(line: &str) -> bool {
    line.starts_with("tidegate_connections_accepted_total{") && line.ends_with(" 1")
}

/// A connection that waits for its header holds up no drain.
#[tokio::test]
async fn a_header_that_does_not_come_holds_up_no_drain() {
    let setup = Setup::builtin().listener(&rule("require"));
    let proxy = setup.also("[limits]\nheader_timeout = \"10m\"").start().await;
    let mut silent = proxy.plain().await;
    within("it to be accepted", async {
        while !proxy.ask("GET", "/metrics").await.1.lines().any(is_one_accepted) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    proxy.drain();
    silent.rest().await;
    assert_eq!(proxy.exited().await, 0);
}

/// LOCAL (§2.2): the connection's own addresses hold, and what is known of its peer. UNSPEC, UNKNOWN (§2.1) and Unix
/// addresses: the addresses do, but what is said on it is a stranger's. Addresses that were written as IPv6 and are IPv4 are IPv4.
#[tokio::test]
async fn headers_without_a_client_leave_the_peer() {
    let (proxy, upstream) = start(&rule("require")).await;
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let unix = [&signature[..], b"\x21\x31\x00\xD8", &[b'/'; 216]].concat();
    let headers: [(&[u8], &str); 6] = [
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", "10.9.9.9, 127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x03\x01\x02\x03", "127.0.0.1"),
        (&unix, "127.0.0.1"),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", "203.0.113.7"),
    ];
    for (header, seen) in headers {
        let mut client = begun(&proxy, Over::Plain, header).await;
        client.send(GET).await;
        let head = answered(&upstream, &mut client).await;
        assert_eq!(head.field("x-forwarded-for"), Some(seen), "{header:x?}");
    }
}

/// What an announced client says of clients of its own is believed only if that client itself is in `trusted`.
#[tokio::test]
async fn forwarded_fields_are_believed_of_announced_clients_that_are_trusted() {
    let keys = "proxy_protocol = \"require\"\ntrusted = [\"127.0.0.0/8\", \"198.51.100.0/24\"]";
    let (proxy, upstream) = start(keys).await;
    for (header, seen) in [
        ("PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n", "203.0.113.7"),
        ("PROXY TCP4 198.51.100.4 192.0.2.1 1 2\r\n", "10.9.9.9, 198.51.100.4"),
    ] {
        let mut client = begun(&proxy, Over::Plain, header.as_bytes()).await;
        client.send(GET).await;
        let head = answered(&upstream, &mut client).await;
        assert_eq!(head.field("x-forwarded-for"), Some(seen));
    }
}

/// `connections_per_ip` is about announced clients; the load balancer's own connections, and those for clients that are
/// trusted, are not counted.
#[tokio::test]
async fn connections_are_counted_per_announced_client() {
    let keys = "proxy_protocol = \"accept\"\ntrusted = [\"127.0.0.0/8\", \"198.51.100.0/24\"]";
    let upstream = Upstream::raw().await;
    let page =
        "[upstream.page]\nbuiltin = \"echo\"\n[[route]]\npath = \"/page\"\nupstream = \"page\"";
    let setup = Setup::to(upstream.endpoint()).listener(keys).also(page);
    let proxy = setup.also("[limits]\nconnections_per_ip = 2").start().await;
    let mut held = Vec::new();
    for header in [V1, V2] {
        let mut client = begun(&proxy, Over::Plain, header).await;
        held.push((proxy.open(&mut client, &upstream).await.1, client));
    }
    for over in [Over::Plain, Over::Tls] {
        begun(&proxy, over, V1).await.get("/").await.refused(429, "address");
    }
    let others =
        ["", "PROXY TCP4 198.51.100.4 1.1.1.1 1 2\r\n", "PROXY TCP4 203.0.113.8 1.1.1.1 1 2\r\n"];
    let others =
        others.map(|header| [header; 2]).into_iter().flatten().chain(["", "PROXY UNKNOWN\r\n"]);
    for header in others {
        let mut client = begun(&proxy, Over::Plain, header.as_bytes()).await;
        held.push((proxy.open(&mut client, &upstream).await.1, client));
    }
    held.remove(0);
    within("room for one more", async {
        while begun(&proxy, Over::Plain, V2).await.get("/page").await.status() == 429 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A reload changes what new connections begin with.
#[tokio::test]
async fn a_reload_turns_headers_on_and_off() {
    let (proxy, upstream) = start(&rule("off")).await;
    let mut client = begun(&proxy, Over::Plain, V1).await;
    assert_eq!(client.response().await.status(), 400);
    proxy.edit("proxy_protocol = \"off\"", "proxy_protocol = \"require\"");
    assert!(proxy.reload().await.contains("reloaded"));
    let mut client = begun(&proxy, Over::Plain, V1).await;
    client.send(GET).await;
    let head = answered(&upstream, &mut client).await;
    assert_eq!(head.field("x-forwarded-for"), Some("203.0.113.7"));
    proxy.edit("proxy_protocol = \"require\"", "proxy_protocol = \"off\"");
    assert!(proxy.reload().await.contains("reloaded"));
    let mut client = proxy.plain().await;
    client.send(GET).await;
    let head = answered(&upstream, &mut client).await;
    assert_eq!(head.field("x-forwarded-for"), Some("10.9.9.9, 127.0.0.1"));
}

/// curl's own header, before http and https; and curl without one.
#[tokio::test]
async fn curl_sends_a_header() {
    let proxy = Setup::builtin().listener(&rule("require")).start().await;
    for over in [Over::Plain, Over::Tls] {
        let url = proxy.url(over, "/").replace("localhost", "127.0.0.1");
        let page = curl(&["-k", "--haproxy-protocol", &url]).succeeded().await;
        assert!(page.contains("<html"), "{page}");
        let mut without = curl(&["-k", &url]);
        assert_ne!(without.exited().await, 0, "{}", without.stdout.text());
    }
}

/// Starts a proxy in front of `upstream` that tells it for whom it connects.
async fn telling(version: &str, upstream: &Upstream, keys: &str) -> Proxy {
    Setup::to(upstream.endpoint())
        .listener(&rule("accept"))
        .upstream(&format!("send_proxy_protocol = \"{version}\"\n{keys}"))
        .start()
        .await
}

/// What is told to an upstream: a line of version 1, or as many bytes as version 2 has for this length of addresses.
async fn told(leg: &mut Wire, version: &str, addresses: usize) -> Vec<u8> {
    match version {
        "v1" => leg.until("\r\n").await,
        _ => leg.take(16 + addresses).await,
    }
}

/// Version 2 without what follows its addresses.
fn without_tlvs(header: &[u8]) -> Vec<u8> {
    let mut bytes = header[..28].to_vec();
    bytes[15] = 12;
    bytes
}

/// An upstream is told first for whom a connection is, and where that client connected to: as was announced to us, also
/// where that was in the other version. Requests and sessions alike (§2 of the specification, HAProxy's `send-proxy`).
#[tokio::test]
async fn an_upstream_is_told_the_announced_addresses() {
    for (version, wanted) in [("v1", V1.to_vec()), ("v2", without_tlvs(V2))] {
        let upstream = Upstream::raw().await;
        let proxy = telling(version, &upstream, "").await;
        for over in [Over::Plain, Over::Tls] {
            for header in [V1, V2] {
                let mut client = begun(&proxy, over, header).await;
                client.send(GET).await;
                let mut leg = upstream.accept().await;
                assert_eq!(told(&mut leg, version, 12).await, wanted);
                assert_eq!(leg.head().await.field("x-forwarded-for"), Some("203.0.113.7"));
                leg.send(NO_CONTENT).await;
                assert_eq!(client.head().await.status(), Some(204));
                client.send(handshake("/")).await;
                let mut leg = upstream.accept().await;
                assert_eq!(told(&mut leg, version, 12).await, wanted);
                leg.accept().await;
                assert_eq!(client.head().await.status(), Some(101));
                leg.send("down").await;
                client.expect("down").await;
            }
        }
    }
}

/// Without an announcement, it is told the client's own address and which of ours it connected to, in IPv4 if that is
/// what it is, also on a listener for every address.
#[tokio::test]
async fn an_upstream_is_told_the_addresses_of_the_connection() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint())
        .listeners("\n[[listener]]\naddress = \"[::]:0\"")
        .upstream("send_proxy_protocol = \"v1\"")
        .start()
        .await;
    for (address, _) in &proxy.listeners {
        let to = std::net::SocketAddr::new([127, 0, 0, 1].into(), address.port());
        let tcp = tokio::net::TcpStream::connect(to).await.expect("the proxy listens");
        let from = tcp.local_addr().expect("a connected socket");
        let mut client = Wire::new(tcp);
        client.send(GET).await;
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port());
        upstream.accept().await.expect(line).await;
    }
}

/// A client of one family that connected to the other: version 1 has no word for it, and version 2 has both as IPv6, as
/// HAProxy does it.
#[tokio::test]
async fn an_upstream_is_told_of_mixed_families_as_haproxy_does() {
    let header = b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 56324 443\r\n";
    for version in ["v1", "v2"] {
        let upstream = Upstream::raw().await;
        let proxy = telling(version, &upstream, "").await;
        let mut client = begun(&proxy, Over::Plain, header).await;
        client.send(GET).await;
        let told = told(&mut upstream.accept().await, version, 36).await;
        if version == "v1" {
            assert_eq!(told, b"PROXY UNKNOWN\r\n");
        } else {
            assert_eq!(told[12..16], [0x21, 0x21, 0, 36]);
            assert_eq!(told[16..32], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 203, 0, 113, 7]);
            assert_eq!(told[48..], [0xDC, 0x04, 0x01, 0xBB]);
        }
    }
}

/// A connection that began with one client's address carries nothing of another's (§2: "MUST NOT implement this protocol
/// on multiplexed connections"), nor even that client's next request: it is closed after its answer.
#[tokio::test]
async fn connections_that_tell_of_a_client_are_not_shared() {
    let upstream = Upstream::raw().await;
    let proxy = telling("v1", &upstream, "").await;
    let clients = ["203.0.113.7", "203.0.113.8"];
    for client_address in clients {
        let line = format!("PROXY TCP4 {client_address} 192.0.2.1 1 443\r\n");
        let mut client = begun(&proxy, Over::Plain, line.as_bytes()).await;
        for _ in 0..2 {
            client.send(GET).await;
            let mut leg = upstream.accept().await;
            leg.expect(&line).await;
            leg.head().await;
            leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            assert_eq!(client.response().await.body, "ok");
            leg.expect_end().await;
        }
    }
    // It is said by the configuration of now: what was not kept then, is from now on.
    proxy.edit("send_proxy_protocol = \"v1\"", "");
    assert!(proxy.reload().await.contains("reloaded"));
    let mut client = proxy.plain().await;
    client.send(GET).await;
    let mut leg = upstream.accept().await;
    for _ in 0..2 {
        assert_eq!(leg.head().await.first(), "GET / HTTP/1.1");
        leg.send(NO_CONTENT).await;
        assert_eq!(client.head().await.status(), Some(204));
        client.send(GET).await;
    }
    // And the other way round: what was kept is not used any more.
    leg.head().await;
    leg.send(NO_CONTENT).await;
    assert_eq!(client.head().await.status(), Some(204));
    proxy.edit("[upstream.app]", "[upstream.app]\nsend_proxy_protocol = \"v1\"");
    assert!(proxy.reload().await.contains("reloaded"));
    client.send(GET).await;
    upstream.accept().await.until("PROXY TCP4 127.0.0.1 127.0.0.1 ").await;
}

/// The header goes before TLS.
#[tokio::test]
async fn an_https_upstream_is_told_before_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    let authority = Authority::new();
    let tls = TlsAcceptor::from(Arc::new(authority.issue(&["localhost"]).server()));
    let proxy = Setup::to(&format!("https://localhost:{port}"))
        .listener(&rule("accept"))
        .upstream("send_proxy_protocol = \"v2\"\nverify = false")
        .start()
        .await;
    for request in [GET.to_owned(), handshake("/")] {
        let mut client = begun(&proxy, Over::Plain, V1).await;
        client.send(&request).await;
        let accepted = within("a connection from the proxy", listener.accept()).await;
        let mut tcp = accepted.expect("a connection").0;
        let mut header = [0; 28];
        let read = tokio::io::AsyncReadExt::read_exact(&mut tcp, &mut header);
        within("the header", read).await.expect("the header");
        assert_eq!(header.to_vec(), without_tlvs(V2));
        let mut leg = Wire::new(within("TLS", tls.accept(tcp)).await.expect("TLS comes next"));
        assert_eq!(leg.head().await.first(), "GET / HTTP/1.1");
        leg.send(NO_CONTENT).await;
        assert_eq!(client.head().await.status(), Some(204));
    }
}

/// A Unix socket is told as well.
#[tokio::test]
async fn a_unix_upstream_is_told() {
    for version in ["v1", "v2"] {
        let upstream = Upstream::unix();
        let proxy = telling(version, &upstream, "").await;
        let mut client = begun(&proxy, Over::Plain, V1).await;
        client.send(GET).await;
        let mut leg = upstream.accept().await;
        let wanted = if version == "v1" { V1.to_vec() } else { without_tlvs(V2) };
        assert_eq!(told(&mut leg, version, 12).await, wanted);
        leg.head().await;
    }
}

/// A request that is asked again, since the first endpoint hung up, begins with the header there, too.
#[tokio::test]
async fn a_second_endpoint_is_told_as_well() {
    let (first, second) = (Upstream::raw().await, Upstream::raw().await);
    let proxy = Setup::to_all(&[first.endpoint(), second.endpoint()])
        .upstream("send_proxy_protocol = \"v1\"\nbalance = \"round_robin\"")
        .start()
        .await;
    let mut client = proxy.plain().await;
    client.send(GET).await;
    let mut leg = first.accept().await;
    leg.until("PROXY TCP4 127.0.0.1 127.0.0.1 ").await;
    drop(leg);
    let mut leg = second.accept().await;
    leg.until("PROXY TCP4 127.0.0.1 127.0.0.1 ").await;
    leg.until("\r\n").await;
    leg.head().await;
    leg.send(NO_CONTENT).await;
    assert_eq!(client.head().await.status(), Some(204));
}
