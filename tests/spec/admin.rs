//! The admin interface: who may ask, what is told, and what can be done to sessions one by one.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixStream};

use crate::support::frames::{BINARY, CLOSE, TEXT, close, masked, plain};
use crate::support::proxy::{exchange, websocket_on};
use crate::support::wire::handshake;
use crate::support::{BOTH, Over, Proxy, Served, Setup, Upstream, Wire, eventually, within};

/// The ids of the sessions that a query lists.
async fn ids(proxy: &Proxy, query: &str) -> Vec<String> {
    let told = proxy.told("GET", &format!("/sessions?{query}")).await;
    let sessions = told["sessions"].as_array().expect("a list");
    sessions.iter().map(|session| session["id"].as_str().expect("an id").to_owned()).collect()
}

/// The socket is for its owner alone, in a folder of its own, and is gone with the process.
#[tokio::test]
async fn the_socket_is_its_owners() {
    let proxy = Setup::builtin().start().await;
    let mode = |name: &str| {
        let found = std::fs::metadata(proxy.file(name)).expect("it is there");
        found.permissions().mode() & 0o777
    };
    assert_eq!((mode("run"), mode("run/tidegate.sock")), (0o700, 0o600));
    let socket = proxy.file("run/tidegate.sock");
    proxy.drain();
    eventually("the socket to be removed", || !socket.exists()).await;
    assert_eq!(proxy.exited().await, 0);
}

/// What is left of a process that was killed is no obstacle; one that answers is.
#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced() {
    let setup = Setup::builtin();
    let path = setup.folder().join("run/tidegate.sock");
    std::fs::create_dir(setup.folder().join("run")).expect("the folder is ours");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let proxy = setup.start().await;
    assert_eq!(proxy.ask("GET", "/livez").await, (200, "alive\n".into()));

    // What is no socket is left alone, whatever the configuration says.
    let setup = Setup::builtin().also("[admin]\nsocket = \"precious\"");
    let precious = setup.folder().join("precious");
    std::fs::write(&precious, "a key").expect("the folder is ours");
    let kept = setup.kept();
    let folder = kept.folder().to_owned();
    assert_eq!(kept.fails().await.0, 1);
    assert_eq!(std::fs::read_to_string(&precious).expect("it is still there"), "a key");
    std::fs::remove_dir_all(folder).expect("the folder is ours");

    let taken = format!("[admin]\nsocket = {path:?}");
    let (code, stderr) = Setup::builtin().also(&taken).fails().await;
    assert_eq!(code, 1);
    assert!(stderr.contains("another Tidegate answers on the admin socket"), "{stderr}");
    assert_eq!(proxy.ask("GET", "/livez").await.0, 200);
}

/// A socket that nobody asked for may be missing; the proxy works without it. One that is named may not.
#[tokio::test]
async fn only_a_socket_that_is_named_is_needed() {
    let setup = Setup::builtin();
    std::fs::write(setup.folder().join("run"), "a file in its place").expect("the folder is ours");
    let proxy = setup.start().await;
    proxy.says("cannot make the admin socket").await;
    assert_eq!(proxy.plain().await.get("/").await.status(), 200);

    let setup = Setup::builtin().also("[admin]\nsocket = \"run/t.sock\"");
    std::fs::write(setup.folder().join("run"), "a file in its place").expect("the folder is ours");
    let (code, stderr) = setup.fails().await;
    assert_eq!(code, 1);
    assert!(stderr.contains("run/t.sock"), "{stderr}");

    let proxy = Setup::builtin().also("[admin]\nsocket = \"off\"").start().await;
    assert!(!proxy.file("run").exists());
}

/// By TCP one may look, and do nothing; and a name that is not this machine's leads nowhere, for a page in a browser
/// could have its own name resolve to 127.0.0.1.
#[tokio::test]
async fn by_tcp_one_may_only_look() {
    let proxy = Setup::builtin().also("[admin]\naddress = \"127.0.0.1:0\"").start().await;
    let line = proxy.says("the admin interface can be asked").await;
    let address = line.split("address=").nth(1).expect("its address").trim().to_owned();
    let ask = async |request: String| {
        let stream = TcpStream::connect(&address).await.expect("it listens");
        let mut wire = Wire::new(stream);
        wire.send(request).await;
        wire.response().await.status()
    };
    for (line, host, status) in [
        ("GET /metrics", "localhost:9901", 200),
        ("GET /sessions", "127.0.0.1", 200),
        ("GET /livez", "[::1]:1", 200),
        ("HEAD /readyz", "LOCALHOST", 200),
        ("GET /sessions", "evil.example", 403),
        ("POST /drain", "localhost", 403),
        ("POST /reload", "localhost", 403),
        ("POST /sessions/close?all=true", "localhost", 403),
        ("DELETE /sessions", "localhost", 405),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(ask(request).await, status, "{line} at {host}");
    }
    assert_eq!(proxy.ask("GET", "/readyz").await.0, 200);
}

