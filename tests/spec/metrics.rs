//! The metrics: what Prometheus is told, what it counts, and that the README lists it.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::frames::{CLOSE, PING, TEXT, close, masked, plain, with_first_byte};
use crate::support::wire::handshake;
use crate::support::{Over, Proxy, Setup, Upstream, eventually, within};

/// Every sample: its name, its labels as they are written, its value.
type Samples = BTreeMap<String, f64>;

async fn scrape(proxy: &Proxy) -> (String, Samples) {
    let (status, text) = proxy.ask("GET", "/metrics").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("# EOF\n"), "OpenMetrics ends with EOF");
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    });
    let samples = samples.collect();
    (text, samples)
}

/// Some of everything: a request, refusals, sessions that end in several ways, a Ping.
async fn exercise() -> (Proxy, Upstream) {
    let upstream = Upstream::raw().await;
    let setup = Setup::to(upstream.endpoint()).route("ping_after = \"200ms\"");
    let proxy = setup.start().await;
    let mut client = proxy.connect(Over::Tls).await;
    let answer = async {
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        drop(leg);
    };
    let (response, ()) = tokio::join!(client.get("/"), answer);
    assert_eq!(response.status(), 204);
    let mut asker = proxy.plain().await;
    asker.send(handshake("/").replace("Version: 13", "Version: 8")).await;
    asker.response().await.refused(426, "13");
    let mut refused = proxy.plain().await;
    refused.send(handshake("/")).await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(refused.response().await.status(), 403);

    let (mut client, mut leg) = proxy.session(Over::Plain, &upstream).await;
    client.send([masked(TEXT, "one"), masked(TEXT, "two")].concat()).await;
    leg.expect([masked(TEXT, "one"), masked(TEXT, "two")].concat()).await;
    leg.send(plain(TEXT, "three")).await;
    client.expect(plain(TEXT, "three")).await;
    assert_eq!(client.answer_ping_as_client().await.len(), 12);
    leg.answer_ping_as_server().await;
    client.send(masked(CLOSE, close(4001, ""))).await;
    while leg.frame().await.opcode == PING {}
    leg.send(plain(CLOSE, close(1000, ""))).await;
    leg.finish().await;
    drop(client);
    proxy.record(|record| record["event"] == "end").await;

    // A frame that is not masked, and then nothing but the end of the client.
    let (mut client, mut leg) = proxy.session(Over::Tls, &upstream).await;
    let wrong = with_first_byte(0x81, b"unmasked", false);
    client.send(&wrong).await;
    leg.expect(&wrong).await;
    client.finish().await;
    leg.expect_end().await;
    leg.finish().await;
    let ended = |record: &serde_json::Value| {
        record["event"] == "end" && !record["protocol_error"].is_null()
    };
    proxy.record(ended).await;
    (proxy, upstream)
}

