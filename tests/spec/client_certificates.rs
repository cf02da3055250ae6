//! Clients that show certificates (mutual TLS): who is let in, what the upstream hears of them, and that a ticket opens
//! no other door than the one it is from.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::DnType;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::certificates::{Authority, Leaf, openssl, showing, speaking};
use crate::support::wire::{Head, handshake_with};
use crate::support::{Over, Proxy, Setup, Upstream, Wire, within};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A TLS listener with these keys.
fn listener(keys: &str) -> String {
    format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n{keys}\n")
}

/// Behind a plain listener, TLS listeners that ask nobody, request and require a certificate of `authority`'s.
fn setup(authority: &Authority, upstream: &str) -> Setup {
    let listeners = ["", "client_auth = \"request\"", "client_auth = \"require\""].map(listener);
    let setup = Setup::to(upstream);
    believe(setup.folder(), authority);
    setup.listeners(&listeners.concat()).also("[tls]\nclient_ca = \"clients.pem\"")
}

/// Writes `authority` where `client_ca` is.
fn believe(folder: &Path, authority: &Authority) {
    std::fs::write(folder.join("clients.pem"), authority.pem()).expect("the folder is ours");
}

/// The listeners of [`setup`].
struct Doors {
    open: SocketAddr,
    request: SocketAddr,
    require: SocketAddr,
}

fn doors(proxy: &Proxy) -> Doors {
    let addresses = proxy.tls_addresses();
    let [open, request, require] = addresses[..] else { panic!("three of them: {addresses:?}") };
    Doors { open, request, require }
}

/// A connection that was let in, and whether its session was resumed.
async fn enter(
    proxy: &Proxy,
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> (Wire, HandshakeKind) {
    let stream = proxy.try_tls_at(address, client, "localhost").await.expect("a handshake");
    let kind = stream.get_ref().1.handshake_kind().expect("a handshake that is over");
    (Wire::new(stream), kind)
}

/// The alert by which a client is turned away. In TLS 1.3 it comes after the handshake is over for the client.
async fn refusal(
    proxy: &Proxy,
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> Option<AlertDescription> {
    let ended = match proxy.try_tls_at(address, client, "localhost").await {
        Ok(mut stream) => {
            within("to be turned away", stream.read_to_end(&mut Vec::new())).await.map(drop)
        }
        Err(error) => Err(error),
    };
    let error = ended.expect_err("it is not let in");
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// What the upstream sees of a GET with these header lines.
async fn seen(client: &mut Wire, upstream: &Upstream, headers: &str) -> Head {
    client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
    let mut leg = upstream.accept().await;
    let head = leg.head().await;
    leg.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.head().await.status(), Some(204));
    head
}

fn alice(authority: &Authority) -> Leaf {
    authority.issue_to(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, "alice")])
}

/// `Client-Cert` of RFC 9440 §2.1 for a certificate.
fn client_cert(leaf: &Leaf) -> String {
    use base64::Engine as _;
    format!(":{}:", base64::engine::general_purpose::STANDARD.encode(leaf.der()))
}

/// Puts in: clients with a good certificate, without one, with one of a strange CA, with one that has expired; on
/// listeners that ask nobody, request and require one. Out: those who may come in, and for the others the alert that
/// names their fault: certificate_required, unknown_ca, certificate_expired (RFC 8446 §4.4.2.4, §6.2).
#[tokio::test]
async fn who_may_come_in_is_decided_by_the_certificate() {
    let upstream = Upstream::raw().await;
    let authority = Authority::new();
    let proxy = setup(&authority, upstream.endpoint()).start().await;
    let Doors { open, request, require } = doors(&proxy);
    let good = alice(&authority);
    let strange = alice(&Authority::named("Another CA"));
    let expired = authority.issue_between(&[], 2001, 2002);
    for version in VERSIONS {
        let [good, strange, expired] =
            [&good, &strange, &expired].map(|leaf| Arc::new(showing(leaf, version)));
        let nameless = Arc::new(speaking(version));
        let welcome = [
            (open, [&good, &strange, &expired, &nameless].to_vec()),
            (request, [&good, &nameless].to_vec()),
            (require, [&good].to_vec()),
        ];
        for (address, clients) in welcome {
            for client in clients {
                let (mut client, _) = enter(&proxy, address, client).await;
                seen(&mut client, &upstream, "").await;
            }
        }
        let refused = |client| {
            let proxy = &proxy;
            async move { (refusal(proxy, request, client).await, refusal(proxy, require, client).await) }
        };
        let both = |alert| (Some(alert), Some(alert));
        assert_eq!(refused(&strange).await, both(AlertDescription::UnknownCA));
        assert_eq!(refused(&expired).await, both(AlertDescription::CertificateExpired));
        let without = refusal(&proxy, require, &nameless).await;
        assert_eq!(without, Some(AlertDescription::CertificateRequired), "{version:?}");
    }
}