/// What is asked wrongly is explained, and nothing is done.
#[tokio::test]
async fn what_is_asked_wrongly_is_explained() {
    let (proxy, upstream) = Proxy::scripted().await;
    let (_client, _leg) = proxy.session(Over::Plain, &upstream).await;
    for (method, target, status, part) in [
        ("GET", "/", 404, "/metrics"),
        ("GET", "/drain", 405, "by POST"),
        ("POST", "/status", 405, "by GET"),
        ("PUT", "/status", 405, "PUT"),
        ("GET", "/sessions?rout=x", 400, "`rout`"),
        ("GET", "/sessions?client=here", 400, "`here` is no network"),
        ("GET", "/sessions?older=soon", 400, "older"),
        ("POST", "/sessions/close", 400, "say which sessions"),
        ("POST", "/sessions/close?all=true&route=/", 400, "say which sessions"),
        ("POST", "/sessions/close?all=true&code=1006", 400, "1006"),
        ("POST", "/sessions/close?all=true&rate=fast", 400, "rate"),
        ("POST", "/drain?route=/nowhere", 404, "there is */"),
        ("POST", "/drain?upstream=app", 400, "`endpoint`"),
        ("POST", "/drain?upstream=app&endpoint=x:1", 404, "no endpoint"),
        ("POST", "/undrain", 400, "name either"),
        ("POST", "/undrain?route=/", 404, "not being drained"),
    ] {
        let (code, body) = proxy.ask(method, target).await;
        assert_eq!(code, status, "{method} {target}: {body}");
        assert!(body.contains(part), "{method} {target}: {body}");
    }
    assert_eq!(ids(&proxy, "").await.len(), 1);
    assert_eq!(proxy.ask("GET", "/readyz").await, (200, "ready\n".into()));
}

/// A session as it is told: where it is from and where it leads, and what went through it so far.
#[tokio::test]
async fn a_session_is_told_as_it_is() {
    for over in BOTH {
        let (proxy, upstream) = Proxy::scripted().await;
        let mut client = proxy.connect(over).await;
        client.send(handshake("/room?token=secret&x=1")).await;
        let mut leg = upstream.accept().await;
        leg.accept().await;
        client.head().await;
        client.send(masked(TEXT, "hello")).await;
        leg.expect(masked(TEXT, "hello")).await;
        leg.send([plain(TEXT, "a"), plain(BINARY, "bc")].concat()).await;
        client.expect([plain(TEXT, "a"), plain(BINARY, "bc")].concat()).await;

        let told = proxy.told("GET", "/sessions").await;
        assert_eq!(told["total"], 1);
        let session = &told["sessions"][0];
        let open = proxy.event("open").await;
        for (field, wanted) in [
            ("id", open["id"].clone()),
            ("client", open["client"].clone()),
            ("listener", proxy.address(over).to_string().into()),
            ("tls", if over == Over::Tls { "1.3".into() } else { Value::Null }),
            ("path", open["path"].clone()),
            ("route", "*/".into()),
            ("upstream", "app".into()),
            ("endpoint", upstream.endpoint().into()),
            ("state", "open".into()),
            ("client_to_upstream_bytes", masked(TEXT, "hello").len().into()),
            ("client_to_upstream_messages", 1.into()),
            ("upstream_to_client_bytes", 7.into()),
            ("upstream_to_client_messages", 2.into()),
        ] {
            assert_eq!(session[field], wanted, "{field}");
        }
        assert!(!session.to_string().contains("secret"), "{session}");
        client.send(masked(CLOSE, close(1000, ""))).await;
        leg.expect(masked(CLOSE, close(1000, ""))).await;
        let told = proxy.told("GET", "/sessions").await;
        assert_eq!(told["sessions"][0]["state"], "closing");
    }
}