/// What is counted is what happened.
#[tokio::test]
async fn what_happened_is_counted() {
    let (proxy, upstream) = exercise().await;
    let (text, samples) = scrape(&proxy).await;
    let endpoint = format!("{{upstream=\"app\",endpoint=\"{}\"}}", upstream.endpoint());
    let listener = |over| format!("{{listener=\"{}\"", proxy.address(over));
    let masked_bytes = 2 * masked(TEXT, "one").len() + masked(CLOSE, close(4001, "")).len();
    for (name, value) in [
        ("tidegate_requests_total{route=\"*/\",status=\"2xx\"}".to_owned(), 1.0),
        ("tidegate_request_seconds_count{route=\"*/\"}".into(), 1.0),
        ("tidegate_request_seconds_bucket{le=\"+Inf\",route=\"*/\"}".into(), 1.0),
        ("tidegate_handshakes_total{route=\"*/\",status=\"1xx\"}".into(), 2.0),
        ("tidegate_handshakes_total{route=\"*/\",status=\"4xx\"}".into(), 2.0),
        ("tidegate_handshake_seconds_count{route=\"*/\"}".into(), 4.0),
        ("tidegate_refusals_total{reason=\"handshake\"}".into(), 1.0),
        ("tidegate_sessions{route=\"*/\"}".into(), 0.0),
        ("tidegate_sessions_opened_total{route=\"*/\"}".into(), 2.0),
        ("tidegate_sessions_ended_total{route=\"*/\",by=\"client\",why=\"closed\"}".into(), 2.0),
        ("tidegate_session_seconds_count{route=\"*/\"}".into(), 2.0),
        (
            "tidegate_session_bytes_total{route=\"*/\",direction=\"client_to_upstream\"}".into(),
            // The unmasked frame went through as well.
            (masked_bytes + 10) as f64,
        ),
        (
            "tidegate_session_messages_total{route=\"*/\",direction=\"client_to_upstream\"}".into(),
            2.0,
        ),
        (
            "tidegate_session_messages_total{route=\"*/\",direction=\"upstream_to_client\"}".into(),
            1.0,
        ),
        ("tidegate_close_codes_total{route=\"*/\",side=\"client\",code=\"4xxx\"}".into(), 1.0),
        ("tidegate_close_codes_total{route=\"*/\",side=\"client\",code=\"1006\"}".into(), 1.0),
        ("tidegate_close_codes_total{route=\"*/\",side=\"upstream\",code=\"1000\"}".into(), 1.0),
        ("tidegate_protocol_errors_total{route=\"*/\",side=\"client\"}".into(), 1.0),
        ("tidegate_protocol_errors_total{route=\"*/\",side=\"upstream\"}".into(), 0.0),
        (format!("tidegate_connections_accepted_total{}}}", listener(Over::Tls)), 2.0),
        (
            format!(
                "tidegate_tls_handshakes_total{},version=\"1.3\",resumed=\"false\"}}",
                listener(Over::Tls)
            ),
            2.0,
        ),
        (format!("tidegate_endpoint_up{endpoint}"), 1.0),
        (format!("tidegate_endpoint_draining{endpoint}"), 0.0),
        (format!("tidegate_endpoint_in_flight{endpoint}"), 0.0),
        (format!("tidegate_endpoint_failures_total{endpoint}"), 0.0),
        ("tidegate_draining".into(), 0.0),
        ("tidegate_config_last_reload_successful".into(), 1.0),
        ("tidegate_reloads_total{result=\"success\"}".into(), 0.0),
    ] {
        assert_eq!(samples.get(&name), Some(&value), "{name} in:\n{text}");
    }
    for side in ["client", "upstream"] {
        let pings = samples[&format!("tidegate_pings_total{{route=\"*/\",side=\"{side}\"}}")];
        assert!(pings >= 1.0, "{side}: {pings}");
    }
    let round_trips = "tidegate_ping_round_trip_seconds_count{route=\"*/\",side=\"client\"}";
    assert!(samples[round_trips] >= 1.0, "{text}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs_f64();
    assert!((now - samples["tidegate_start_time_seconds"]).abs() < 600.0);
    let (_, not_after) = samples
        .iter()
        .find(|(name, _)| name.starts_with("tidegate_certificate_not_after"))
        .expect("the certificate");
    assert!((80.0..100.0).contains(&((not_after - now) / 86400.0)), "{not_after}");
    drop(upstream);
}

/// What a table of the README says of each metric: its labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let readme = include_str!("../../README.md");
    let rows = readme
        .lines()
        .filter(|line| line.starts_with("| `tidegate_") || line.starts_with("| `process_"));
    let words = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut metrics = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let labels: BTreeSet<String> = words(cells[2]).into_iter().collect();
        for name in words(cells[1]) {
            assert!(metrics.insert(name.clone(), labels.clone()).is_none(), "{name} twice");
        }
    }
    metrics
}

/// The README's table and the program agree on every name and every label.
#[tokio::test]
async fn the_readme_lists_every_metric() {
    let (proxy, _upstream) = exercise().await;
    let (text, samples) = scrape(&proxy).await;
    let mut exposed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        exposed.insert(name, BTreeSet::new());
    }
    for sample in samples.keys() {
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).filter(|name| exposed.contains_key(*name)))
            .unwrap_or(name);
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(l, _)| l);
        let known = exposed.get_mut(family).unwrap_or_else(|| panic!("no type of {sample}"));
        known.extend(labels.filter(|label| *label != "le").map(str::to_owned));
    }
    assert_eq!(exposed, documented());
}

/// A route that is gone is no longer told of once its last session is.
#[tokio::test]
async fn what_is_gone_is_forgotten() {
    let upstream = Upstream::raw().await;
    let chat = "[[route]]\npath = \"/chat\"\nupstream = \"app\"\nclose_timeout = \"40s\"";
    let proxy = Setup::to(upstream.endpoint()).also(chat).start().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/chat")).await;
    let mut leg = upstream.accept().await;
    leg.accept().await;
    client.head().await;
    proxy.edit(chat, "");
    assert!(proxy.reload().await.contains("1 route removed"));
    client.expect_close(1001).await;
    let open = "tidegate_sessions{route=\"*/chat\"}";
    assert_eq!(scrape(&proxy).await.1.get(open), Some(&1.0));
    client.send(masked(CLOSE, close(1001, ""))).await;
    leg.expect(masked(CLOSE, close(1001, ""))).await;
    leg.send(plain(CLOSE, close(1001, ""))).await;
    leg.finish().await;
    client.expect_end().await;
    drop(client);
    within("its series to go", async {
        while scrape(&proxy).await.1.contains_key(open) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    eventually("its records to be written", || {
        proxy.records().iter().any(|record| record["why"] == "route removed")
    })
    .await;
}