/// Puts in: a client that sends a large request right after its half of the handshake, as TLS 1.3 lets it, and has no
/// certificate. Out: the alert and a FIN, not a reset, by which many systems throw away what they have received: whoever
/// is turned away is to be told why.
#[tokio::test]
async fn a_client_that_talks_at_once_still_hears_why_it_is_refused() {
    let upstream = Upstream::raw().await;
    let proxy = setup(&Authority::new(), upstream.endpoint()).start().await;
    let client = Arc::new(speaking(&TLS13));
    for _ in 0..5 {
        let address = doors(&proxy).require;
        let stream = proxy.try_tls_at(address, &client, "localhost").await;
        let mut stream = stream.expect("its own half of the handshake");
        let request = [&b"POST / HTTP/1.1\r\n\r\n"[..], &[b'x'; 64 << 10]].concat();
        within("the request to leave", stream.write_all(&request)).await.expect("it is taken");
        let error = within("the end", stream.read_to_end(&mut Vec::new())).await;
        let error = error.expect_err("it is not let in").to_string();
        assert!(error.contains("CertificateRequired"), "{error}");
        let (mut tcp, _) = stream.into_inner();
        within("the end", tcp.read_to_end(&mut Vec::new())).await.expect("a FIN");
    }
    upstream.expect_untouched().await;
}

/// Puts in: a certificate whose subject has commas, quotes, an umlaut and what would be a header line of its own. Out:
/// one header line in the words of RFC 4514, which openssl writes just so, and the certificate itself as RFC 9440 has
/// it, in requests and in handshakes; the subject in the log too.
#[tokio::test]
async fn the_upstream_hears_whose_certificate_it_is() {
    let upstream = Upstream::raw().await;
    let authority = Authority::new();
    let leaf = authority.issue_to(&[
        (DnType::CountryName, "DE"),
        (DnType::OrganizationName, " Müller, \"Söhne\" + Co; <x>\\ "),
        (DnType::OrganizationalUnitName, "#1\r\nX-Admin: yes"),
        (DnType::CommonName, "alice"),
    ]);
    let proxy = setup(&authority, upstream.endpoint()).start().await;
    std::fs::write(proxy.file("alice.crt"), &leaf.chain_pem).expect("the folder is ours");
    openssl(&proxy.file(""), "x509 -in alice.crt -noout -subject -nameopt RFC2253 -out subject");
    let subject = std::fs::read_to_string(proxy.file("subject")).expect("openssl wrote it");
    let subject = subject.trim_end_matches('\n').strip_prefix("subject=").expect("openssl says so");
    assert!(subject.starts_with("CN=alice,OU=\\#1\\0D\\0AX-Admin: yes,O=\\ M\\C3\\BCller\\, "));

    let doors = doors(&proxy);
    for version in VERSIONS {
        for address in [doors.request, doors.require] {
            let config = Arc::new(showing(&leaf, version));
            let (mut client, _) = enter(&proxy, address, &config).await;
            let head = seen(&mut client, &upstream, "").await;
            assert_eq!(head.field("x-client-subject"), Some(subject));
            assert_eq!(head.field("client-cert"), Some(&*client_cert(&leaf)));
            assert_eq!(head.field("x-admin"), None);

            let (mut client, _) = enter(&proxy, address, &config).await;
            let (asked, _leg) = proxy.open(&mut client, &upstream).await;
            assert_eq!(asked.field("x-client-subject"), Some(subject));
            assert_eq!(asked.field("client-cert"), Some(&*client_cert(&leaf)));
        }
    }
    let request = proxy.record(|record| record["event"] == "request").await;
    assert_eq!(request["client_subject"], subject);
    assert_eq!(proxy.event("open").await["client_subject"], subject);
}

