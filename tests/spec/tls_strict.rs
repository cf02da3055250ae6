//! TLS where it must not give way: old versions, weak suites, renegotiation, compression, odd records, names that no
//! certificate is for, and answers that are cut short. Bytes are written by hand where no client would send them.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::certificates::{Authority, speaking, trusting_anyone, written};
use crate::support::programs::Program;
use crate::support::{Over, Proxy, Setup, Upstream, eventually, within};

/// A ClientHello of a client that speaks no more than `version`, with these suites and compression methods, and all else
/// that an ECDHE handshake on P-256 needs (RFC 5246 §7.4.1.2, RFC 8422 §5.1).
fn client_hello(version: u16, suites: &[u16], compression: &[u8]) -> Vec<u8> {
    let extensions: &[u8] = &[
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..], // supported_groups: x25519, secp256r1
        &[0, 11, 0, 2, 1, 0],                   // ec_point_formats: uncompressed
        &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1], // signature_algorithms: ECDSA, RSA-PSS, RSA with SHA-256
    ]
    .concat();
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let body = [
        &version.to_be_bytes()[..],
        &[7; 32],
        &[0],
        &(suites.len() as u16).to_be_bytes(),
        &suites,
        &[compression.len() as u8],
        compression,
        &(extensions.len() as u16).to_be_bytes(),
        extensions,
    ]
    .concat();
    let handshake = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
    record(22, &handshake)
}

/// A TLS record that is not encrypted.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &(content.len() as u16).to_be_bytes(), content].concat()
}

/// What the proxy answers to a ClientHello: the type of its first record and the content.
async fn answer(proxy: &Proxy, hello: &[u8]) -> (u8, Vec<u8>) {
    let mut tcp = proxy.tcp(Over::Tls).await;
    tcp.write_all(hello).await.expect("the proxy reads");
    let mut header = [0; 5];
    within("an answer", tcp.read_exact(&mut header)).await.expect("an answer");
    let mut content = vec![0; u16::from_be_bytes([header[3], header[4]]).into()];
    within("the rest of it", tcp.read_exact(&mut content)).await.expect("the rest of it");
    (header[0], content)
}

/// The content of a fatal alert record.
fn fatal(alert: AlertDescription) -> (u8, Vec<u8>) {
    (21, vec![2, alert.into()])
}

const ECDHE_ECDSA_AES128_GCM: u16 = 0xC02B;

/// Puts in: ClientHellos of SSL 3.0, TLS 1.0 and 1.1, and of 1.2 with the same suites. Out: protocol_version for the old
/// ones (RFC 8996 §4 and §5, RFC 7568 §3), a ServerHello for 1.2.
#[tokio::test]
async fn versions_before_1_2_are_refused() {
    let proxy = Setup::builtin().start().await;
    // ECDHE-ECDSA with AES-128 and SHA-1, which the old versions knew, and one that they did not.
    let suites = [0xC009, 0xC013, 0x002F, ECDHE_ECDSA_AES128_GCM];
    for version in [0x0300, 0x0301, 0x0302] {
        let answer = answer(&proxy, &client_hello(version, &suites, &[0])).await;
        assert_eq!(answer, fatal(AlertDescription::ProtocolVersion), "{version:x}");
    }
    let (kind, content) = answer(&proxy, &client_hello(0x0303, &suites, &[0])).await;
    assert_eq!((kind, content[0], &content[4..6]), (22, 2, &[3, 3][..]));
}

/// Puts in: ClientHellos of TLS 1.2 that offer one weak suite each: without forward secrecy, without authentication,
/// without encryption, export-grade, RC4, 3DES, and CBC with its MAC. Out: handshake_failure for each (RFC 9325 §4.1,
/// RFC 7465 §2); Sweet32 (CVE-2016-2183), FREAK (CVE-2015-0204), Logjam (CVE-2015-4000), Lucky 13 (CVE-2013-0169).
#[tokio::test]
async fn weak_suites_are_refused() {
    let proxy = Setup::builtin().start().await;
    let weak = [
        0x0000, 0x0001, 0x0002, // NULL
        0x0003, 0x0006, 0x0008, 0x0014, // export
        0x0004, 0x0005, 0xC007, 0xC011, // RC4
        0x000A, 0x0016, 0xC008, 0xC012, // 3DES
        0x0018, 0x001B, 0x0034, 0xC018, // anonymous
        0x002F, 0x0035, 0x009C, 0x009D, 0x003C, // RSA key exchange
        0x0033, 0x0039, 0x009E, 0x009F, // DHE
        0xC009, 0xC00A, 0xC013, 0xC014, 0xC023, 0xC027, // CBC
    ];
    for suite in weak {
        let answer = answer(&proxy, &client_hello(0x0303, &[suite], &[0])).await;
        assert_eq!(answer, fatal(AlertDescription::HandshakeFailure), "{suite:04x}");
    }
}

