//! Reloads that fail: each says what is wrong and where, and nothing has changed by it.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::listeners::free_address;
use super::{append, goes_on, session};
use crate::support::certificates::{Authority, written};
use crate::support::{Over, Proxy, Served, Setup, eventually};

/// What is appended to a good file, and what is said about it.
struct Mistake {
    appended: String,
    /// The line that is named, counted in what was appended, where one is.
    line: Option<usize>,
    said: &'static [&'static str],
}

fn mistake(appended: &str, line: Option<usize>, said: &'static [&'static str]) -> Mistake {
    Mistake { appended: appended.to_owned(), line, said }
}

/// A reload that fails is refused with all that is wrong, which is remembered; old sessions, old routes and the
/// listeners stay as they are, nothing is left open; and the file, once mended, is taken over.
#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let echo = Served::echo().await;
    let setup = Setup::to(echo.endpoint()).also(
        "[upstream.page]\nbuiltin = \"echo\"\n[[route]]\npath = \"/page\"\nupstream = \"page\"",
    );
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["one.example"]), authority.issue(&["two.example"]));
    let mixed = written(setup.folder(), "mixed", &one);
    std::fs::write(setup.folder().join("mixed.key"), &two.key_pem).expect("the folder is ours");
    let garbage = written(setup.folder(), "garbage", &one);
    std::fs::write(setup.folder().join("garbage.crt"), "no PEM").expect("the folder is ours");
    let missing = mixed.replace("mixed", "missing");
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (taken_address, free) = (taken.local_addr().expect("a bound socket"), free_address(5));
    let listeners =
        [free, taken_address].map(|address| format!("[[listener]]\naddress = \"{address}\"\n"));

    let mistakes = [
        mistake("[[route]\npath = \"/x\"", Some(1), &["error: "]),
        mistake(
            "[[route]]\npath = \"/x\"\nupstream = \"app\"\nmax_mesage = \"1KiB\"",
            Some(4),
            &["no key `max_mesage`", "did you mean `max_message`"],
        ),
        mistake(
            "[[route]]\npath = \"/x\"\nupstream = \"ap\"",
            Some(3),
            &["no upstream", "`ap`", "did you mean `app`"],
        ),
        mistake(&missing, Some(2), &["missing.crt"]),
        mistake(&garbage, Some(2), &["garbage.crt"]),
        mistake(&mixed, Some(3), &["mixed.key", "does not belong to", "mixed.crt"]),
        mistake(&listeners.concat(), None, &["cannot listen on", "is in use"]),
        mistake(
            "[log]\npath = \"no/such/folder/access.log\"",
            None,
            &["no/such/folder/access.log"],
        ),
        mistake(
            "[admin]\nsocket = \"proxy.toml/admin.sock\"",
            None,
            &["proxy.toml/admin.sock", "cannot make the admin socket"],
        ),
    ];
    let proxy = setup.start().await;
    let good = std::fs::read_to_string(proxy.file("proxy.toml")).expect("the file is ours");
    let mut client = session(&proxy, "/").await;
    let (listeners, descriptors) =
        (proxy.told("GET", "/status").await["listeners"].take(), proxy.descriptors());
    for (count, Mistake { appended, line, said }) in (1..).zip(mistakes) {
        append(&proxy, &appended);
        let (status, told) = proxy.ask("POST", "/reload").await;
        assert_eq!(status, 422, "{appended}: {told}");
        let place = line.map(|line| format!("proxy.toml:{}:", good.lines().count() + 1 + line));
        for part in said.iter().copied().chain(place.as_deref()) {
            assert!(told.contains(part), "{part:?} is not in:\n{told}");
        }
        let config = proxy.told("GET", "/status").await["config"].take();
        assert_eq!(config["last_failure"].as_str().map(str::trim), Some(told.trim()), "{config}");
        assert_eq!(config["reload_failures_total"], count, "{config}");
        proxy.says("asked for, and nothing was changed").await;
        unchanged(&proxy, &listeners).await;
        goes_on(&mut client).await;
        refuses(free).await;

        std::fs::write(proxy.file("proxy.toml"), &good).expect("the file is ours");
        proxy.told("POST", "/reload").await;
        let config = proxy.told("GET", "/status").await["config"].take();
        assert!(config["last_failure"].is_null(), "{config}");
        // Among them connections that were kept for endpoints, which a reload lets go.
        eventually("descriptors to be closed", || proxy.descriptors() <= descriptors).await;
    }
    goes_on(&mut client).await;
}

/// Checks that the listeners are those, and that each serves.
async fn unchanged(proxy: &Proxy, listeners: &serde_json::Value) {
    assert_eq!(proxy.told("GET", "/status").await["listeners"], *listeners);
    for over in [Over::Plain, Over::Tls] {
        let mut client = proxy.connect(over).await;
        assert_eq!(client.get("/page").await.status(), 200);
    }
    goes_on(&mut session(proxy, "/").await).await;
}

/// Checks that nobody listens there.
async fn refuses(address: SocketAddr) {
    let refused = TcpStream::connect(address).await.expect_err("nobody listens there");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// SIGHUP says in the log what is wrong, in full.
#[tokio::test]
async fn a_failure_by_signal_is_told_in_the_log() {
    let proxy = Setup::builtin().start().await;
    append(&proxy, "[limits]\nsesions = 3");
    assert!(proxy.reload().await.contains("the reload failed"));
    proxy.says("did you mean `sessions`").await;
    let status = proxy.told("GET", "/status").await;
    let failure = status["config"]["last_failure"].as_str().unwrap_or_default();
    assert!(failure.contains("`sesions`"), "{status}");
    proxy.edit("sesions", "sessions");
    assert!(proxy.reload().await.contains(" reloaded "));
    assert!(proxy.told("GET", "/status").await["config"]["last_failure"].is_null());
}

/// A file that is gone is a mistake like any other.
#[tokio::test]
async fn a_missing_file_changes_nothing() {
    let proxy = Setup::builtin().start().await;
    let mut client = proxy.plain().await;
    std::fs::remove_file(proxy.file("proxy.toml")).expect("the file is ours");
    let (status, told) = proxy.ask("POST", "/reload").await;
    assert!(status == 422 && told.contains("cannot read"), "{status} {told}");
    assert_eq!(client.get("/").await.status(), 200);
}