/// Sessions are found by route, upstream, endpoint, client, age and silence, sorted and cut.
#[tokio::test]
async fn sessions_are_filtered_and_sorted() {
    let (one, two) = (Served::echo().await, Served::echo().await);
    let chat = format!(
        "[upstream.chat]\nendpoints = [\"{}\"]\n[[route]]\npath = \"/chat\"\nupstream = \"chat\"",
        two.endpoint()
    );
    let proxy = Setup::to(one.endpoint()).also(&chat).start().await;
    let mut all = Vec::new();
    let mut sockets = Vec::new();
    for (path, source) in [("/", "127.0.0.1"), ("/chat/1", "127.0.0.1"), ("/chat/2", "127.0.0.9")] {
        let wire = proxy.plain_from(source).await;
        sockets.push(websocket_on(wire, &proxy.ws_url(Over::Plain, path)).await);
        let open = proxy.record(|record| record["event"] == "open" && record["path"] == path).await;
        all.push(open["id"].as_str().expect("an id").to_owned());
    }
    let endpoint = format!("endpoint={}", one.endpoint().trim_start_matches("http://"));
    let by_id = format!("id={}&id={}", all[0], all[2]);
    for (query, wanted) in [
        ("", &[0, 1, 2][..]),
        ("route=/chat", &[1, 2]),
        ("route=*/chat", &[1, 2]),
        ("route=/", &[0]),
        ("upstream=chat", &[1, 2]),
        ("upstream=chat&client=127.0.0.9", &[2]),
        ("client=127.0.0.0/29", &[0, 1]),
        (&endpoint, &[0]),
        (&by_id, &[0, 2]),
        ("older=1h", &[]),
        ("idle=1h", &[]),
        ("older=0s&idle=0s", &[0, 1, 2]),
        ("limit=2", &[0, 1]),
        ("route=/nowhere", &[]),
    ] {
        let wanted: Vec<&String> = wanted.iter().map(|index| &all[*index]).collect();
        let found = ids(&proxy, &format!("sort=age&{query}")).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{query}");
    }
    assert_eq!(proxy.told("GET", "/sessions?limit=1").await["total"], 3);
    exchange(&mut sockets[1], &"x".repeat(1000)).await;
    assert_eq!(ids(&proxy, "sort=bytes&limit=1").await, all[1..2]);
}

/// An operator closes some sessions with a code and a reason of his own, and the log says so; the others go on.
#[tokio::test]
async fn sessions_are_closed_with_a_code_and_a_reason() {
    let (proxy, upstream) = Proxy::scripted().await;
    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    let (mut other, mut other_leg) = proxy.session(Over::Tls, &upstream).await;
    let id = proxy.event("open").await["id"].as_str().expect("an id").to_owned();
    let done =
        proxy.told("POST", &format!("/sessions/close?id={id}&code=4005&reason=be%20good")).await;
    assert_eq!(done["sessions"], 1);
    let frame = client.frame().await;
    assert_eq!((frame.code(), &frame.payload[2..]), (Some(4005), &b"be good"[..]));
    // What it says until its own Close is delivered.
    client.send([masked(TEXT, "last"), masked(CLOSE, close(4005, ""))].concat()).await;
    leg.expect([masked(TEXT, "last"), masked(CLOSE, close(4005, ""))].concat()).await;
    leg.send(plain(CLOSE, close(4005, ""))).await;
    client.expect_end().await;
    let end = proxy.event("end").await;
    let wanted = json!({"ended_by": "tidegate", "why": "closed by the operator", "close_code_to_client": 4005});
    for (field, wanted) in wanted.as_object().expect("an object") {
        assert_eq!(&end[field], wanted, "{field}");
    }
    other.send(masked(TEXT, "still here")).await;
    other_leg.expect(masked(TEXT, "still here")).await;
}

/// With a rate they are closed one after the other.
#[tokio::test]
async fn sessions_are_closed_at_a_rate() {
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(proxy.websocket(Over::Plain, "/").await);
    }
    let began = std::time::Instant::now();
    assert_eq!(proxy.told("POST", "/sessions/close?all=true&rate=10/s").await["sessions"], 20);
    assert!(upstream.open() > 0, "some are still there");
    let reading = sockets.into_iter().map(|mut socket| async move {
        use futures_util::StreamExt as _;
        while let Some(Ok(_)) = socket.next().await {}
    });
    within("all to be closed", futures_util::future::join_all(reading)).await;
    // Each worker spreads its own over the 2 s that 20 take: the last share is the last tenth of them, or later.
    assert!(began.elapsed().as_millis() > 900, "{:?}", began.elapsed());
}

