//! TLS towards clients: versions, names, keys, resumption, and what strangers send instead.

use std::future::poll_fn;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead as _, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::support::certificates::{
    Authority, openssl, speaking, trusting_anyone, trusting_file, written,
};
use crate::support::{Ending, Over, Proxy, Served, Setup, Wire, within};

/// Both versions that are safe today: RFC 9325 §3.1.1.
#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let upstream = Served::named("hello").await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let mut client = proxy.tls(speaking(version), "localhost").await;
        assert_eq!(client.get("/").await.body, "hello");
        proxy.record(|record| record["tls"] == name).await;
    }
}

/// `min_version = "1.3"` turns 1.2 away.
#[tokio::test]
async fn min_version_turns_older_clients_away() {
    let proxy = Setup::builtin().also("[tls]\nmin_version = \"1.3\"").start().await;
    assert!(proxy.try_tls(&Arc::new(speaking(&TLS12)), "localhost").await.is_err());
    assert_eq!(proxy.tls(speaking(&TLS13), "localhost").await.get("/").await.status(), 200);
}

/// A session over TLS 1.2 works as one over 1.3 does.
#[tokio::test]
async fn a_session_over_tls_1_2_works() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.tls(speaking(&TLS12), "localhost").await;
    let (_, mut leg) = proxy.open(&mut client, &upstream).await;
    client.send("up").await;
    leg.expect("up").await;
    leg.send("down").await;
    leg.finish().await;
    client.expect("down").await;
    client.expect_end().await;
}

/// A TLS record that is none (TLS application data of the right shape, and nonsense inside).
const GARBAGE: [u8; 37] = {
    let mut record = [0x5a; 37];
    (record[0], record[1], record[2], record[3], record[4]) = (23, 3, 3, 0, 32);
    record
};

/// A record that cannot be opened, or a fatal alert, ends the session and takes nothing with it of what came before
/// it in the same breath: RFC 8446 §6.2.
#[tokio::test]
async fn what_comes_right_before_a_fatal_alert_or_garbage_is_relayed() {
    let (proxy, upstream) = Proxy::scripted().await;
    for (version, alerts) in [(&TLS12, false), (&TLS12, true), (&TLS13, false), (&TLS13, true)] {
        let mut client = proxy.tls(speaking(version), "localhost").await;
        let (_, mut leg) = proxy.open(&mut client, &upstream).await;
        let mut sealed = client.seal("last words");
        sealed.extend(if alerts { client.alert(&GARBAGE) } else { GARBAGE.to_vec() });
        client.send_sealed(&sealed).await;
        leg.expect("last words").await;
        assert_eq!(leg.rest().await, (Vec::new(), Ending::Reset), "{version:?}, {alerts}");
    }
}

/// Only `http/1.1` is offered for now, and a client that wants only h2 learns so in the handshake: RFC 7301 §3.2.
#[tokio::test]
async fn alpn_offers_http_1_1_only() {
    let proxy = Setup::builtin().start().await;
    let mut client = trusting_anyone();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream =
        proxy.try_tls(&Arc::new(client.clone()), "localhost").await.expect("http/1.1 is common");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    client.alpn_protocols = vec![b"h2".to_vec()];
    assert!(proxy.try_tls(&Arc::new(client), "localhost").await.is_err());
}

/// The certificate that the proxy shows to a client that asks for `name`.
async fn shown(proxy: &Proxy, name: &str) -> Vec<u8> {
    let stream = proxy.try_tls(&Arc::new(trusting_anyone()), name).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

/// The certificate is chosen by the name asked for: exact before wildcard, the first for anything else (RFC 6066 §3).
#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    let authority = Authority::new();
    let (first, exact, wild) = (
        authority.issue(&["first.example"]),
        authority.issue(&["chat.example.com", "localhost"]),
        authority.issue(&["*.example.com"]),
    );
    let setup = Setup::builtin();
    let tables = [("first", &first), ("wild", &wild), ("exact", &exact)];
    let tables = tables.map(|(name, leaf)| written(setup.folder(), name, leaf)).join("\n");
    let proxy = setup.certificates(&tables).start().await;
    let wanted = [
        ("first.example", &first),
        ("chat.example.com", &exact),
        ("CHAT.example.com", &exact),
        ("localhost", &exact),
        ("other.example.com", &wild),
        ("a.b.example.com", &first),
        ("unknown.example", &first),
        ("127.0.0.1", &first),
    ];
    for (name, leaf) in wanted {
        assert!(shown(&proxy, name).await == leaf.der(), "{name} got another certificate");
    }
}

/// A request for a host that the certificate does not cover is misdirected: 421 (RFC 9110 §15.5.20).
#[tokio::test]
async fn a_host_outside_of_the_certificate_is_a_421() {
    let upstream = Served::named("hello").await;
    let authority = Authority::new();
    let setup = Setup::to(upstream.endpoint());
    let one = written(setup.folder(), "one", &authority.issue(&["one.example"]));
    let two = written(setup.folder(), "two", &authority.issue(&["two.example"]));
    let proxy = setup.certificates(&(one + &two)).start().await;
    let mut client = proxy.tls(authority.client(), "one.example").await;
    client.send("GET / HTTP/1.1\r\nHost: two.example\r\n\r\n").await;
    client.response().await.refused(421, "");
    client.send("GET / HTTP/1.1\r\nHost: one.example\r\n\r\n").await;
    assert_eq!(client.response().await.body, "hello");
}

