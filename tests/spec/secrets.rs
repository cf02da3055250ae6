//! Secrets and privilege: what must be in no log, metric or answer, files of keys that are open to others, and who may ask
//! by the admin socket.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::process::Command;

use crate::support::certificates::{Authority, openssl, trusting_anyone, written};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::programs::{Program, curl};
use crate::support::wire::handshake_with;
use crate::support::{Over, Setup, Upstream, eventually, within};

/// Stands in each secret, so that none can be overlooked; as long and as mixed as a real one.
const MARK: &str = "5ec2e7b0a1d94f";

/// Puts in: marked secrets wherever a client keeps them (a token in the query, by its plain name and percent-encoded, a
/// key that `redact` names, Authorization, Proxy-Authorization, Cookie, a bearer token as a subprotocol, which the
/// upstream agrees on), in requests, sessions, redirects and refusals of every kind, in a request that is malformed, and
/// in a Set-Cookie of the upstream's; the log as verbose as it gets. Out: the mark is nowhere: neither in the access log,
/// as text or JSON, nor on standard error, in the metrics, the status, or the list of sessions (CWE-532; RFC 6455 §10.5,
/// RFC 6750 §5.3).
#[tokio::test]
async fn no_output_has_a_secret() {
    let upstream = Upstream::raw().await;
    for format in ["json", "text"] {
        let proxy = Setup::to(upstream.endpoint())
            .listeners(
                "redirect_https = true\n\
                 [[listener]]\naddress = \"127.0.0.1:0\"\ntls = true",
            )
            .also(&format!(
                "[log]\naccess = \"{format}\"\npath = \"access.log\"\nredact = [\"room\"]"
            ))
            .environment("RUST_LOG", "trace")
            .arguments(&["--trace-frames"])
            .start()
            .await;
        let target = format!(
            "/chat?token={MARK}&access%5Ftoken={MARK}&%74oken={MARK}&room={MARK}&sig={MARK}&x=1"
        );
        let headers = format!(
            "Authorization: Bearer {MARK}\r\nProxy-Authorization: Basic {MARK}\r\n\
             Cookie: session={MARK}\r\nX-Api-Key: {MARK}\r\n"
        );
        let offer = format!("{headers}Sec-WebSocket-Protocol: bearer.{MARK}, chat\r\n");
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        let handshake = handshake_with(&target, &offer);

        // A session whose upstream agrees on the token.
        let mut client = proxy.connect(Over::Tls).await;
        client.send(&handshake).await;
        let mut leg = upstream.accept().await;
        let more = format!("Sec-WebSocket-Protocol: bearer.{MARK}\r\nSet-Cookie: id={MARK}\r\n");
        let asked = leg.accept_with(&more).await;
        assert_eq!(asked.text.matches(MARK).count(), 10, "it is all passed on: {asked:?}");
        assert_eq!(client.head().await.status(), Some(101));
        client.send(masked(TEXT, MARK)).await;
        assert_eq!(leg.frame().await.payload, MARK.as_bytes());
        let (_, sessions) = proxy.ask("GET", "/sessions").await;
        assert!(sessions.contains("\"total\":1") && sessions.contains("x=1"), "{sessions}");

        // An ordinary request, with an answer that breaks off.
        let mut other = proxy.connect(Over::Tls).await;
        other.send(&request).await;
        let mut answering = upstream.accept().await;
        answering.head().await;
        answering
            .send(format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: id={MARK}\r\nContent-Length: 99\r\n\r\n..."
            ))
            .await;
        answering.reset();
        other.rest().await;

        // Answers that are no HTTP, and a 101 with a subprotocol that was never offered.
        for answer in [
            format!("{MARK}\r\n\r\n"),
            format!("HTTP/1.1 101 Switching Protocols\r\nSet-Cookie: id={MARK}\r\n\r\n"),
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: bearer.{MARK}, chat\r\n\r\n",
                crate::support::wire::accept(crate::support::wire::KEY)
            ),
        ] {
            let mut refused = proxy.connect(Over::Tls).await;
            refused.send(&handshake).await;
            let mut leg = upstream.accept().await;
            leg.head().await;
            leg.send(answer).await;
            assert_eq!(refused.head().await.status(), Some(502));
        }

        // Refusals of our own: redirects, a wrong host, a wrong version, a bad key, a malformed head.
        let wrong = |from: &str, to: &str| handshake.replace(from, to);
        for (over, bad) in [
            (Over::Plain, request.clone()),
            (Over::Plain, handshake.clone()),
            (Over::Tls, request.replace("Host: localhost", "Host: elsewhere.example")),
            (Over::Tls, wrong("Version: 13", "Version: 12")),
            (Over::Tls, wrong("Key: ", "Key: x")),
            (Over::Tls, request.replace("Cookie: ", &format!("Bad {MARK}: 1\r\nCookie: "))),
            (Over::Tls, request.replace("Host: localhost", &format!("Host: u:{MARK}@localhost"))),
            (Over::Tls, request.replace(" HTTP/1.1", &format!(" HTTP/{MARK}"))),
        ] {
            let status = proxy.connect(over).await.ask(&bad).await;
            assert!(status.is_some_and(|status| (300..500).contains(&status)), "{status:?} {bad}");
        }

        // The end of the session.
        client.send(masked(CLOSE, close(1000, "done"))).await;
        leg.send(plain(CLOSE, close(1000, "done"))).await;
        leg.frame().await;
        drop((client, leg));
        let log = || std::fs::read_to_string(proxy.file("access.log")).unwrap_or_default();
        // Two of the session, one of the answer that broke off, three of wrong answers, eight of refusals.
        eventually("all lines of the log", || log().lines().count() == 14).await;
        assert!(log().contains("[redacted]") && log().contains("closed"), "{}", log());

        let mut outputs = vec![("log", log()), ("stderr", proxy.stderr())];
        for target in ["/metrics", "/status", "/sessions"] {
            outputs.push((target, proxy.ask("GET", target).await.1));
        }
        assert!(proxy.stderr().contains("TEXT") || proxy.stderr().contains("text"), "frames");
        for (name, text) in outputs {
            let line = text.lines().find(|line| line.contains(MARK));
            assert_eq!(line, None, "{format}: {name} has a secret");
        }
    }
}