/// Whoever watches is told of the sessions that are there, of those that open and of those that end.
#[tokio::test]
async fn sessions_are_watched_as_they_come_and_go() {
    let (proxy, upstream) = Proxy::scripted().await;
    let (_first, _leg) = proxy.session(Over::Plain, &upstream).await;
    let socket = UnixStream::connect(proxy.file("run/tidegate.sock")).await;
    let mut socket = socket.expect("the admin socket is open");
    let request = "GET /sessions?watch=true&route=/ HTTP/1.1\r\nHost: tidegate\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.expect("it reads");
    let mut received = String::new();
    let mut events = async |count: usize| {
        let lines = |text: &str| -> Vec<Value> {
            // Between them stand the sizes of chunks, which are JSON too at times.
            let objects = text.lines().filter(|line| line.starts_with('{'));
            objects.filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        while lines(&received).len() < count {
            let mut chunk = [0; 4096];
            let read = within("an event", socket.read(&mut chunk)).await.expect("it goes on");
            assert!(read > 0, "the stream has ended: {received}");
            received += &String::from_utf8_lossy(&chunk[..read]);
        }
        lines(&received).remove(count - 1)
    };
    assert_eq!(events(1).await["event"], "listed");
    let (mut client, mut leg) = proxy.session(Over::Tls, &upstream).await;
    let opened = events(2).await;
    assert_eq!((&opened["event"], &opened["tls"]), (&"open".into(), &"1.3".into()));
    client.send(masked(CLOSE, close(1000, ""))).await;
    leg.expect(masked(CLOSE, close(1000, ""))).await;
    leg.send(plain(CLOSE, close(1000, ""))).await;
    leg.finish().await;
    client.expect_close(1000).await;
    drop(client);
    let ended = events(3).await;
    assert_eq!(
        (&ended["event"], &ended["id"], &ended["ended_by"], &ended["why"]),
        (&"end".into(), &opened["id"], &"client".into(), &"closed".into())
    );
}

/// A list is made while sessions exchange messages, and none of them is held up for as long as the list takes.
#[tokio::test]
async fn a_list_of_thousands_lets_the_traffic_through() {
    use futures_util::stream::{self, StreamExt as _};
    const SESSIONS: usize = 2_000;
    let upstream = Served::echo().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let opened = stream::iter(0..SESSIONS).map(|_| proxy.websocket(Over::Plain, "/"));
    let _sessions: Vec<_> =
        within("the sessions to open", opened.buffer_unordered(32).collect()).await;
    let mut busy = proxy.websocket(Over::Plain, "/").await;
    let mut listing = std::pin::pin!(proxy.told("GET", "/sessions"));
    let mut exchanged = 0;
    let told = loop {
        tokio::select! {
            told = &mut listing => break told,
            () = exchange(&mut busy, "x") => exchanged += 1,
        }
    };
    assert_eq!(told["total"], SESSIONS + 1);
    assert_eq!(told["sessions"].as_array().map(Vec::len), Some(SESSIONS + 1));
    assert!(exchanged > 0, "no message went through beside the list");
}

/// The status has the routes with their counters, the endpoints, certificates and listeners.
#[tokio::test]
async fn the_status_tells_what_runs() {
    let upstream = Upstream::raw().await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let (mut client, mut leg) = proxy.session(Over::Tls, &upstream).await;
    client.send(masked(TEXT, "hello")).await;
    leg.expect(masked(TEXT, "hello")).await;
    // What goes through is counted once in a sweep.
    let status = within("the message to be counted", async {
        loop {
            let status = proxy.told("GET", "/status").await;
            if status["routes"][0]["client_to_upstream_messages_total"] == 1 {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    for (pointer, wanted) in [
        ("/phase", json!("running")),
        ("/sessions", json!(1)),
        ("/connections", json!(1)),
        ("/tls_handshakes_total", json!(1)),
        ("/listeners/1", json!({"address": proxy.address(Over::Tls).to_string(), "tls": true})),
        ("/routes/0/route", json!("*/")),
        ("/routes/0/state", json!("up")),
        ("/routes/0/sessions", json!(1)),
        ("/routes/0/client_to_upstream_bytes_total", json!(masked(TEXT, "hello").len())),
        ("/upstreams/0/endpoints/0/endpoint", json!(upstream.endpoint())),
        ("/upstreams/0/endpoints/0/state", json!("up")),
        ("/upstreams/0/endpoints/0/in_flight", json!(1)),
        ("/certificates/0/days_left", json!(89)),
        ("/config/last_failure", Value::Null),
    ] {
        assert_eq!(status.pointer(pointer), Some(&wanted), "{pointer} in {status}");
    }
}
