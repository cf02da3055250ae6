//! Answers to try the pages on.

use std::collections::BTreeMap;

use crate::admin::snapshot::{
    CertificateStatus, ConfigStatus, EndpointStatus, ListenerStatus, RouteStatus, SessionInfo,
    Status, UpstreamStatus,
};

/// A process with one route that has two sessions, and two endpoints of which one rests.
pub(super) fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        pid: 4711,
        phase: "running".into(),
        started: "2026-11-21T09:00:00Z".into(),
        uptime_s: 312.4,
        workers: 2,
        config: ConfigStatus {
            path: "proxy.toml".into(),
            loaded: "2026-11-21T09:00:00Z".into(),
            reloads_total: 1,
            reload_failures_total: 0,
            last_failure: None,
        },
        connections: 3,
        connections_total: 1_000,
        tls_handshakes_total: 990,
        tls_handshake_failures_total: 4,
        sessions: 2,
        memory_bytes: 34 << 20,
        cpu_s: 12.5,
        descriptors: 40,
        descriptors_max: 1_048_576,
        listeners: vec![ListenerStatus { address: "[::]:443".into(), tls: true }],
        certificates: vec![CertificateStatus {
            chain: "certs/server.crt".into(),
            names: vec!["chat.example".into(), "*.chat.example".into()],
            not_after: "2027-02-19T00:00:00Z".into(),
            days_left: 90,
        }],
        routes: vec![route("chat.example/chat")],
        upstreams: vec![UpstreamStatus {
            upstream: "chat".into(),
            endpoints: vec![
                endpoint("http://127.0.0.1:3000", "up"),
                endpoint("http://127.0.0.1:3001", "resting"),
            ],
        }],
    }
}

/// A route with two sessions.
pub(super) fn route(name: &str) -> RouteStatus {
    RouteStatus {
        route: name.into(),
        upstream: "chat".into(),
        state: "up".into(),
        sessions: 2,
        sessions_opened_total: 102,
        sessions_ended_total: 100,
        requests_total: 7,
        client_to_upstream_bytes_total: 1 << 20,
        upstream_to_client_bytes_total: 3 << 20,
        client_to_upstream_messages_total: 10_000,
        upstream_to_client_messages_total: 30_000,
        client_close_codes_total: BTreeMap::from([("1000".into(), 90), ("1006".into(), 3)]),
        upstream_close_codes_total: BTreeMap::from([("1001".into(), 7)]),
        ..RouteStatus::default()
    }
}

/// An endpoint with two sessions.
pub(super) fn endpoint(address: &str, state: &str) -> EndpointStatus {
    EndpointStatus {
        endpoint: address.into(),
        state: state.into(),
        in_flight: 2,
        failures_total: 1,
    }
}

/// A session.
pub(super) fn session() -> SessionInfo {
    SessionInfo {
        id: "b1f00d".into(),
        client: "203.0.113.7:51234".into(),
        listener: "[::]:443".into(),
        tls: Some("1.3".into()),
        host: "chat.example".into(),
        path: "/chat".into(),
        route: "chat.example/chat".into(),
        upstream: "chat".into(),
        endpoint: "http://127.0.0.1:3000".into(),
        subprotocol: None,
        state: "open".into(),
        opened: "2026-11-21T09:00:00Z".into(),
        age_s: 312.4,
        idle_s: 3.0,
        client_to_upstream_bytes: 12 << 10,
        upstream_to_client_bytes: 3_565_158,
        client_to_upstream_messages: 120,
        upstream_to_client_messages: 1,
        bytes_per_s: 2_048.0,
        client_rtt_ms: Some(23.4),
        upstream_rtt_ms: Some(0.3),
    }
}
