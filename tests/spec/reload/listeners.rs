//! Listeners over a reload: what stays keeps its sockets, what is new is open, what is gone is shut to newcomers.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{append, goes_on, opened, reloaded, session};
use crate::support::certificates::trusting_file;
use crate::support::{Over, Proxy, Served, Setup, Wire, eventually, within};

/// An address that nobody listens on. Each test has a loopback address of its own, so that no other comes by a port
/// that was free a moment ago.
pub(super) fn free_address(test: u8) -> SocketAddr {
    let ip = Ipv4Addr::new(127, 77, std::process::id() as u8, test);
    let socket = std::net::TcpListener::bind((ip, 0)).expect("127.0.0.0/8 is all loopback");
    socket.local_addr().expect("a bound socket")
}

fn listener(address: SocketAddr) -> String {
    format!("[[listener]]\naddress = \"{address}\"\n")
}

async fn connected(address: SocketAddr) -> Wire {
    let stream = within("a connection", TcpStream::connect(address)).await;
    Wire::new(stream.unwrap_or_else(|error| panic!("{address}: {error}")))
}

/// The sockets that listen on an IPv4 address, by their inodes: proc(5), `/proc/net/tcp`.
fn sockets(address: SocketAddr) -> Vec<u64> {
    let IpAddr::V4(ip) = address.ip() else { panic!("the table is for IPv4") };
    let place = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has /proc");
    let mut found: Vec<u64> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[1] == place && fields[3] == "0A")
        .map(|fields| fields[9].parse().expect("an inode is a number"))
        .collect();
    found.sort_unstable();
    found
}

/// A listener that stays keeps its very sockets, and so whoever waits to be accepted; one that comes has its own.
#[tokio::test]
async fn an_unchanged_listener_keeps_its_sockets() {
    let proxy = Setup::builtin().start().await;
    let both = [Over::Plain, Over::Tls].map(|over| proxy.address(over));
    let before = both.map(sockets);
    assert!(before.iter().all(|sockets| !sockets.is_empty()), "{before:?}");
    let new = free_address(1);
    append(&proxy, &listener(new));
    assert!(reloaded(&proxy).await.contains("1 listener opened"));
    assert_eq!(both.map(sockets), before);
    assert_eq!(connected(new).await.get("/").await.status(), 200);
    let fresh = sockets(new);
    proxy.edit(&listener(new), &format!("{}redirect_https = true\n", listener(new)));
    reloaded(&proxy).await;
    assert_eq!(sockets(new), fresh);
    assert_eq!(connected(new).await.get("/").await.status(), 308);
}

/// A listener that is gone takes nobody in any more, while the sessions that came by it go on.
#[tokio::test]
async fn a_removed_listener_is_shut_to_newcomers_only() {
    let echo = Served::echo().await;
    let going = free_address(2);
    let proxy = Setup::to(echo.endpoint()).also(&listener(going)).start().await;
    let mut client = opened(connected(going).await, "/").await;
    let mut idle = connected(going).await;
    assert_ne!(idle.get("/").await.status(), 404);
    proxy.edit(&listener(going), "");
    assert!(reloaded(&proxy).await.contains("1 listener shut"));
    eventually("the sockets to be closed", || sockets(going).is_empty()).await;
    let refused = TcpStream::connect(going).await.expect_err("nobody listens there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    goes_on(&mut client).await;
    assert_ne!(idle.get("/").await.status(), 404);
    goes_on(&mut session(&proxy, "/").await).await;
}

/// One that was shut can be opened again at the same place, though its workers may not have left it yet.
#[tokio::test]
async fn a_listener_that_comes_back_is_open() {
    let again = free_address(3);
    let proxy = Setup::builtin().also(&listener(again)).start().await;
    for _ in 0..20 {
        proxy.edit(&listener(again), "");
        reloaded(&proxy).await;
        append(&proxy, &listener(again));
        reloaded(&proxy).await;
        assert_eq!(connected(again).await.get("/").await.status(), 200);
    }
}

/// A listener that is to speak TLS from now on does so on the same sockets: nobody is refused meanwhile, and who came
/// before it speaks as they began.
#[tokio::test]
async fn a_listener_that_turns_to_tls_refuses_nobody() {
    let proxy = Setup::builtin().start().await;
    let address = proxy.address(Over::Plain);
    let before = sockets(address);
    let mut early = connected(address).await;
    assert_eq!(early.get("/").await.status(), 200);
    let is_over = AtomicBool::new(false);
    let coming = async {
        let mut answers = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            answers.push(connected(address).await.get("/").await.status());
        }
        answers
    };
    let turning = async {
        let plain = "address = \"127.0.0.1:0\"\n";
        proxy.edit(plain, &format!("{plain}tls = true\n"));
        reloaded(&proxy).await;
        assert!(tls_works(&proxy, address).await);
        is_over.store(true, Ordering::Relaxed);
    };
    let (answers, ()) = within("both", futures_util::future::join(coming, turning)).await;
    // Plain HTTP is answered with 400 by a listener that speaks TLS.
    let turned = answers.iter().position(|status| *status == 400).unwrap_or(answers.len());
    assert!(answers[..turned].iter().all(|status| *status == 200), "{answers:?}");
    assert!(answers[turned..].iter().all(|status| *status == 400), "{answers:?}");
    connected(address).await.get("/").await.refused(400, "https");
    assert_eq!(early.get("/").await.status(), 200);
    assert_eq!(sockets(address), before);
}

async fn tls_works(proxy: &Proxy, address: SocketAddr) -> bool {
    let client = std::sync::Arc::new(trusting_file(&proxy.file("certs/ca.pem")));
    let tcp = within("a connection", TcpStream::connect(address)).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a good name");
    let secured = within("a TLS handshake", TlsConnector::from(client).connect(name, tcp)).await;
    Wire::new(secured.expect("it speaks TLS")).get("/").await.status() == 200
}