/// Puts in: clients that say themselves who they are, in every spelling that a backend may take for it and in a trailer,
/// with and without a certificate, on listeners that ask and that do not, in TLS and out of it. Out: what the proxy
/// knows, and nothing else (RFC 9440 §3.1 and §4).
#[tokio::test]
async fn nobody_says_by_a_header_who_it_is() {
    let upstream = Upstream::raw().await;
    let authority = Authority::new();
    let leaf = alice(&authority);
    let proxy = setup(&authority, upstream.endpoint()).start().await;
    let Doors { open, request, require } = doors(&proxy);
    let lies = "X-Client-Subject: CN=admin\r\nX_Client_Subject: CN=admin\r\nx-client_SUBJECT: CN=admin\r\n\
                X.Client.Subject: CN=admin\r\nClient-Cert: :AAAA:\r\nCLIENT_CERT: :AAAA:\r\nclient.cert: :AAAA:\r\n\
                Client-Cert-Chain: :AAAA:\r\nclient_cert_chain: :AAAA:\r\nX-Mine: 1\r\n";
    let forged = |head: &Head| head.text.contains("admin") || head.text.contains("AAAA");
    let (nameless, named) = (Arc::new(speaking(&TLS13)), Arc::new(showing(&leaf, &TLS13)));
    for (address, config, subject) in [
        (None, &nameless, None),
        (Some(open), &nameless, None),
        (Some(open), &named, None),
        (Some(request), &nameless, None),
        (Some(request), &named, Some("CN=alice,O=Example")),
        (Some(require), &named, Some("CN=alice,O=Example")),
    ] {
        let enter = || async {
            match address {
                Some(address) => enter(&proxy, address, config).await.0,
                None => proxy.plain().await,
            }
        };
        let head = seen(&mut enter().await, &upstream, lies).await;
        assert!(!forged(&head), "{head:?}");
        assert_eq!(head.field("x-client-subject"), subject);
        assert_eq!(head.field("client-cert").is_some(), subject.is_some());
        assert_eq!(head.field("x-mine"), Some("1"));
        // Neither by having the proxy's own fields removed as those of one hop.
        let away = "Connection: X-Client-Subject, Client-Cert\r\n";
        let head = seen(&mut enter().await, &upstream, away).await;
        assert_eq!(head.field("x-client-subject"), subject);

        let mut client = enter().await;
        client.send(handshake_with("/", lies)).await;
        let head = upstream.accept().await.head().await;
        assert!(!forged(&head), "{head:?}");

        let mut client = enter().await;
        client
            .send(
                "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
                 Trailer: Client-Cert, X_Client_Subject, X-Sum\r\n\r\n\
                 0\r\nClient-Cert: :AAAA:\r\nX_Client_Subject: CN=admin\r\nX-Sum: 7\r\n\r\n",
            )
            .await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        assert_eq!(leg.chunk().await, None);
        assert_eq!(leg.trailers().await, ["X-Sum: 7"]);
    }
}

/// Puts in: a trusted proxy that says who its client is, and the same one with a certificate of its own. Out: nothing in the
/// first case, as most proxies let such headers of strangers pass (RFC 9440 §4); in the second its own name.
#[tokio::test]
async fn not_even_a_trusted_peer_says_by_a_header_who_its_client_is() {
    let upstream = Upstream::raw().await;
    let authority = Authority::new();
    let setup = Setup::to(upstream.endpoint());
    believe(setup.folder(), &authority);
    let proxy = setup
        .listener("trusted = [\"127.0.0.0/8\"]")
        .also("[tls]\nclient_ca = \"clients.pem\"\nclient_auth = \"request\"")
        .start()
        .await;
    let told = "X-Client-Subject: CN=inner\r\nClient-Cert: :AAAA:\r\nClient_Cert: :AAAA:\r\n";
    for over in [Over::Plain, Over::Tls] {
        let head = seen(&mut proxy.connect(over).await, &upstream, told).await;
        assert!(!head.text.contains("AAAA") && !head.text.contains("inner"), "{head:?}");
    }
    let leaf = alice(&authority);
    let mut client = proxy.tls(showing(&leaf, &TLS13), "localhost").await;
    let head = seen(&mut client, &upstream, told).await;
    assert_eq!(head.field("x-client-subject"), Some("CN=alice,O=Example"));
    assert_eq!(head.field("client-cert"), Some(&*client_cert(&leaf)));
    assert!(!head.text.contains("AAAA"), "{head:?}");
}

