//! `source_addresses`: where upstreams are dialled from, and what becomes of it when no port is left there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::namespaces::{can_make_namespaces, enter_a_fresh_one};
use crate::support::wire::handshake;
use crate::support::{Over, Proxy, Served, Setup, Wire, within};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A listener, and the endpoint by which it is named.
async fn listener(at: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind(at).await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, format!("http://{address}"))
}

async fn accepted(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let accepted = within("a connection from the proxy", listener.accept()).await;
    accepted.expect("a connection")
}

/// Opens a session, and returns both legs and the address from which the upstream's was dialled.
async fn session(mut client: Wire, listener: &TcpListener) -> (Wire, Wire, IpAddr) {
    client.send(handshake("/")).await;
    let (leg, from) = accepted(listener).await;
    let mut leg = Wire::new(leg);
    leg.accept().await;
    assert_eq!(client.head().await.status(), Some(101));
    (client, leg, from.ip())
}

/// Each address has its turn, for sessions and requests; a reload gives others their turn.
#[tokio::test]
async fn upstreams_are_dialled_from_each_address_in_turn() {
    let (listener, endpoint) = listener("127.0.0.1:0").await;
    let addresses = "source_addresses = [\"127.0.0.2\", \"127.0.0.3\"]";
    let proxy = Setup::to(&endpoint).upstream(addresses).start().await;
    let mut seen: HashMap<IpAddr, usize> = HashMap::new();
    for _ in 0..3 {
        let (_, _, from) = session(proxy.plain().await, &listener).await;
        *seen.entry(from).or_default() += 1;
        let mut client = proxy.connect(Over::Tls).await;
        client.send(GET).await;
        let (leg, from) = accepted(&listener).await;
        *seen.entry(from.ip()).or_default() += 1;
        let mut leg = Wire::new(leg);
        leg.head().await;
        leg.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.head().await.status(), Some(204));
    }
    let ip = |last| IpAddr::from([127, 0, 0, last]);
    assert_eq!(seen, HashMap::from([(ip(2), 3), (ip(3), 3)]));
    proxy.edit(addresses, "source_addresses = [\"127.0.0.4\"]");
    assert!(proxy.reload().await.contains("reloaded"));
    let (_, _, from) = session(proxy.plain().await, &listener).await;
    assert_eq!(from, ip(4));
}

/// Of the places that a name leads to, those of the other family are passed over.
#[tokio::test]
async fn a_name_is_dialled_at_the_addresses_of_the_same_family() {
    let (listener, endpoint) = listener("127.0.0.1:0").await;
    let proxy = Setup::to(&endpoint.replace("127.0.0.1", "localhost"))
        .upstream("source_addresses = [\"127.0.0.2\"]")
        .start()
        .await;
    let (_, _, from) = session(proxy.plain().await, &listener).await;
    assert_eq!(from, IpAddr::from([127, 0, 0, 2]));
}

/// The same by IPv6, where the machine has it.
#[tokio::test]
async fn upstreams_are_dialled_from_ipv6_addresses() {
    if TcpListener::bind("[::1]:0").await.is_err() {
        eprintln!("no IPv6 here: nothing was shown");
        return;
    }
    let (listener, endpoint) = listener("[::1]:0").await;
    let addresses = "source_addresses = [\"127.0.0.2\", \"::1\"]";
    let proxy = Setup::to(&endpoint).upstream(addresses).start().await;
    for _ in 0..2 {
        let (_, _, from) = session(proxy.plain().await, &listener).await;
        assert_eq!(from, IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    }
}

/// An address that this machine does not have is passed over as long as another one will do; if none will, the client
/// gets 502, and the log says what to mend.
#[tokio::test]
async fn an_address_that_is_not_ours_is_named() {
    let (listener, endpoint) = listener("127.0.0.1:0").await;
    let addresses = "source_addresses = [\"192.0.2.1\", \"127.0.0.2\"]";
    let proxy = Setup::to(&endpoint).upstream(addresses).start().await;
    for _ in 0..3 {
        let (_, _, from) = session(proxy.plain().await, &listener).await;
        assert_eq!(from, IpAddr::from([127, 0, 0, 2]));
    }
    proxy.edit(addresses, "source_addresses = [\"192.0.2.1\"]");
    assert!(proxy.reload().await.contains("reloaded"));
    proxy.plain().await.get("/").await.refused(502, "upstream");
    let said = proxy.says("ERROR").await;
    for part in [&*endpoint, "from 192.0.2.1", "upstream.app.source_addresses"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

/// Gives this test, and what it starts, a network of its own in which connections have only so many local ports.
async fn with_few_ports(name: &str, ports: &str) -> bool {
    if !can_make_namespaces().await {
        eprintln!("no network namespaces without root and iproute2: nothing was shown");
        return false;
    }
    enter_a_fresh_one(name).await;
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", ports).expect("root may write it");
    true
}

/// A proxy whose own port is not one of the few.
fn out_of_the_range(endpoints: &[&str], keys: &str) -> Setup {
    Setup::whole(&format!(
        "[[listener]]\naddress = \"127.0.0.1:8080\"\n[upstream.app]\nendpoints = {endpoints:?}\n{keys}\n\
         [[route]]\nupstream = \"app\"\n"
    ))
}

/// Nor is that of its clients, of which each has a number.
async fn client(proxy: &Proxy, number: u16) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 20_000 + number).into()).expect("nobody else is here");
    let connecting = socket.connect(proxy.address(Over::Plain));
    Wire::new(within("a connection", connecting).await.expect("the proxy listens"))
}

