//! A reload, by SIGHUP or by `POST /reload`: what has changed applies to whoever comes from then on, what means the
//! same stays as it is, and only what is gone is taken from those who had it.

mod certificates;
mod failures;
mod listeners;
mod under_load;

use serde_json::Value;
use tokio::process::Command;

use crate::support::frames::{PING, PONG, TEXT, masked};
use crate::support::programs::Program;
use crate::support::proxy::TIDEGATE;
use crate::support::wire::handshake;
use crate::support::{Over, Proxy, Served, Setup, Upstream, Wire, eventually};

/// A plain listener, and sessions that are sent away at once where they are.
const HERE: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n\n[drain]\nspread = \"0s\"\n\n";

/// `[upstream.NAME]` with these endpoints.
fn upstream(name: &str, endpoints: &[&Served]) -> String {
    let endpoints: Vec<&str> = endpoints.iter().map(|served| served.endpoint()).collect();
    format!("[upstream.{name}]\nendpoints = {endpoints:?}\n\n")
}

/// `[[route]]` from this path to this upstream.
fn route(path: &str, upstream: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\nupstream = \"{upstream}\"\n\n")
}

/// Makes a session of `wire`, on `path`.
async fn opened(mut wire: Wire, path: &str) -> Wire {
    wire.send(handshake(path)).await;
    let answer = wire.head().await;
    assert_eq!(answer.status(), Some(101), "{answer:?}");
    wire
}

/// A session on `path`.
async fn session(proxy: &Proxy, path: &str) -> Wire {
    opened(proxy.plain().await, path).await
}

/// A session on `path`, and the name with which its endpoint greets it.
async fn greeted(proxy: &Proxy, path: &str) -> (Wire, String) {
    let mut wire = session(proxy, path).await;
    let greeting = wire.frame().await;
    assert_eq!(greeting.opcode, TEXT);
    (wire, String::from_utf8(greeting.payload).expect("a name"))
}

/// Checks that a session goes on: its upstream answers a Ping.
async fn goes_on(wire: &mut Wire) {
    wire.send(masked(PING, "still here?")).await;
    let answer = wire.frame().await;
    assert_eq!((answer.opcode, &*answer.payload), (PONG, &b"still here?"[..]));
}

/// Reads what the configuration file says, by SIGHUP.
async fn reloaded(proxy: &Proxy) -> String {
    let outcome = proxy.reload().await;
    assert!(outcome.contains(" reloaded "), "{outcome}\n{}", proxy.stderr());
    outcome
}

/// The sessions that have ended, by why.
fn ends<'a>(records: &'a [Value], why: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["event"] == "end" && record["why"] == why).collect()
}

/// Appends tables to the configuration file.
fn append(proxy: &Proxy, tables: &str) {
    let path = proxy.file("proxy.toml");
    let text = std::fs::read_to_string(&path).expect("the file is ours");
    std::fs::write(&path, format!("{text}\n{tables}")).expect("the file is ours");
}

/// A route that is gone takes exactly its sessions with it, and is 404 to whoever asks for it again.
#[tokio::test]
async fn a_removed_route_sends_its_sessions_away_and_no_others() {
    let echo = Served::echo().await;
    let (one, two) = (route("/one", "app"), route("/two", "app"));
    let toml = format!("{HERE}{}{one}{two}", upstream("app", &[&echo]));
    let proxy = Setup::whole(&toml).start().await;
    let (mut going, mut staying) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        going.push(session(&proxy, "/one").await);
        staying.push(session(&proxy, "/two").await);
    }
    let mut kept_alive = proxy.plain().await;
    assert_ne!(kept_alive.get("/one").await.status(), 404);

    proxy.edit(&one, "");
    let outcome = reloaded(&proxy).await;
    assert!(outcome.contains("1 route removed"), "{outcome}");
    for wire in &mut going {
        wire.expect_close(1001).await;
    }
    kept_alive.get("/one").await.refused(404, "route");
    drop(going);
    eventually("three records", || ends(&proxy.records(), "route removed").len() == 3).await;
    for record in ends(&proxy.records(), "route removed") {
        assert_eq!((&record["route"], &record["ended_by"]), (&"*/one".into(), &"tidegate".into()));
        assert_eq!(record["close_code_to_client"], 1001);
    }
    for wire in &mut staying {
        goes_on(wire).await;
    }
    let all = proxy.records();
    assert_eq!(all.iter().filter(|record| record["event"] == "end").count(), 3, "{all:?}");
}