/// Puts in: a client that offers DEFLATE for its records besides none, and one that offers nothing else. Out: none is
/// chosen, and the other is refused: CRIME, CVE-2012-4929 (RFC 9325 §3.3).
#[tokio::test]
async fn tls_compresses_nothing() {
    let proxy = Setup::builtin().start().await;
    let (kind, hello) =
        answer(&proxy, &client_hello(0x0303, &[ECDHE_ECDSA_AES128_GCM], &[1, 0])).await;
    // After type, length, version, random and the id of the session, with its length: suite and compression.
    let after_id = 4 + 2 + 32 + 1 + usize::from(hello[38]);
    assert_eq!((kind, hello[0]), (22, 2));
    assert_eq!(&hello[after_id..after_id + 3], [0xC0, 0x2B, 0]);
    let (kind, alert) =
        answer(&proxy, &client_hello(0x0303, &[ECDHE_ECDSA_AES128_GCM], &[1])).await;
    assert_eq!((kind, alert[0]), (21, 2), "{alert:?}");
}

/// Puts in: openssl's client on TLS 1.2, which asks to negotiate anew. Out: it is told that there is no renegotiation, and
/// ends: CVE-2009-3555, CVE-2011-1473 (RFC 9325 §3.5).
#[tokio::test]
async fn nothing_is_negotiated_anew() {
    let proxy = Setup::builtin().start().await;
    let mut client = Program::start(Command::new("openssl").args([
        "s_client",
        "-connect",
        &proxy.address(Over::Tls).to_string(),
        "-tls1_2",
    ]));
    client.stdout.containing("Verify return code").await;
    client.type_line("R").await;
    client.stderr.containing("RENEGOTIATING").await;
    assert_eq!(client.exited().await, 1);
    assert!(client.stderr.text().contains("no renegotiation"), "{}", client.stderr.text());
}

/// The bytes of one connection's TLS, as a client makes them that is driven by hand.
struct ByHand {
    tls: ClientConnection,
    tcp: TcpStream,
}

impl ByHand {
    async fn connect(proxy: &Proxy, client: ClientConfig) -> ByHand {
        let name = ServerName::try_from("localhost").expect("a good name");
        let tls = ClientConnection::new(Arc::new(client), name).expect("a good configuration");
        ByHand { tls, tcp: proxy.tcp(Over::Tls).await }
    }

    /// What TLS has to send.
    fn outgoing(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).expect("a vector takes everything");
        }
        bytes
    }

    /// Reads once, and gives it to TLS.
    async fn receive(&mut self) -> Result<usize, rustls::Error> {
        let mut chunk = [0; 16 * 1024];
        let read = within("an answer", self.tcp.read(&mut chunk)).await.unwrap_or(0);
        self.tls.read_tls(&mut &chunk[..read]).expect("a slice can be read");
        self.tls.process_new_packets().map(|_| read)
    }

    /// Finishes the handshake, asks for `/`, and returns the beginning of the answer.
    async fn get(mut self) -> String {
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        self.tls.writer().write_all(request).expect("there is no limit on so little");
        let mut answer = [0; 12];
        loop {
            let outgoing = self.outgoing();
            self.tcp.write_all(&outgoing).await.expect("the proxy reads");
            if self.tls.reader().read(&mut answer).is_ok_and(|read| read == answer.len()) {
                return String::from_utf8_lossy(&answer).into_owned();
            }
            assert!(self.receive().await.expect("good records") > 0, "the proxy hung up");
        }
    }
}