/// Puts in: a client that comes back with the ticket it was given. Out: its session is resumed without a certificate being
/// sent again, and the upstream hears the same name: the ticket carries it (RFC 8446 §4.6.1).
#[tokio::test]
async fn a_session_that_is_resumed_still_says_who_it_is() {
    let upstream = Upstream::raw().await;
    let authority = Authority::new();
    let leaf = alice(&authority);
    let proxy = setup(&authority, upstream.endpoint()).start().await;
    let doors = doors(&proxy);
    for address in [doors.request, doors.require] {
        for version in VERSIONS {
            let config = Arc::new(showing(&leaf, version));
            for wanted in [false, true, true] {
                let (mut client, kind) = enter(&proxy, address, &config).await;
                let head = seen(&mut client, &upstream, "").await;
                assert_eq!(kind == HandshakeKind::Resumed, wanted, "{version:?}");
                assert_eq!(head.field("x-client-subject"), Some("CN=alice,O=Example"));
                assert_eq!(head.field("client-cert"), Some(&*client_cert(&leaf)));
            }
        }
    }
    let resumed = |record: &serde_json::Value| record["resumed"] == true;
    assert_eq!(proxy.record(resumed).await["client_subject"], "CN=alice,O=Example");
}

/// Puts in: a ticket from each listener, brought to each other one, by clients without a certificate and with one. Out: a
/// full handshake everywhere but where it is from, and no way in without a certificate where one is required:
/// CVE-2025-23419 (nginx), CVE-2025-23048 (Apache), where a ticket was the way around.
#[tokio::test]
async fn a_ticket_is_worth_nothing_at_a_listener_that_asks_for_more() {
    let upstream = Upstream::raw().await;
    let authority = Authority::new();
    let leaf = alice(&authority);
    let proxy = setup(&authority, upstream.endpoint()).start().await;
    let Doors { open, request, require } = doors(&proxy);
    for version in VERSIONS {
        for (from, to) in [(open, request), (request, open)] {
            let config = Arc::new(speaking(version));
            for (address, is_resumed) in [(from, false), (from, true), (to, false)] {
                let (mut client, kind) = enter(&proxy, address, &config).await;
                seen(&mut client, &upstream, "").await;
                assert_eq!(kind == HandshakeKind::Resumed, is_resumed, "{version:?}");
            }
        }
        for from in [open, request] {
            let config = Arc::new(speaking(version));
            for _ in 0..2 {
                let (mut client, _) = enter(&proxy, from, &config).await;
                seen(&mut client, &upstream, "").await;
            }
            let refused = refusal(&proxy, require, &config).await;
            assert_eq!(refused, Some(AlertDescription::CertificateRequired), "{version:?}");
        }
        // Nor does one that was come by with a certificate say at another listener who comes.
        let config = Arc::new(showing(&leaf, version));
        for address in [open, request, require] {
            let (mut client, kind) = enter(&proxy, address, &config).await;
            seen(&mut client, &upstream, "").await;
            assert!(kind != HandshakeKind::Resumed, "{version:?}");
        }
    }
}

/// Puts in: tickets from before a reload, which changes nothing and then the CAs. Out: they resume after the first, and
/// are worth nothing after the second: who was verified by the old CAs is verified by the new ones, or not let in.
#[tokio::test]
async fn tickets_outlive_a_reload_unless_the_cas_are_others() {
    let upstream = Upstream::raw().await;
    let (old, new) = (Authority::named("Old CA"), Authority::named("New CA"));
    let leaf = alice(&old);
    let proxy = setup(&old, upstream.endpoint()).start().await;
    let Doors { open, require, .. } = doors(&proxy);
    for version in VERSIONS {
        believe(&proxy.file(""), &old);
        assert!(proxy.reload().await.contains(" reloaded "));
        let (named, nameless) = (Arc::new(showing(&leaf, version)), Arc::new(speaking(version)));
        for is_resumed in [false, true] {
            for (address, config) in [(require, &named), (open, &nameless)] {
                let (mut client, kind) = enter(&proxy, address, config).await;
                seen(&mut client, &upstream, "").await;
                assert_eq!(kind == HandshakeKind::Resumed, is_resumed, "{version:?}");
            }
            assert!(proxy.reload().await.contains(" reloaded "));
        }
        believe(&proxy.file(""), &new);
        assert!(proxy.reload().await.contains(" reloaded "));
        let refused = refusal(&proxy, require, &named).await;
        assert_eq!(refused, Some(AlertDescription::UnknownCA), "{version:?}");
        let (_, kind) = enter(&proxy, open, &nameless).await;
        assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
    }
}