/// A route that was removed and is written again is a new one: it takes sessions, and keeps them.
#[tokio::test]
async fn a_route_that_comes_back_takes_sessions() {
    let echo = Served::echo().await;
    let (one, two) = (route("/one", "app"), route("/two", "app"));
    let toml = format!("{HERE}{}{two}{one}", upstream("app", &[&echo]));
    let proxy = Setup::whole(&toml).start().await;
    proxy.edit(&one, "");
    reloaded(&proxy).await;
    append(&proxy, &one);
    reloaded(&proxy).await;
    goes_on(&mut session(&proxy, "/one").await).await;
}

/// An endpoint that is gone sends its sessions away with 1012, since they may come again at once, to another.
#[tokio::test]
async fn a_removed_endpoint_sends_its_sessions_away_and_no_others() {
    let (red, blue) = (Served::greeting("red").await, Served::greeting("blue").await);
    let both = upstream("app", &[&red, &blue]);
    let proxy = Setup::whole(&format!("{HERE}{both}{}", route("/", "app"))).start().await;
    let (mut going, mut staying) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let (wire, name) = greeted(&proxy, "/").await;
        if name == "red" { going.push(wire) } else { staying.push(wire) }
    }
    assert_eq!((going.len(), staying.len()), (3, 3));

    proxy.edit(&both, &upstream("app", &[&blue]));
    let outcome = reloaded(&proxy).await;
    assert!(outcome.contains("1 endpoint removed"), "{outcome}");
    for wire in &mut going {
        wire.expect_close(1012).await;
    }
    drop(going);
    eventually("three records", || ends(&proxy.records(), "endpoint removed").len() == 3).await;
    for record in ends(&proxy.records(), "endpoint removed") {
        assert_eq!(record["endpoint"], red.endpoint());
        assert_eq!(record["close_code_to_client"], 1012);
    }
    for wire in &mut staying {
        goes_on(wire).await;
    }
    assert_eq!(greeted(&proxy, "/").await.1, "blue");
}

/// An upstream that is only renamed is the same: nobody is sent away, and its endpoints know what they serve.
#[tokio::test]
async fn a_renamed_upstream_loses_nobody() {
    let echo = Served::echo().await;
    let (old, new) = ("app", "application");
    let toml = format!("{HERE}{}{}", upstream(old, &[&echo]), route("/", old));
    let proxy = Setup::whole(&toml).start().await;
    let mut before = session(&proxy, "/").await;
    let renamed = format!("{HERE}{}{}", upstream(new, &[&echo]), route("/", new));
    proxy.edit(&toml, &renamed);
    assert!(!reloaded(&proxy).await.contains("removed"));
    goes_on(&mut before).await;
    let mut after = session(&proxy, "/").await;
    goes_on(&mut after).await;
    let upstreams = proxy.told("GET", "/status").await["upstreams"].take();
    assert_eq!(upstreams.as_array().map(Vec::len), Some(1), "{upstreams}");
    assert_eq!(upstreams[0]["upstream"], new);
    assert_eq!(upstreams[0]["endpoints"][0]["in_flight"], 2, "{upstreams}");
    assert!(ends(&proxy.records(), "endpoint removed").is_empty());
}

/// The limits of a route are those that it had when a session opened.
#[tokio::test]
async fn a_changed_limit_applies_to_new_sessions_only() {
    let echo = Served::echo().await;
    let toml = format!("{HERE}{}{}", upstream("app", &[&echo]), route("/", "app"));
    let proxy = Setup::whole(&toml).start().await;
    let mut before = session(&proxy, "/").await;
    proxy.edit("path = \"/\"", "path = \"/\"\nmax_message = \"1KiB\"");
    reloaded(&proxy).await;
    let long = masked(TEXT, [b'x'; 2000]);
    before.send(&long).await;
    assert_eq!(before.frame().await.payload.len(), 2000);
    let mut after = session(&proxy, "/").await;
    after.send(&long).await;
    after.expect_close(1009).await;
}