/// Puts in: a ClientHello in as many records as it has bytes (some 1,500), all at once and each in a write of its own.
/// Out: the handshake succeeds (RFC 8446 §5.1 lets messages be fragmented so), and no connection stays behind.
#[tokio::test]
async fn a_client_hello_in_records_of_one_byte_is_understood() {
    let proxy = Setup::builtin().start().await;
    for version in [&TLS12, &TLS13] {
        for is_trickled in [false, true] {
            let mut client = ByHand::connect(&proxy, speaking(version)).await;
            client.tcp.set_nodelay(true).expect("a connected socket takes options");
            let hello = client.outgoing();
            assert_eq!(usize::from(u16::from_be_bytes([hello[3], hello[4]])), hello.len() - 5);
            let records: Vec<_> = hello[5..].iter().map(|byte| record(22, &[*byte])).collect();
            if is_trickled {
                for record in records {
                    client.tcp.write_all(&record).await.expect("the proxy reads");
                }
            } else {
                client.tcp.write_all(&records.concat()).await.expect("the proxy reads");
            }
            assert_eq!(client.get().await, "HTTP/1.1 200");
        }
    }
    within("the connections to be given back", async {
        while proxy.told("GET", "/status").await["connections"] != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Puts in: a good ClientHello, and after it what is no TLS: HTTP, noise, an empty record, one of impossible length, one
/// that cannot be opened. Out: the connection is closed, most often after a fatal alert, and nothing of it is kept;
/// somebody else is served.
#[tokio::test]
async fn garbage_after_a_client_hello_ends_the_connection() {
    let proxy = Setup::builtin().start().await;
    assert_eq!(proxy.connect(Over::Tls).await.get("/").await.status(), 200);
    let before = proxy.descriptors();
    let sealed = record(23, &[0x5a; 32]);
    let huge = [&[23, 3, 3, 0xFF, 0xFF][..], &[0; 64]].concat();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xFF; 64], &sealed, &huge] {
        for version in [&TLS12, &TLS13] {
            let mut client = ByHand::connect(&proxy, speaking(version)).await;
            let hello = client.outgoing();
            client.tcp.write_all(&[&hello, garbage].concat()).await.expect("the proxy reads");
            let mut rest = Vec::new();
            let _ = within("the proxy to hang up", client.tcp.read_to_end(&mut rest)).await;
        }
    }
    eventually("the descriptors to be given back", || proxy.descriptors() <= before).await;
    assert_eq!(proxy.connect(Over::Tls).await.get("/").await.status(), 200);
    let (_, metrics) = proxy.ask("GET", "/metrics").await;
    let failures = metrics.lines().filter(|line| line.contains("tls_handshake_failures_total{"));
    let failures: u64 =
        failures.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(failures, 10, "{metrics}");
}

/// Puts in: an https endpoint whose answer has no length and ends with a FIN without a close_notify, which anybody on the
/// way can send (RFC 8446 §6.1, RFC 9112 §9.8); and one that ends in order. Out: the client is not told that the first
/// one is complete, and the log says that it broke off; the second is whole.
#[tokio::test]
async fn an_answer_that_is_cut_short_is_not_passed_off_as_whole() {
    let authority = Authority::new();
    let upstream = Upstream::tls(authority.issue(&["localhost"]).server()).await;
    let setup = Setup::to(upstream.endpoint()).upstream("ca = \"ca.pem\"");
    std::fs::write(setup.folder().join("ca.pem"), authority.pem()).expect("the folder is ours");
    let proxy = setup.start().await;
    for is_cut in [true, false] {
        let mut client = proxy.plain().await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n100 euros").await;
        assert!(client.head().await.is("transfer-encoding", "chunked"));
        assert_eq!(client.chunk().await.as_deref(), Some(&b"100 euros"[..]));
        if is_cut {
            leg.cut();
            assert_eq!(client.rest().await.0, b"", "no last chunk");
            let line = proxy.record(|record| record["status"] == 200).await;
            let reason = line["reason"].as_str().expect("it says why");
            assert!(reason.contains("broke off") && reason.contains("close_notify"), "{reason}");
        } else {
            leg.finish().await;
            assert_eq!(client.chunk().await, None);
        }
    }
}

/// The alert by which a client that asks for `name` is turned away, if it is.
async fn turned_away(proxy: &Proxy, name: &str) -> Option<AlertDescription> {
    let error = proxy.try_tls(&Arc::new(trusting_anyone()), name).await.err()?;
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => panic!("not by an alert: {error}"),
    }
}

/// Puts in: clients that ask for names, with `unknown_name` at its default, then at "refuse" by a reload. Out: a name that
/// no certificate is for gets the default one, then unrecognized_name; names that one is for, in any case and by a
/// wildcard, and clients that name nobody, are served either way (RFC 6066 §3, RFC 8446 §4.2.11.1).
#[tokio::test]
async fn a_name_that_no_certificate_is_for_may_be_refused() {
    let authority = Authority::new();
    let setup = Setup::builtin();
    let leaves = [("one", ["one.example"]), ("wild", ["*.two.example"])];
    let tables = leaves
        .map(|(name, names)| written(setup.folder(), name, &authority.issue(&names)))
        .concat();
    let proxy = setup.certificates(&tables).also("[tls]\nmin_version = \"1.2\"").start().await;
    let unknown = ["unknown.example", "two.example", "a.b.two.example"];
    // An address is never sent as a name.
    let known = ["one.example", "ONE.example", "a.two.example", "127.0.0.1"];
    for name in known.iter().chain(&unknown) {
        assert_eq!(turned_away(&proxy, name).await, None, "{name}");
    }
    proxy.edit("min_version = \"1.2\"", "unknown_name = \"refuse\"");
    assert!(proxy.reload().await.contains(" reloaded "));
    for name in known {
        assert_eq!(turned_away(&proxy, name).await, None, "{name}");
    }
    for name in unknown {
        assert_eq!(turned_away(&proxy, name).await, Some(AlertDescription::UnrecognisedName));
    }
}
