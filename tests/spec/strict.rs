//! Two strict endpoints, Node.js `ws` and Python `websockets`, that check every frame, while the proxy pings both of
//! them all the time and is stopped in the middle.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::programs::{Program, node, python};
use crate::support::{Over, Setup, noise, within};

/// Sessions of one run. There are eight.
const SESSIONS: usize = 130;

/// What a program says of each of its sessions at the end.
async fn reports(mut program: Program) -> BTreeMap<u64, Value> {
    assert_eq!(program.exited().await, 0);
    let parse = |line: &String| serde_json::from_str::<Value>(line).ok().filter(Value::is_object);
    let reports = program.stdout.so_far();
    reports
        .iter()
        .filter_map(parse)
        .map(|report| (report["session"].as_u64().expect("its number"), report))
        .collect()
}

/// One run: all sessions, numbered from `first`, exchange messages as fast as they can, until the proxy is stopped after
/// about `messages`.
async fn exchange(clients_are_node: bool, over: Over, first: u64, messages: u64) {
    let run = |is_node: bool, arguments: &[&str]| {
        if is_node { node("exchange.js", arguments) } else { python("exchange.py", arguments) }
    };
    let count = SESSIONS.to_string();
    let server = run(!clients_are_node, &["server", &count]);
    let line = server.stdout.containing("listening on ").await;
    let port = line.rsplit(' ').next().unwrap_or_default();
    let proxy = Setup::to(&format!("http://127.0.0.1:{port}"))
        .route("ping_after = \"2ms\"\nclose_timeout = \"40s\"")
        .start()
        .await;
    let ca = proxy.file("certs/ca.pem");
    let (url, first) = (proxy.ws_url(over, ""), first.to_string());
    let client = run(clients_are_node, &["client", &count, &url, &ca.to_string_lossy(), &first]);
    client.stdout.containing("open").await;
    let is_enough = |line: &str| {
        line.strip_prefix("received ").and_then(|number| number.parse::<u64>().ok())
            >= Some(messages)
    };
    client.stdout.find("number of messages", is_enough).await;
    proxy.drain();
    let (clients, servers) =
        within("both to leave", async { (reports(client).await, reports(server).await) }).await;

    assert_eq!((clients.len(), servers.len()), (SESSIONS, SESSIONS));
    let number = |report: &Value, field: &str| report[field].as_u64().expect("a count");
    for (client, server) in clients.values().zip(servers.values()) {
        // Wrong or missing numbers, protocol errors and foreign Pongs are among the errors.
        assert_eq!(
            (&client["errors"], &server["errors"]),
            (&Value::Array(vec![]), &Value::Array(vec![])),
            "{client} {server}"
        );
        assert_eq!(
            (&client["code"], &server["code"]),
            (&1001.into(), &1001.into()),
            "{client} {server}"
        );
        // The last message may have been on its way when the Close came, whole or in part.
        let sent = number(client, "sent")..=number(client, "attempted");
        assert!(sent.contains(&number(server, "received")), "{client} {server}");
        assert!(number(client, "received") <= number(server, "attempted"), "{client} {server}");
    }
    let ends: Vec<Value> =
        proxy.records().into_iter().filter(|record| record["event"] == "end").collect();
    for pings in ["pings_to_client", "pings_to_upstream"] {
        let pinged = ends.iter().filter(|end| number(end, pings) > 0).count();
        assert!(pinged > SESSIONS / 2, "{pinged} sessions have {pings}");
    }
    for end in &ends {
        assert_eq!((&end["why"], &end["protocol_error"]), (&"drain".into(), &Value::Null), "{end}");
        let server = &servers[&session_of(end)];
        assert_eq!(end["client_to_upstream_messages"], server["received"], "{end} {server}");
        let client = &clients[&session_of(end)];
        assert_eq!(end["upstream_to_client_messages"], client["received"], "{end} {client}");
        // Every Ping of the proxy's came, and only to whom it was for, and the last was answered.
        assert_eq!(end["pings_to_client"], client["pinged"], "{end} {client}");
        assert_eq!(end["pings_to_upstream"], server["pinged"], "{end} {server}");
        assert_eq!(end["client_rtt_ms"].is_f64(), number(client, "pinged") > 0, "{end} {client}");
        assert_eq!(end["upstream_rtt_ms"].is_f64(), number(server, "pinged") > 0, "{end} {server}");
    }
    assert_eq!(ends.len(), SESSIONS);
    assert_eq!(proxy.exited().await, 0);
}

/// The number of a session is its path.
fn session_of(end: &Value) -> u64 {
    end["path"].as_str().and_then(|path| path[1..].parse().ok()).expect("a number as its path")
}

/// Pings between messages and fragments (RFC 6455 §5.4, §5.5.2) and a Close at any moment (§5.5.1) break no rule that a
/// strict endpoint checks, compressed (RFC 7692) or not, and lose no message before the Close: 1,040 sessions.
#[tokio::test]
async fn strict_endpoints_find_no_fault() {
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut draws = noise(seed, 8).into_iter().map(u64::from).zip(0..);
    for clients_are_node in [true, false] {
        for over in [Over::Plain, Over::Tls, Over::Plain, Over::Tls] {
            let (draw, run) = draws.next().expect("there are eight");
            let (first, messages) = ((seed * 8 + run) % 100_000 * 1_000, 1_000 + draw * 16);
            eprintln!(
                "clients in Node.js: {clients_are_node}, {over:?}, from {first}, {messages} messages"
            );
            exchange(clients_are_node, over, first, messages).await;
        }
    }
}