/// A route that leads elsewhere now leads only newcomers there.
#[tokio::test]
async fn a_changed_upstream_applies_to_new_sessions_only() {
    let (red, blue) = (Served::greeting("red").await, Served::greeting("blue").await);
    let upstreams = upstream("red", &[&red]) + &upstream("blue", &[&blue]);
    let toml = format!("{HERE}{upstreams}{}", route("/", "red"));
    let proxy = Setup::whole(&toml).start().await;
    let (mut before, name) = greeted(&proxy, "/").await;
    assert_eq!(name, "red");
    proxy.edit("upstream = \"red\"", "upstream = \"blue\"");
    reloaded(&proxy).await;
    let (mut after, name) = greeted(&proxy, "/").await;
    assert_eq!(name, "blue");
    for wire in [&mut before, &mut after] {
        goes_on(wire).await;
    }
    assert_eq!((red.open(), blue.open()), (1, 1));
}

/// A request that is under way is answered as if nothing had happened, though its route is gone.
#[tokio::test]
async fn a_request_under_way_outlives_its_route() {
    let upstream = Upstream::raw().await;
    let one = route("/one", "app");
    let app = format!("[upstream.app]\nendpoints = [\"{}\"]\n\n", upstream.endpoint());
    let proxy = Setup::whole(&format!("{HERE}{app}{one}{}", route("/two", "app"))).start().await;
    let mut client = proxy.plain().await;
    client.send("GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    proxy.edit(&one, "");
    reloaded(&proxy).await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(client.response().await.body, "done");
    client.get("/one").await.refused(404, "route");
}

/// What an operator drains stays drained, whatever else is reloaded.
#[tokio::test]
async fn a_drained_route_stays_drained() {
    let echo = Served::echo().await;
    let toml = format!("{HERE}{}{}", upstream("app", &[&echo]), route("/", "app"));
    let proxy = Setup::whole(&toml).start().await;
    proxy.told("POST", "/drain?route=/").await;
    proxy.edit("path = \"/\"", "path = \"/\"\nidle_timeout = \"5m\"");
    reloaded(&proxy).await;
    let mut client = proxy.plain().await;
    client.send(handshake("/")).await;
    client.response().await.refused(503, "");
    proxy.told("POST", "/undrain?route=/").await;
    goes_on(&mut session(&proxy, "/").await).await;
}

/// Fewer sessions than are open: nobody is sent away, and nobody let in until there is room.
#[tokio::test]
async fn a_lowered_limit_on_sessions_closes_nobody() {
    let echo = Served::echo().await;
    let toml = format!("{HERE}{}{}", upstream("app", &[&echo]), route("/", "app"));
    let proxy = Setup::whole(&toml).start().await;
    let mut open = [session(&proxy, "/").await, session(&proxy, "/").await];
    append(&proxy, "[limits]\nsessions = 1");
    reloaded(&proxy).await;
    let mut refused = proxy.plain().await;
    refused.send(handshake("/")).await;
    refused.response().await.refused(503, "websockets");
    for wire in &mut open {
        goes_on(wire).await;
    }
    proxy.edit("sessions = 1", "sessions = 3");
    reloaded(&proxy).await;
    goes_on(&mut session(&proxy, "/").await).await;
}

/// A limit for each address that was not there before counts from then on, and is gone without a trace later.
#[tokio::test]
async fn a_limit_for_each_address_can_be_added_and_taken_away() {
    let echo = Served::echo().await;
    let toml = format!("{HERE}{}{}", upstream("app", &[&echo]), route("/", "app"));
    let proxy = Setup::whole(&toml).start().await;
    let mut uncounted = session(&proxy, "/").await;
    append(&proxy, "[limits]\nconnections_per_ip = 1");
    reloaded(&proxy).await;
    let mut counted = session(&proxy, "/").await;
    proxy.plain().await.get("/").await.refused(429, "address");
    for wire in [&mut uncounted, &mut counted] {
        goes_on(wire).await;
    }
    proxy.edit("connections_per_ip = 1", "");
    reloaded(&proxy).await;
    goes_on(&mut session(&proxy, "/").await).await;
}

/// As logrotate does it: the file is moved away, and after a reload the lines go on in a new one of the old name.
#[tokio::test]
async fn an_access_log_that_was_moved_away_is_opened_anew() {
    let proxy = Setup::builtin().also("[log]\npath = \"access.log\"").start().await;
    let has = |name: &str, path: &str| {
        let text = std::fs::read_to_string(proxy.file(name)).unwrap_or_default();
        text.lines().any(|line| line.contains(path))
    };
    proxy.plain().await.get("/first").await;
    eventually("the first line", || has("access.log", "/first")).await;
    std::fs::rename(proxy.file("access.log"), proxy.file("moved.log")).expect("the folder is ours");
    proxy.plain().await.get("/second").await;
    eventually("the second line, still in the old file", || has("moved.log", "/second")).await;
    reloaded(&proxy).await;
    proxy.plain().await.get("/third").await;
    eventually("the third line, in the new file", || has("access.log", "/third")).await;
    assert!(!has("moved.log", "/third") && !has("access.log", "/second"));
}

/// How the lines look, and what is left out of them, changes with a reload.
#[tokio::test]
async fn the_look_of_the_access_log_changes() {
    let log = "[log]\naccess = \"json\"";
    let proxy = Setup::builtin().also(&format!("{log}\npath = \"access.log\"")).start().await;
    let read = || std::fs::read_to_string(proxy.file("access.log")).unwrap_or_default();
    proxy.plain().await.get("/?room=red").await;
    eventually("a line of JSON", || read().contains("\"path\":\"/?room=red\"")).await;
    proxy.edit(log, "[log]\naccess = \"text\"\nredact = [\"room\"]");
    reloaded(&proxy).await;
    proxy.plain().await.get("/?room=green").await;
    eventually("a line of text", || read().lines().count() == 2).await;
    let line = read().lines().last().unwrap_or_default().to_owned();
    assert!(!line.contains('{') && line.contains("/?room=[redacted]"), "{line}");

    proxy.edit("access = \"text\"", "access = \"off\"");
    reloaded(&proxy).await;
    proxy.plain().await.get("/?room=blue").await;
    proxy.edit("access = \"off\"", "access = \"text\"");
    reloaded(&proxy).await;
    proxy.plain().await.get("/last").await;
    eventually("a line after those that were not wanted", || read().contains("/last")).await;
    assert_eq!(read().lines().count(), 3, "{}", read());
}

/// The frames that the command line asked for are printed after a reload as before, for a new route too; and a route
/// that is to be traced cannot be taken away.
#[tokio::test]
async fn traced_frames_are_still_printed() {
    let echo = Served::echo().await;
    let (chat, rest) = (route("/chat", "app"), route("/rest", "app"));
    let toml = format!("{HERE}{}{chat}{rest}", upstream("app", &[&echo]));
    let proxy = Setup::whole(&toml).arguments(&["--trace-frames=/chat"]).start().await;
    proxy.edit(&chat, &chat.replace("upstream", "idle_timeout = \"5m\"\nupstream"));
    reloaded(&proxy).await;
    goes_on(&mut session(&proxy, "/chat").await).await;
    proxy.says("direction=\"client > upstream\" opcode=\"ping\"").await;

    proxy.edit("path = \"/chat\"", "path = \"/chatter\"");
    let (status, told) = proxy.ask("POST", "/reload").await;
    assert_eq!(status, 422, "{told}");
    assert!(told.contains("there is no route `/chat` to trace"), "{told}");
    goes_on(&mut session(&proxy, "/chat").await).await;
}

/// A process without a file reads its command line again, and says so. It listens where the shipped file does, so this
/// needs one of those ports.
#[tokio::test]
async fn a_process_without_a_file_reloads() {
    let upstream = Served::named("no file").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(TIDEGATE);
    command.args(["--to", upstream.endpoint()]).current_dir(folder.path());
    command.env("XDG_DATA_HOME", folder.path()).env_remove("RUST_LOG");
    let program = Program::start(&mut command);
    let Some(proxy) = Proxy::at_default_ports(program, folder).await else { return };
    let port = proxy.address(Over::Plain).port();
    for _ in 0..2 {
        assert!(reloaded(&proxy).await.contains("(--to)"));
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        let mut client = Wire::new(stream.expect("it still listens"));
        assert_eq!(client.get("/").await.body, "no file");
    }
}
