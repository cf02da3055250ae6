//! Gathers what the process tells about itself.

use std::collections::BTreeMap;
use std::time::SystemTime;

use time::OffsetDateTime;

use super::snapshot::{
    CertificateStatus, ConfigStatus, EndpointStatus, ListenerStatus, RouteStatus, Status,
    UpstreamStatus,
};
use crate::lifecycle::control::Control;
use crate::lifecycle::standing::State;
use crate::telemetry::metrics::{
    EndpointGauges, Gauges, ListenerCounters, RouteCounters, TlsVersion, close_code_label, expose,
};
use crate::telemetry::process;
use crate::telemetry::record::{Side, seconds, time_text};
use crate::tls::certificate::Certificate;
use crate::upstream::endpoint::Endpoint;

/// Everything but the sessions one by one.
pub fn status(control: &Control) -> Status {
    let (running, metrics, now) = (control.running(), control.metrics(), SystemTime::now());
    let process = process::gauges();
    let listeners = metrics.listeners();
    let sum = |of: &dyn Fn(&ListenerCounters) -> u64| listeners.iter().map(|one| of(one)).sum();
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        phase: if control.is_draining() { "draining" } else { "running" }.into(),
        started: time_text(control.started),
        uptime_s: seconds(now.duration_since(control.started).unwrap_or_default()),
        workers: control.worker_count(),
        config: ConfigStatus {
            path: control.source().path.display().to_string(),
            loaded: time_text(control.loaded_at()),
            reloads_total: metrics.reloads.value(),
            reload_failures_total: metrics.reload_failures.value(),
            last_failure: control.last_failure(),
        },
        connections: sum(&ListenerCounters::open),
        connections_total: sum(&ListenerCounters::accepted),
        tls_handshakes_total: sum(&tls_handshakes),
        tls_handshake_failures_total: sum(&ListenerCounters::failures),
        sessions: running.limits.sessions() as u64,
        memory_bytes: process.memory,
        cpu_s: process.cpu.as_secs_f64(),
        descriptors: process.descriptors,
        descriptors_max: process.descriptors_max,
        listeners: control
            .listeners()
            .iter()
            .map(|open| ListenerStatus { address: open.address.to_string(), tls: open.config.tls })
            .collect(),
        certificates: running
            .certificates
            .certificates()
            .iter()
            .map(|certificate| certificate_status(certificate, now))
            .collect(),
        routes: routes(control),
        upstreams: running
            .upstreams
            .iter()
            .map(|upstream| UpstreamStatus {
                upstream: upstream.name.to_string(),
                endpoints: upstream.endpoints().iter().map(|one| endpoint_status(one)).collect(),
            })
            .collect(),
    }
}

fn tls_handshakes(listener: &ListenerCounters) -> u64 {
    let each = TlsVersion::ALL.into_iter().flat_map(|v| [(v, false), (v, true)]);
    each.map(|(version, resumed)| listener.handshakes(version, resumed)).sum()
}

fn certificate_status(certificate: &Certificate, now: SystemTime) -> CertificateStatus {
    let facts = &certificate.facts;
    let addresses = facts.addresses.iter().map(ToString::to_string);
    CertificateStatus {
        chain: certificate.path.display().to_string(),
        names: facts.dns_names.iter().cloned().chain(addresses).collect(),
        not_after: time_text(SystemTime::from(facts.not_after)),
        days_left: (facts.not_after - OffsetDateTime::from(now)).whole_days(),
    }
}

fn endpoint_status(endpoint: &Endpoint) -> EndpointStatus {
    let state = match endpoint.standing.state() {
        State::Up if endpoint.is_resting() => "resting",
        other => other.name(),
    };
    EndpointStatus {
        endpoint: endpoint.name.to_string(),
        state: state.into(),
        in_flight: endpoint.in_flight() as u64,
        failures_total: endpoint.failures(),
    }
}

/// The routes of the configuration, then those that are gone but still have sessions.
fn routes(control: &Control) -> Vec<RouteStatus> {
    let running = control.running();
    let is_gone = |counters: &RouteCounters| {
        counters.open() > 0 && !running.routes.iter().any(|route| *route.name() == counters.name)
    };
    let counters = control.metrics().routes();
    let gone = counters.iter().filter(|counters| is_gone(counters)).map(|counters| RouteStatus {
        state: State::Removed.name().into(),
        ..route_status(counters)
    });
    let there = running.routes.iter().map(|route| RouteStatus {
        upstream: route.upstream.name.to_string(),
        state: route.standing.state().name().into(),
        ..route_status(&route.counters)
    });
    there.chain(gone).collect()
}

fn route_status(counters: &RouteCounters) -> RouteStatus {
    let refused = [0, 2, 3, 4, 5].into_iter().map(|class| counters.handshakes(class)).sum();
    RouteStatus {
        route: counters.name.to_string(),
        sessions: counters.open(),
        sessions_opened_total: counters.opened(),
        sessions_ended_total: counters.ended().values().sum(),
        handshakes_refused_total: refused,
        requests_total: (0..=5).map(|class| counters.requests(class)).sum(),
        requests_5xx_total: counters.requests(5),
        client_to_upstream_bytes_total: counters.bytes(Side::Client),
        upstream_to_client_bytes_total: counters.bytes(Side::Upstream),
        client_to_upstream_messages_total: counters.messages(Side::Client),
        upstream_to_client_messages_total: counters.messages(Side::Upstream),
        pings_total: counters.pings(Side::Client) + counters.pings(Side::Upstream),
        client_close_codes_total: codes(counters, Side::Client),
        upstream_close_codes_total: codes(counters, Side::Upstream),
        ..RouteStatus::default()
    }
}

fn codes(counters: &RouteCounters, side: Side) -> BTreeMap<String, u64> {
    let codes = counters.codes(side).into_iter();
    codes.map(|(code, count)| (close_code_label(code), count)).collect()
}

/// All metrics as text for Prometheus.
pub fn metrics(control: &Control) -> String {
    let running = control.running();
    control.metrics().forget_the_gone();
    let endpoints = running.upstreams.iter().flat_map(|upstream| {
        upstream.endpoints().iter().map(|endpoint| EndpointGauges {
            upstream: upstream.name.to_string(),
            endpoint: endpoint.name.to_string(),
            in_flight: endpoint.in_flight() as u64,
            is_up: !endpoint.is_resting(),
            is_draining: !endpoint.standing.is_up(),
            failures: endpoint.failures(),
        })
    });
    let gauges = Gauges {
        started: control.started,
        is_draining: control.is_draining(),
        is_last_reload_good: control.last_failure().is_none(),
        loaded: control.loaded_at(),
        certificates: running
            .certificates
            .certificates()
            .iter()
            .map(|one| (one.path.display().to_string(), one.facts.not_after.unix_timestamp()))
            .collect(),
        endpoints: endpoints.collect(),
        process: process::gauges(),
    };
    expose(control.metrics(), gauges)
}
