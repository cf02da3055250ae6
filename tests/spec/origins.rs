//! Cross-site WebSocket hijacking (CWE-1385): `origins` says whose pages may open a WebSocket (RFC 6455 §10.2).

use crate::support::wire::{handshake, handshake_with};
use crate::support::{BOTH, Over, Setup, Upstream};

const ORIGINS: &str =
    "origins = [\"https://app.example.org\", \"https://*.example.net\", \"same\"]";

/// An exact origin, a subdomain, and the page's own host are let in, and the upstream sees the `Origin` as it came.
#[tokio::test]
async fn the_origins_of_a_route_are_let_in() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route(ORIGINS).start().await;
    for over in BOTH {
        let same = if over == Over::Tls { "https://localhost" } else { "http://localhost" };
        for origin in ["https://app.example.org", "https://a.b.example.net", same] {
            let mut client = proxy.connect(over).await;
            client.send(handshake_with("/", &format!("Origin: {origin}\r\n"))).await;
            let mut leg = upstream.accept().await;
            let asked = leg.accept().await;
            assert_eq!(asked.field("origin"), Some(origin));
            assert_eq!(client.head().await.status(), Some(101), "{origin}");
        }
    }
}

/// Any other origin is a 403 that names it, and the upstream is not asked; so are `null`, several, and what is none.
#[tokio::test]
async fn pages_of_other_sites_are_refused_before_the_upstream_is_asked() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route(ORIGINS).start().await;
    for over in BOTH {
        for (origins, reason) in [
            ("Origin: https://evil.test\r\n", "pages of https://evil.test may not"),
            ("Origin: https://example.net\r\n", "may not"),
            ("Origin: https://app.example.org.evil.test\r\n", "may not"),
            ("Origin: http://app.example.org\r\n", "may not"),
            ("Origin: https://localhost:444\r\n", "may not"),
            ("Origin: null\r\n", "may not"),
            ("Origin: https://app.example.org\r\nOrigin: https://evil.test\r\n", "malformed"),
            ("Origin: https://app.example.org, https://evil.test\r\n", "malformed"),
            ("Origin: app.example.org\r\n", "malformed"),
            ("Origin: \r\n", "malformed"),
        ] {
            let mut client = proxy.connect(over).await;
            client.send(handshake_with("/", origins)).await;
            client.response().await.refused(403, reason);
        }
    }
    upstream.expect_untouched().await;
    let (_, metrics) = proxy.ask("GET", "/metrics").await;
    assert!(metrics.contains("tidegate_refusals_total{reason=\"origin\"} 20"), "{metrics}");
}

/// A handshake without an `Origin` comes from no browser: it is let in, unless `missing_origin` says otherwise.
#[tokio::test]
async fn a_missing_origin_is_treated_as_configured() {
    for (missing, status) in [("", 101), ("missing_origin = \"refuse\"", 403)] {
        let upstream = Upstream::raw().await;
        let keys = format!("{ORIGINS}\n{missing}");
        let proxy = Setup::to(upstream.endpoint()).route(&keys).start().await;
        let mut client = proxy.connect(Over::Tls).await;
        client.send(handshake("/")).await;
        if status == 403 {
            client.response().await.refused(403, "no origin");
            upstream.expect_untouched().await;
        } else {
            upstream.accept().await.accept().await;
            assert_eq!(client.head().await.status(), Some(101));
        }
    }
}

/// Ordinary requests are the backend's to judge: a browser sends an `Origin` with those that a page may make anyway.
#[tokio::test]
async fn ordinary_requests_are_not_asked_for_their_origin() {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).route(ORIGINS).start().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.test\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 204);
}