/// A key as openssl writes it, with its lines, which are what must not be seen.
fn new_key(folder: &Path) -> String {
    openssl(folder, "ecparam -name prime256v1 -genkey -noout -out the.key");
    std::fs::read_to_string(folder.join("the.key")).expect("openssl wrote it")
}

/// Puts in: keys that cannot be used: cut short, with a wrong byte, with a passphrase, without its armour, in the place of
/// the chain. Out: the file is named, and no piece of the key is printed.
#[tokio::test]
async fn what_is_wrong_with_a_key_is_said_without_it() {
    let authority = Authority::new();
    for damage in 0..5 {
        let setup = Setup::builtin();
        let folder = setup.folder().to_owned();
        let tables = written(&folder, "one", &authority.issue(&["one.example"]));
        let key = new_key(&folder);
        let lines: Vec<&str> = key.lines().collect();
        let broken = match damage {
            0 => lines[..2].join("\n"),
            1 => key.replacen('M', "*", 1),
            2 => {
                openssl(&folder, "ec -in the.key -aes128 -passout pass:secret -out locked.key");
                std::fs::read_to_string(folder.join("locked.key")).expect("openssl wrote it")
            }
            3 => lines[1..lines.len() - 1].join("\n"),
            _ => key.replace("EC PRIVATE KEY", "CERTIFICATE"),
        };
        let file = if damage == 4 { "one.crt" } else { "one.key" };
        std::fs::write(folder.join(file), &broken).expect("the folder is ours");
        let (code, stderr) =
            setup.certificates(&tables).environment("RUST_LOG", "trace").fails().await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(file), "{stderr}");
        let pieces: Vec<&str> = broken.lines().filter(|line| !line.starts_with("---")).collect();
        for piece in pieces.concat().as_bytes().windows(12) {
            let piece = std::str::from_utf8(piece).expect("ASCII");
            assert!(!stderr.contains(piece), "{piece} of the key in:\n{stderr}");
        }
    }
}