/// Checks that the log names the endpoint and the way out, and that the client's record has it as well.
async fn says_that_no_port_is_left(proxy: &Proxy, endpoint: &str) {
    let said = proxy.says("no local port is left").await;
    let record = proxy.record(|record| record["status"] == 502).await;
    let reason = record["reason"].as_str().expect("a reason");
    for part in [endpoint, "add a source address to upstream.app.source_addresses"] {
        assert!(said.contains(part) && said.contains("ERROR"), "{part} in {said}");
        assert!(reason.contains(part), "{part} in {reason}");
    }
}

/// With 20 local ports and two addresses there are 40 sessions with one endpoint; the next one gets 502, and those that
/// end make room at the address they had (`ip_local_port_range` in tcp(7)).
#[tokio::test]
async fn when_the_ports_of_one_address_are_used_up_the_next_one_is_taken() {
    if !with_few_ports("few", "40000 40019").await {
        return;
    }
    let (listener, endpoint) = listener("127.0.0.1:9000").await;
    let addresses = "source_addresses = [\"127.0.0.2\", \"127.0.0.3\"]";
    let proxy = out_of_the_range(&[&endpoint], addresses).start().await;
    let mut sessions = Vec::new();
    let mut seen: HashMap<IpAddr, usize> = HashMap::new();
    for number in 0..40 {
        let session = session(client(&proxy, number).await, &listener).await;
        *seen.entry(session.2).or_default() += 1;
        sessions.push(session);
    }
    let ip = |last| IpAddr::from([127, 0, 0, last]);
    assert_eq!(seen, HashMap::from([(ip(2), 20), (ip(3), 20)]));
    client(&proxy, 40).await.get("/").await.refused(502, "upstream");
    says_that_no_port_is_left(&proxy, &endpoint).await;
    let (ending, held): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|s| s.2 == ip(3));
    for (_client, leg, _) in ending {
        // A reset, since a port whose connection was closed in order rests for a minute (RFC 9293 §3.4.1).
        leg.reset();
    }
    within("all of them to end", async {
        while proxy.records().iter().filter(|record| record["event"] == "end").count() < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Every other time it is the turn of the one that still has none.
    let mut room = Vec::new();
    for number in 41..61 {
        room.push(session(client(&proxy, number).await, &listener).await);
    }
    assert!(room.iter().all(|session| session.2 == ip(3)));
    assert_eq!(held.len(), 20);
}

/// Without source addresses, the same is said when the system has no port left.
#[tokio::test]
async fn when_the_system_has_no_port_left_the_log_says_so() {
    if !with_few_ports("none", "40000 40019").await {
        return;
    }
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let mut held = Vec::new();
    let refused = loop {
        // The clients have the same few ports, for either listener.
        let over = if held.len() < 8 { Over::Plain } else { Over::Tls };
        let mut client = proxy.connect(over).await;
        match client.ask(&handshake("/")).await {
            Some(101) => held.push(client),
            other => break other,
        }
    };
    assert_eq!(refused, Some(502));
    assert!((10..=20).contains(&held.len()), "{} sessions", held.len());
    says_that_no_port_is_left(&proxy, upstream.endpoint()).await;
}

/// A place that cannot be reached, for want of an address here and not of a port, is not said to want a port: connect(2)
/// has the same error for both.
#[tokio::test]
async fn a_family_that_this_machine_does_not_have_is_no_want_of_ports() {
    if !with_few_ports("family", "40000 40999").await {
        return;
    }
    for interface in ["all", "lo"] {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        // A machine that was booted without IPv6 has no such file.
        let _ = std::fs::write(path, "1");
    }
    let proxy = Proxy::to("http://[::1]:9000").await;
    proxy.plain().await.get("/").await.refused(502, "upstream");
    let record = proxy.record(|record| record["status"] == 502).await;
    let reason = record["reason"].as_str().expect("a reason");
    assert!(reason.contains("cannot connect to http://[::1]:9000: "), "{reason}");
    assert!(!proxy.stderr().contains("port is left"), "{}", proxy.stderr());
}

/// A port is in use only for connections to the same endpoint (`IP_BIND_ADDRESS_NO_PORT` in ip(7)): from one address with
/// 20 ports, 20 sessions with each of two endpoints, and the ports are still there for others.
#[tokio::test]
async fn each_endpoint_has_all_the_ports_of_an_address() {
    if !with_few_ports("shared", "40000 40019").await {
        return;
    }
    let (first, endpoint) = listener("127.0.0.1:9000").await;
    let (second, other) = listener("127.0.0.1:9001").await;
    let keys = "balance = \"round_robin\"\nsource_addresses = [\"127.0.0.2\"]";
    let proxy = out_of_the_range(&[&endpoint, &other], keys).start().await;
    let mut sessions = Vec::new();
    for number in 0..40 {
        let mut client = client(&proxy, number).await;
        client.send(handshake("/")).await;
        let accepted = within("a connection from the proxy", async {
            tokio::select! { accepted = first.accept() => accepted, accepted = second.accept() => accepted }
        });
        let mut leg = Wire::new(accepted.await.expect("a connection").0);
        leg.accept().await;
        assert_eq!(client.head().await.status(), Some(101));
        sessions.push((client, leg));
    }
    // Others, who leave the choice to the system, still have the ports.
    let elsewhere = TcpListener::bind("127.0.0.1:9002").await.expect("nobody else is here");
    let connecting = TcpStream::connect(elsewhere.local_addr().expect("a bound socket"));
    within("a connection", connecting).await.expect("a port is left for this");
}