/// RSA and ECDSA keys in the three formats that people have: PKCS#1, PKCS#8, SEC1.
#[tokio::test]
async fn every_common_key_format_is_read() {
    let setup = Setup::builtin();
    let folder = setup.folder();
    openssl(folder, "genrsa -out rsa8.key 2048");
    openssl(folder, "rsa -in rsa8.key -traditional -out rsa1.key");
    openssl(folder, "ecparam -name prime256v1 -genkey -noout -out sec1.key");
    openssl(folder, "pkcs8 -topk8 -nocrypt -in sec1.key -out ec8.key");
    openssl(folder, "ecparam -name secp384r1 -genkey -out with-parameters.key");
    let mut tables = String::new();
    for name in ["rsa8", "rsa1", "sec1", "ec8", "with-parameters"] {
        let subject = format!("-subj /CN={name} -addext subjectAltName=DNS:{name}.example");
        openssl(folder, &format!("req -x509 -key {name}.key -days 30 -out {name}.crt {subject}"));
        tables += &format!("[[certificate]]\nchain = \"{name}.crt\"\nkey = \"{name}.key\"\n");
    }
    let begins = |name: &str| std::fs::read_to_string(folder.join(name)).expect("openssl wrote it");
    assert!(begins("rsa1.key").starts_with("-----BEGIN RSA PRIVATE KEY"));
    assert!(begins("sec1.key").starts_with("-----BEGIN EC PRIVATE KEY"));
    assert!(begins("ec8.key").starts_with("-----BEGIN PRIVATE KEY"));
    let proxy = setup.certificates(&tables).start().await;
    for name in ["rsa8", "rsa1", "sec1", "ec8", "with-parameters"] {
        for version in [&TLS12, &TLS13] {
            let mut client = proxy.tls(speaking(version), &format!("{name}.example")).await;
            client.send(format!("GET / HTTP/1.1\r\nHost: {name}.example\r\n\r\n")).await;
            assert_eq!(client.response().await.status(), 200, "{name}");
        }
    }
}

/// A second connection resumes the first one's session, on whichever worker it arrives: RFC 8446 §2.2.
#[tokio::test]
async fn sessions_are_resumed() {
    let upstream = Served::named("hello").await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(speaking(version));
        let mut kinds = Vec::new();
        for _ in 0..6 {
            let stream = proxy.try_tls(&client, "localhost").await.expect("a handshake");
            kinds.push(stream.get_ref().1.handshake_kind());
            // The tickets of TLS 1.3 come with the first answer at the latest.
            assert_eq!(Wire::new(stream).get("/").await.body, "hello");
        }
        assert!(kinds[0] != Some(HandshakeKind::Resumed), "{kinds:?}");
        assert!(kinds[1..].iter().all(|kind| *kind == Some(HandshakeKind::Resumed)), "{kinds:?}");
    }
    proxy.record(|record| record["resumed"] == true && record["tls"] == "1.2").await;
    proxy.record(|record| record["resumed"] == true && record["tls"] == "1.3").await;
}

/// A client that waits for its ticket before it asks does not wait for the answer to what it never asked.
#[tokio::test]
async fn a_ticket_comes_unasked() {
    let proxy = Setup::builtin().start().await;
    let client = Arc::new(speaking(&TLS13));
    let mut stream = proxy.try_tls(&client, "localhost").await.expect("a handshake");
    let ticket = poll_fn(|cx| {
        let mut byte = [0];
        let read = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        assert!(read.is_pending(), "there is nothing to read: {read:?}");
        let tickets = stream.get_ref().1.tls13_tickets_received();
        if tickets > 0 { Poll::Ready(()) } else { Poll::Pending }
    });
    within("a ticket", ticket).await;
    assert_eq!(Wire::new(stream).get("/").await.status(), 200);
    let again = proxy.try_tls(&client, "localhost").await.expect("a handshake");
    assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
}

/// A client that connects and says nothing is let go at `handshake_timeout`, and so is one that stops half-way.
#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let proxy = Setup::builtin().also("[tls]\nhandshake_timeout = \"500ms\"").start().await;
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut tcp = proxy.tcp(Over::Tls).await;
        tcp.write_all(start).await.expect("the proxy reads");
        let mut rest = Vec::new();
        let _ = within("the proxy to hang up", tcp.read_to_end(&mut rest)).await;
    }
}