/// Sets the permissions of a file.
fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// Puts in: a private key that everybody may read. Out: a warning with its path, its mode and the way out, at the start, at
/// a reload and when it is renewed, and it is served; one that a group may read, as Debian's ssl-cert has it, is not
/// warned about (CWE-732).
#[tokio::test]
async fn a_key_that_is_open_to_others_is_warned_about() {
    let setup = Setup::builtin();
    let authority = Authority::new();
    let tables = written(setup.folder(), "one", &authority.issue(&["one.example"]));
    let key = setup.folder().join("one.key");
    allow(&key, 0o644);
    let proxy = setup.certificates(&tables).start().await;
    let told = proxy.stderr();
    for text in ["warning: the private key", "one.key", "mode 0644", "chmod 600"] {
        assert!(told.contains(text), "{text} in:\n{told}");
    }
    assert!(proxy.try_tls(&Arc::new(trusting_anyone()), "one.example").await.is_ok());
    allow(&key, 0o640);
    let before = proxy.stderr().matches("is open to others").count();
    assert!(proxy.reload().await.contains(" reloaded "));
    assert_eq!(proxy.stderr().matches("is open to others").count(), before);
    allow(&key, 0o604);
    assert!(proxy.reload().await.contains(" reloaded "));
    assert_eq!(proxy.stderr().matches("is open to others").count(), before + 1);
    written(&proxy.file(""), "one", &authority.issue(&["one.example"]));
    proxy.says("certificates were renewed").await;
    assert_eq!(proxy.stderr().matches("is open to others").count(), before + 2);
}

/// Puts in: the same with `key_permissions = "refuse"`, at a start, at a reload, and in a key that is renewed while the
/// process runs. Out: no start, no reload, and what was served before is served on, until the file is private.
#[tokio::test]
async fn a_key_that_is_open_to_others_may_be_refused() {
    let authority = Authority::new();
    let setup = || {
        let setup = Setup::builtin().also("[tls]\nkey_permissions = \"refuse\"");
        let tables = written(setup.folder(), "one", &authority.issue(&["one.example"]));
        allow(&setup.folder().join("one.key"), 0o644);
        setup.certificates(&tables)
    };
    let (code, stderr) = setup().fails().await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("error: the private key") && stderr.contains("chmod 600"), "{stderr}");

    let setup = setup();
    allow(&setup.folder().join("one.key"), 0o600);
    let proxy = setup.start().await;
    let shown = async || {
        let stream = proxy.try_tls(&Arc::new(trusting_anyone()), "one.example").await;
        stream.expect("a handshake").get_ref().1.peer_certificates().expect("one")[0].to_vec()
    };
    let old = shown().await;
    let new = authority.issue(&["one.example"]);
    allow(&proxy.file("one.key"), 0o604);
    written(&proxy.file(""), "one", &new);
    assert!(proxy.reload().await.contains("the reload failed"));
    proxy.says("is open to others than its owner (mode 0604); what was there before").await;
    assert!(shown().await == old);
    allow(&proxy.file("one.key"), 0o600);
    // A change of permissions is none of the content: the files are looked at as long as they could not be used.
    within("the new certificate", async {
        while shown().await != new.der() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Puts in: another user who can reach the admin socket, since somebody has opened its folder and the socket to everybody.
/// Out: no answer but the end of the connection, and a line on standard error that says who it was (SO_PEERCRED); its own
/// user and root are answered as before.
#[tokio::test]
async fn the_admin_socket_answers_its_own_user_alone() {
    const NOBODY: &str = "65534";
    if !rustix::process::geteuid().is_root() {
        eprintln!("nobody else can be played without root: nothing was shown");
        return;
    }
    let proxy = Setup::builtin().start().await;
    let socket = proxy.file("run/tidegate.sock");
    for path in [proxy.file(""), proxy.file("run")] {
        allow(&path, 0o755);
    }
    allow(&socket, 0o666);
    let socket = socket.to_string_lossy().into_owned();
    let asking = ["--unix-socket", &socket, "http://localhost/status"];
    let somebody = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "curl", "-sS"];
    let mut stranger = Program::start(Command::new("setpriv").args(somebody).args(asking));
    let code = stranger.exited().await;
    // Curl has several numbers for it, according to how far it had come.
    assert_ne!(code, 0, "{}", stranger.stderr.text());
    assert_eq!(stranger.stdout.text(), "");
    let line = proxy.says("somebody else's process asked by the admin socket").await;
    assert!(line.contains("WARN") && line.contains("uid=65534"), "{line}");
    assert!(curl(&asking).succeeded().await.contains("\"phase\""));
}
