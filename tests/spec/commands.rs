//! The commands that ask a running process, or have it do something.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::programs::Program;
use crate::support::proxy::{TIDEGATE, exchange};
use crate::support::wire::handshake;
use crate::support::{Over, Proxy, Served, Setup, Upstream};

fn start(folder: &Path, arguments: &[&str]) -> Program {
    Program::start(Command::new(TIDEGATE).args(arguments).current_dir(folder))
}

/// What a command prints on standard output and standard error, and its exit code.
async fn command(proxy: &Proxy, arguments: &[&str]) -> (i32, String, String) {
    let mut program = start(&proxy.file(""), arguments);
    let code = program.exited().await;
    (code, program.stdout.text(), program.stderr.text())
}

/// What a command prints that succeeds.
async fn printed(proxy: &Proxy, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = command(proxy, arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
    stdout
}

/// The status is a page for a person, and JSON for a program.
#[tokio::test]
async fn status_is_a_page_or_json() {
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let mut socket = proxy.websocket(Over::Tls, "/").await;
    exchange(&mut socket, "hello").await;
    let page = printed(&proxy, &["status"]).await;
    for part in ["running", "1 session,", "certs/server.crt", "*/", upstream.endpoint(), "TLS"] {
        assert!(page.contains(part), "{part} in:\n{page}");
    }
    let json: Value = serde_json::from_str(&printed(&proxy, &["status", "--json"]).await)
        .expect("one JSON document");
    assert_eq!(json["sessions"], 1);
}

/// Sessions are a table; what a client put into its path cannot move the cursor.
#[tokio::test]
async fn sessions_are_a_table() {
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let mut first = proxy.websocket(Over::Plain, "/one").await;
    let _second = proxy.websocket(Over::Plain, "/two").await;
    exchange(&mut first, &"x".repeat(10_000)).await;
    let table = printed(&proxy, &["sessions", "--sort", "bytes", "--limit", "1"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("ID"), "{table}");
    assert!(lines[1].contains("9.8 KiB"), "{table}");
    assert_eq!(lines[2], "1 of 2 sessions");
    let none = printed(&proxy, &["sessions", "--client", "10.0.0.0/8"]).await;
    assert!(none.ends_with("0 sessions"), "{none}");
    let (code, _, stderr) = command(&proxy, &["sessions", "--client", "nobody"]).await;
    assert_eq!((code, stderr.contains("nobody")), (2, true), "{stderr}");
}

/// `sessions --watch` has a line for each that is there, opens and ends, until the process leaves.
#[tokio::test]
async fn sessions_are_watched() {
    let (proxy, upstream) = Proxy::scripted().await;
    let watching = start(&proxy.file(""), &["sessions", "--watch"]);
    // Nothing is there yet that could be listed: the first session may come before the watch does.
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    let id = proxy.event("open").await["id"].as_str().expect("an id").to_owned();
    watching.stdout.containing(&id).await;
    client.send(masked(CLOSE, close(1000, ""))).await;
    leg.expect(masked(CLOSE, close(1000, ""))).await;
    leg.send(plain(CLOSE, close(1000, ""))).await;
    leg.finish().await;
    client.expect_close(1000).await;
    drop(client);
    let end = watching.stdout.find("an end", |line| line.starts_with("end ")).await;
    assert!(end.contains(&id) && end.contains("ended by client: closed"), "{end}");
    proxy.drain();
    watching.stderr.containing("Tidegate has left").await;
}

/// `close` wants to be told which; then those sessions are closed as it says.
#[tokio::test]
async fn close_closes_what_is_named() {
    let (proxy, upstream) = Proxy::scripted().await;
    let (mut client, _leg) = proxy.session(Over::Plain, &upstream).await;
    let id = proxy.event("open").await["id"].as_str().expect("an id").to_owned();
    for wrong in [&["close"][..], &["close", "--all", "--route", "/"], &["close", "--all", &id]] {
        let (code, _, stderr) = command(&proxy, wrong).await;
        assert_eq!((code, stderr.contains("--all")), (2, true), "{stderr}");
    }
    let arguments = ["close", &id, "--code", "4000", "--reason", "ä bye"];
    assert!(printed(&proxy, &arguments).await.contains("1 session"));
    let frame = client.frame().await;
    assert_eq!((frame.code(), &frame.payload[2..]), (Some(4000), "ä bye".as_bytes()));
}

/// `reload` says what was done, or what is wrong, and then exits with 1.
#[tokio::test]
async fn reload_says_what_came_of_it() {
    let proxy = Setup::builtin().start().await;
    assert!(printed(&proxy, &["reload"]).await.starts_with("reloaded "));
    proxy.edit("upstream = \"app\"", "upstream = \"apq\"");
    let (code, _, stderr) = command(&proxy, &["reload"]).await;
    assert_eq!(code, 1);
    for part in ["no upstream is named `apq`", "proxy.toml:", "did you mean `app`?", "nothing was"]
    {
        assert!(stderr.contains(part), "{part} in:\n{stderr}");
    }
    let page = printed(&proxy, &["status"]).await;
    assert!(page.contains("The last reload failed") && page.contains("`apq`"), "{page}");
    // What is wrong with the file does not hide the socket.
    proxy.edit("[[route]]", "][");
    assert!(printed(&proxy, &["status"]).await.contains("running"));
}

/// `drain --wait` waits for the sessions; `undrain` takes the drain of a route or an endpoint back.
#[tokio::test]
async fn drain_waits_and_undrain_takes_back() {
    let upstream = Upstream::raw().await;
    let setup = Setup::to(upstream.endpoint()).route("close_timeout = \"40s\"");
    let proxy = setup.start().await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    let draining = start(&proxy.file(""), &["drain", "--route", "/", "--wait"]);
    draining.stderr.containing("1 session left").await;
    client.expect_close(1001).await;
    client.send([masked(TEXT, "x"), masked(CLOSE, close(1001, ""))].concat()).await;
    leg.expect([masked(TEXT, "x"), masked(CLOSE, close(1001, ""))].concat()).await;
    leg.send(plain(CLOSE, close(1001, ""))).await;
    leg.finish().await;
    client.expect_end().await;
    drop(client);
    draining.stderr.containing("all gone").await;
    printed(&proxy, &["undrain", "--route", "*/"]).await;

    let endpoint = upstream.endpoint().trim_start_matches("http://");
    let named = ["--upstream", "app", "--endpoint", endpoint];
    printed(&proxy, &[&["drain"][..], &named].concat()).await;
    assert!(printed(&proxy, &["status"]).await.contains("draining"));
    let mut refused = proxy.plain().await;
    assert_eq!(refused.ask(&handshake("/")).await, Some(503));
    printed(&proxy, &[&["undrain"][..], &named].concat()).await;
    let (code, _, stderr) = command(&proxy, &[&["undrain"][..], &named].concat()).await;
    assert_eq!((code, stderr.contains("not being drained")), (1, true), "{stderr}");
    for wrong in
        [&["undrain"][..], &["undrain", "--upstream", "app"], &["drain", "--endpoint", "x"]]
    {
        assert_eq!(command(&proxy, wrong).await.0, 2, "{wrong:?}");
    }
    let (code, _, stderr) = command(&proxy, &["drain", "--wait"]).await;
    assert_eq!((code, stderr.contains("all gone")), (0, true), "{stderr}");
    assert_eq!(proxy.exited().await, 0);
}

/// Where nobody answers, the socket is named and the way out; elsewhere than beside the file it is found by name.
#[tokio::test]
async fn a_socket_that_nobody_answers_on_is_named() {
    let proxy = Setup::builtin().start().await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut program = start(elsewhere.path(), &["status"]);
    assert_eq!(program.exited().await, 1);
    let stderr = program.stderr.text();
    assert!(stderr.contains("no Tidegate answers on run/tidegate.sock"), "{stderr}");
    let (socket, file) = (proxy.file("run/tidegate.sock"), proxy.file("proxy.toml"));
    for (option, path) in [("--socket", socket), ("--config", file)] {
        let path = path.to_string_lossy().into_owned();
        start(elsewhere.path(), &["status", option, &path]).succeeded().await;
    }
    let (code, _, stderr) = command(&proxy, &["--to", "ws://127.0.0.1:1", "status"]).await;
    assert_eq!((code, stderr.contains("--to is for")), (2, true), "{stderr}");
}

/// `top --once` is a page without escapes.
#[tokio::test]
async fn top_once_is_a_page() {
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let _socket = proxy.websocket(Over::Plain, "/").await;
    let page = printed(&proxy, &["top", "--once", "--interval", "100ms"]).await;
    for part in ["running", "1 session", "ROUTE", "ENDPOINT", upstream.endpoint(), "CLIENT"] {
        assert!(page.contains(part), "{part} in:\n{page}");
    }
    assert!(!page.contains('\x1b'), "{page}");
    assert_eq!(command(&proxy, &["top", "--interval", "1ms"]).await.0, 2);
}

/// On a terminal it is drawn anew as things happen, says so when the process is gone, and gives the screen back.
#[tokio::test]
async fn top_is_live_on_a_terminal() {
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let mut command = Command::new("script");
    let socket = proxy.file("run/tidegate.sock");
    let top = format!(
        "stty rows 24 cols 80; {TIDEGATE} top --interval 100ms --socket {}",
        socket.display()
    );
    command.args(["-q", "-f", "-e", "-c", &top, "/dev/null"]);
    let mut terminal = Program::start(&mut command);
    terminal.stdout.containing("0 sessions").await;
    let _socket = proxy.websocket(Over::Plain, "/").await;
    terminal.stdout.containing("1 session ").await;
    drop(proxy);
    terminal.stdout.containing(" old: ").await;
    terminal.type_line("q").await;
    assert_eq!(terminal.exited().await, 0);
    let screen = terminal.stdout.text();
    let (taken, given_back) = (screen.find("\x1b[?1049h"), screen.find("\x1b[?1049l"));
    assert!(taken.is_some() && taken < given_back, "{screen:?}");
}