/// Neither garbage nor an early end on the TLS port disturbs anybody else.
#[tokio::test]
async fn garbage_on_the_tls_port_is_survived() {
    let proxy = Setup::builtin().start().await;
    for garbage in [
        &b"\x00\x01\x02\x03\xff\xfe garbage"[..],
        b"\x16\x03\x03\xff\xff",
        b"\x80\x2e\x01\x00\x02",
        b"",
    ] {
        let mut tcp = proxy.tcp(Over::Tls).await;
        tcp.write_all(garbage).await.expect("the proxy reads");
        tcp.shutdown().await.expect("the socket is ours");
        let mut rest = Vec::new();
        let _ = within("the proxy to hang up", tcp.read_to_end(&mut rest)).await;
    }
    assert_eq!(proxy.connect(Over::Tls).await.get("/").await.status(), 200);
}

/// Plain HTTP on the TLS port gets an answer that a person can read.
#[tokio::test]
async fn plain_http_on_the_tls_port_is_a_400() {
    let proxy = Setup::builtin().start().await;
    let mut client = Wire::new(proxy.tcp(Over::Tls).await);
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    client.response().await.refused(400, "https");
}

/// Starts with a certificate table and files made by `make`, which must fail and name the file.
async fn refuses_to_start(make: impl Fn(&std::path::Path) -> String, wanted: &[&str]) {
    let setup = Setup::builtin();
    let tables = make(setup.folder());
    let (code, stderr) = setup.certificates(&tables).fails().await;
    assert_eq!(code, 1, "{stderr}");
    for text in wanted {
        assert!(stderr.contains(text), "{text:?} is not in:\n{stderr}");
    }
}

/// A key that is another certificate's.
#[tokio::test]
async fn a_key_that_does_not_match_is_refused_at_start() {
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["one.example"]), authority.issue(&["two.example"]));
    let mixed = |folder: &std::path::Path| {
        let table = written(folder, "one", &one);
        std::fs::write(folder.join("one.key"), &two.key_pem).expect("the folder is ours");
        table
    };
    refuses_to_start(mixed, &["error: ", "one.key", "one.crt", "belong"]).await;
}

/// A certificate that is no longer valid.
#[tokio::test]
async fn an_expired_certificate_is_refused_at_start() {
    let old = Authority::new().issue_between(&["old.example"], 2001, 2002);
    refuses_to_start(|folder| written(folder, "old", &old), &["error: ", "old.crt", "2002"]).await;
}

/// One that is not valid yet.
#[tokio::test]
async fn a_certificate_of_the_future_is_refused_at_start() {
    let new = Authority::new().issue_between(&["new.example"], 2090, 2091);
    refuses_to_start(|folder| written(folder, "new", &new), &["error: ", "new.crt", "2090"]).await;
}

/// Files without a certificate, without a key, or not there.
#[tokio::test]
async fn files_without_a_certificate_or_key_are_refused_at_start() {
    let leaf = Authority::new().issue(&["a.example"]);
    let swapped = |folder: &std::path::Path| written(folder, "a", &leaf).replace("a.key", "a.crt");
    refuses_to_start(swapped, &["error: ", "a.crt", "key"]).await;
    let absent =
        |_: &std::path::Path| "[[certificate]]\nchain = \"no.crt\"\nkey = \"no.key\"\n".to_owned();
    refuses_to_start(absent, &["error: ", "no.crt"]).await;
}

/// The certificate made at the first start has an authority beside it, and keys that only the owner reads.
#[tokio::test]
async fn a_self_signed_certificate_is_made_with_private_keys() {
    let proxy = Setup::builtin().start().await;
    let mode = |name: &str| {
        std::fs::metadata(proxy.file(name)).expect("it was made").permissions().mode() & 0o777
    };
    assert_eq!((mode("certs/server.key"), mode("certs/ca.key")), (0o600, 0o600));
    for name in ["localhost", "127.0.0.1"] {
        let client = trusting_file(&proxy.file("certs/ca.pem"));
        proxy
            .try_tls(&Arc::new(client), name)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// A second start uses what is there.
#[tokio::test]
async fn a_self_signed_certificate_is_made_once() {
    const FILES: [&str; 4] =
        ["certs/server.crt", "certs/server.key", "certs/ca.pem", "certs/ca.key"];
    let proxy = Setup::builtin().start().await;
    let first = FILES.map(|name| std::fs::read(proxy.file(name)).expect("it was made"));
    let second = Setup::builtin();
    std::fs::create_dir(second.folder().join("certs")).expect("the folder is ours");
    for (name, content) in FILES.iter().zip(&first) {
        std::fs::write(second.folder().join(name), content).expect("the folder is ours");
    }
    let proxy = second.start().await;
    assert!(FILES.map(|name| std::fs::read(proxy.file(name)).expect("it is there")) == first);
}

/// A key without its certificate is somebody's: it is not overwritten, and the start fails.
#[tokio::test]
async fn a_key_that_is_there_is_never_overwritten() {
    let setup = Setup::builtin();
    let key = setup.folder().join("certs/server.key");
    std::fs::create_dir(setup.folder().join("certs")).expect("the folder is ours");
    std::fs::write(&key, "precious").expect("the folder is ours");
    let folder = setup.folder().to_owned();
    let (code, stderr) = setup.kept().fails().await;
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(std::fs::read_to_string(key).expect("it is there"), "precious");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