/// Puts in: a session that was begun with a certificate which has expired by the time it is resumed. Out: it is resumed
/// until then, and not let in after that.
#[tokio::test]
async fn a_ticket_does_not_outlive_the_certificate() {
    let authority = Authority::new();
    let proxy = setup(&authority, "http://127.0.0.1:1").start().await;
    let require = doors(&proxy).require;
    let clients =
        VERSIONS.map(|version| Arc::new(showing(&authority.issue_for_seconds(10), version)));
    // There is no upstream: 502 is the answer to who is let in.
    let ask = async |client| {
        let stream = proxy.try_tls_at(require, client, "localhost").await.ok()?;
        let kind = stream.get_ref().1.handshake_kind()?;
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        Wire::new(stream).ask(request).await.map(|status| (status, kind))
    };
    for client in &clients {
        assert_eq!(ask(client).await.expect("it is good").0, 502);
        assert_eq!(ask(client).await, Some((502, HandshakeKind::Resumed)));
    }
    for client in &clients {
        within("the certificate to expire", async {
            while ask(client).await.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }
}

/// Puts in: a new file in the place of `client_ca`, then one that is none. Out: the new CA's clients are let in without a
/// reload and the old one's are not; what cannot be used is warned about, and changes nothing.
#[tokio::test]
async fn new_cas_are_believed_without_a_reload() {
    let upstream = Upstream::raw().await;
    let (old, new) = (Authority::named("Old CA"), Authority::named("New CA"));
    let [old_leaf, new_leaf] = [&old, &new].map(|ca| Arc::new(showing(&alice(ca), &TLS12)));
    let proxy = setup(&old, upstream.endpoint()).start().await;
    let require = doors(&proxy).require;
    assert!(proxy.try_tls_at(require, &old_leaf, "localhost").await.is_ok());
    believe(&proxy.file(""), &new);
    within("the new CA", async {
        while proxy.try_tls_at(require, &new_leaf, "localhost").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(proxy.try_tls_at(require, &old_leaf, "localhost").await.is_err());
    std::fs::write(proxy.file("clients.pem"), "no CA").expect("the folder is ours");
    proxy.says("clients.pem has no certificate").await;
    assert!(proxy.try_tls_at(require, &new_leaf, "localhost").await.is_ok());
}

/// Puts in: reloads by which a listener begins to ask for certificates, and ceases to. Out: newcomers are treated so.
#[tokio::test]
async fn a_reload_changes_who_is_asked() {
    let upstream = Upstream::raw().await;
    let authority = Authority::new();
    let setup = Setup::to(upstream.endpoint());
    believe(setup.folder(), &authority);
    let proxy = setup.also("[tls]\nmin_version = \"1.2\"").start().await;
    let address = proxy.address(Over::Tls);
    let nameless = Arc::new(speaking(&TLS13));
    let asking = "min_version = \"1.2\"\nclient_ca = \"clients.pem\"\nclient_auth = \"require\"";
    seen(&mut enter(&proxy, address, &nameless).await.0, &upstream, "").await;
    proxy.edit("min_version = \"1.2\"", asking);
    assert!(proxy.reload().await.contains(" reloaded "));
    let refused = refusal(&proxy, address, &nameless).await;
    assert_eq!(refused, Some(AlertDescription::CertificateRequired));
    proxy.edit(asking, "min_version = \"1.2\"");
    assert!(proxy.reload().await.contains(" reloaded "));
    seen(&mut enter(&proxy, address, &nameless).await.0, &upstream, "").await;
}
