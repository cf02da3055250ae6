//! The counters and what holds at the moment, as text for Prometheus (OpenMetrics 1.0). Only here
//! is a metric's name spelled; README.md lists them all.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Metrics, RouteCounters, Sums, TlsVersion};
use crate::telemetry::record::Side;

/// What holds at the moment, as far as nobody counts it.
#[derive(Debug)]
pub struct Gauges {
    /// When the process started.
    pub started: SystemTime,
    /// Whether it is leaving.
    pub is_draining: bool,
    /// Whether the last reload succeeded; the start counts as one.
    pub is_last_reload_good: bool,
    /// When the configuration that runs was read.
    pub loaded: SystemTime,
    /// The file of each certificate's chain and the end of its validity, in seconds since 1970.
    pub certificates: Vec<(String, i64)>,
    /// The endpoints.
    pub endpoints: Vec<EndpointGauges>,
    /// What the kernel says of the process.
    pub process: ProcessGauges,
}

/// What holds for an endpoint.
#[derive(Debug)]
pub struct EndpointGauges {
    /// The upstream's name.
    pub upstream: String,
    /// Its address.
    pub endpoint: String,
    /// Sessions and requests that it serves.
    pub in_flight: u64,
    /// Whether it does not rest after a failure.
    pub is_up: bool,
    /// Whether it gets no new sessions.
    pub is_draining: bool,
    /// How often it could not be reached.
    pub failures: u64,
}

/// What the kernel says of the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessGauges {
    /// CPU time that it has used.
    pub cpu: Duration,
    /// Its resident memory in bytes.
    pub memory: u64,
    /// Its open descriptors.
    pub descriptors: u64,
    /// How many it may have.
    pub descriptors_max: u64,
}

/// All metrics as text.
pub fn expose(metrics: &Arc<Metrics>, gauges: Gauges) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition { metrics: metrics.clone(), gauges }));
    let mut out = String::new();
    // Writing into memory does not fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Exposition {
    metrics: Arc<Metrics>,
    gauges: Gauges,
}

/// A set of labels and what they have.
type Series<const N: usize, T> = ([(&'static str, String); N], T);

const SIDES: [Side; 2] = [Side::Client, Side::Upstream];

fn side(side: Side) -> String {
    match side {
        Side::Client => "client".into(),
        Side::Upstream => "upstream".into(),
    }
}

fn direction(source: Side) -> String {
    match source {
        Side::Client => "client_to_upstream".into(),
        Side::Upstream => "upstream_to_client".into(),
    }
}

/// How a close code is written as a label.
pub fn close_code_label(code: u16) -> String {
    match code {
        0 => "other".into(),
        3000 => "3xxx".into(),
        4000 => "4xxx".into(),
        known => known.to_string(),
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Writes families of metrics one after the other.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        write(self.0.encode_descriptor(name, help, None, kind)?)
    }

    /// `name` is without its `_total`.
    fn counter<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: Vec<Series<N, u64>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut family| {
            for (labels, value) in series {
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
            Ok(())
        })
    }

    fn gauge<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: Vec<Series<N, f64>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut family| {
            for (labels, value) in series {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
            Ok(())
        })
    }

    /// Something that there is only one of.
    fn single(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut family| family.encode_gauge(&value))
    }

    fn histogram<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: Vec<Series<N, Sums>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, |mut family| {
            for (labels, sums) in series {
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    sums.seconds,
                    sums.count(),
                    &sums.buckets,
                    None,
                )?;
            }
            Ok(())
        })
    }
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.process(&mut families)?;
        self.listeners(&mut families)?;
        let routes = self.metrics.routes();
        requests(&routes, &mut families)?;
        sessions(&routes, &mut families)?;
        self.refusals(&mut families)?;
        self.endpoints(&mut families)?;
        self.life(&mut families)
    }
}

impl Exposition {
    fn process(&self, families: &mut Families<'_>) -> fmt::Result {
        let ProcessGauges { cpu, memory, descriptors, descriptors_max } = self.gauges.process;
        families.family(
            "process_cpu_seconds",
            "CPU time that the process has used",
            MetricType::Counter,
            |mut family| family.encode_counter::<NoLabelSet, _, f64>(&cpu.as_secs_f64(), None),
        )?;
        families.single("process_resident_memory_bytes", "Resident memory", memory as f64)?;
        families.single("process_open_fds", "Open descriptors", descriptors as f64)?;
        families.single("process_max_fds", "How many there may be", descriptors_max as f64)
    }

    fn life(&self, families: &mut Families<'_>) -> fmt::Result {
        let gauges = &self.gauges;
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        families.gauge("tidegate_build_info", "Which Tidegate this is", vec![(version, 1.0)])?;
        families.single(
            "tidegate_start_time_seconds",
            "When the process started, since 1970",
            seconds(gauges.started),
        )?;
        families.single(
            "tidegate_draining",
            "Whether the process is leaving",
            f64::from(u8::from(gauges.is_draining)),
        )?;
        let results =
            [("success", &self.metrics.reloads), ("failure", &self.metrics.reload_failures)];
        families.counter(
            "tidegate_reloads",
            "Reloads of the configuration",
            results.map(|(result, count)| ([("result", result.into())], count.value())).into(),
        )?;
        families.single(
            "tidegate_config_last_reload_successful",
            "Whether the last reload was; a start counts as one",
            f64::from(u8::from(gauges.is_last_reload_good)),
        )?;
        families.single(
            "tidegate_config_last_reload_success_timestamp_seconds",
            "When the configuration that runs was read, since 1970",
            seconds(gauges.loaded),
        )?;
        families.gauge(
            "tidegate_certificate_not_after_timestamp_seconds",
            "The end of a certificate's validity, since 1970",
            gauges
                .certificates
                .iter()
                .map(|(chain, until)| ([("chain", chain.clone())], *until as f64))
                .collect(),
        )?;
        families.counter(
            "tidegate_access_log_dropped_lines",
            "Lines that the access log could not keep up with",
            vec![([], self.metrics.dropped_lines())],
        )
    }

    fn listeners(&self, families: &mut Families<'_>) -> fmt::Result {
        let listeners = self.metrics.listeners();
        let label = |address: std::net::SocketAddr| ("listener", address.to_string());
        families.gauge(
            "tidegate_connections",
            "Client connections that are open, sessions included",
            listeners.iter().map(|one| ([label(one.address)], one.open() as f64)).collect(),
        )?;
        families.counter(
            "tidegate_connections_accepted",
            "Client connections that were accepted",
            listeners.iter().map(|one| ([label(one.address)], one.accepted())).collect(),
        )?;
        let mut handshakes = Vec::new();
        for one in &listeners {
            for version in TlsVersion::ALL {
                for resumed in [false, true] {
                    let labels = [
                        label(one.address),
                        ("version", version.name().to_owned()),
                        ("resumed", resumed.to_string()),
                    ];
                    let count = one.handshakes(version, resumed);
                    if count > 0 {
                        handshakes.push((labels, count));
                    }
                }
            }
        }
        families.counter(
            "tidegate_tls_handshakes",
            "TLS handshakes with clients that succeeded",
            handshakes,
        )?;
        families.counter(
            "tidegate_tls_handshake_failures",
            "TLS handshakes with clients that failed or took too long",
            listeners.iter().map(|one| ([label(one.address)], one.failures())).collect(),
        )?;
        families.counter(
            "tidegate_proxy_protocol_failures",
            "Connections closed for want of a PROXY header that could be believed",
            listeners.iter().map(|one| ([label(one.address)], one.unintroduced())).collect(),
        )
    }

    fn refusals(&self, families: &mut Families<'_>) -> fmt::Result {
        let refusals = self.metrics.refusals();
        families.counter(
            "tidegate_refusals",
            "Requests and handshakes that Tidegate answered itself instead of an upstream",
            refusals
                .into_iter()
                .map(|(reason, count)| ([("reason", reason.to_owned())], count))
                .collect(),
        )
    }

    fn endpoints(&self, families: &mut Families<'_>) -> fmt::Result {
        let each = |of: fn(&EndpointGauges) -> f64| {
            let labelled = |one: &EndpointGauges| (endpoint(one), of(one));
            self.gauges.endpoints.iter().map(labelled).collect::<Vec<_>>()
        };
        families.gauge(
            "tidegate_endpoint_in_flight",
            "Sessions and requests that an endpoint serves",
            each(|one| one.in_flight as f64),
        )?;
        families.gauge(
            "tidegate_endpoint_up",
            "Whether an endpoint is not resting after a failure",
            each(|one| f64::from(u8::from(one.is_up))),
        )?;
        families.gauge(
            "tidegate_endpoint_draining",
            "Whether an endpoint gets no new sessions",
            each(|one| f64::from(u8::from(one.is_draining))),
        )?;
        families.counter(
            "tidegate_endpoint_failures",
            "How often an endpoint could not be reached",
            self.gauges.endpoints.iter().map(|one| (endpoint(one), one.failures)).collect(),
        )
    }
}

fn endpoint(one: &EndpointGauges) -> [(&'static str, String); 2] {
    [("upstream", one.upstream.clone()), ("endpoint", one.endpoint.clone())]
}

type Routes = [Arc<RouteCounters>];

fn per_route<T>(routes: &Routes, of: impl Fn(&RouteCounters) -> T) -> Vec<Series<1, T>> {
    routes.iter().map(|route| ([("route", route.name.to_string())], of(route))).collect()
}

fn per_side<T>(routes: &Routes, of: impl Fn(&RouteCounters, Side) -> T) -> Vec<Series<2, T>> {
    each_side(routes, "side", side, of)
}

fn per_direction<T>(routes: &Routes, of: impl Fn(&RouteCounters, Side) -> T) -> Vec<Series<2, T>> {
    each_side(routes, "direction", direction, of)
}

fn each_side<T>(
    routes: &Routes,
    name: &'static str,
    word: fn(Side) -> String,
    of: impl Fn(&RouteCounters, Side) -> T,
) -> Vec<Series<2, T>> {
    let mut series = Vec::new();
    for route in routes {
        for side in SIDES {
            let labels = [("route", route.name.to_string()), (name, word(side))];
            series.push((labels, of(route, side)));
        }
    }
    series
}

/// By the first digit of the status, `none` where the client did not wait for one; what never
/// happened has no series.
fn per_status(routes: &Routes, of: impl Fn(&RouteCounters, usize) -> u64) -> Vec<Series<2, u64>> {
    let mut series = Vec::new();
    for route in routes {
        for class in 0..=5 {
            let count = of(route, class);
            if count > 0 {
                let status = if class == 0 { "none".into() } else { format!("{class}xx") };
                series.push(([("route", route.name.to_string()), ("status", status)], count));
            }
        }
    }
    series
}

fn requests(routes: &Routes, families: &mut Families<'_>) -> fmt::Result {
    families.counter(
        "tidegate_requests",
        "Ordinary requests that were answered",
        per_status(routes, RouteCounters::requests),
    )?;
    families.histogram(
        "tidegate_request_seconds",
        "How long ordinary requests took, bodies included",
        per_route(routes, RouteCounters::request_time),
    )?;
    families.counter(
        "tidegate_handshakes",
        "WebSocket handshakes that were answered; 1xx became sessions",
        per_status(routes, RouteCounters::handshakes),
    )?;
    families.histogram(
        "tidegate_handshake_seconds",
        "How long WebSocket handshakes took to be answered",
        per_route(routes, RouteCounters::handshake_time),
    )
}

fn sessions(routes: &Routes, families: &mut Families<'_>) -> fmt::Result {
    families.gauge(
        "tidegate_sessions",
        "WebSockets that are open",
        per_route(routes, |route| route.open() as f64),
    )?;
    families.counter(
        "tidegate_sessions_opened",
        "WebSockets that were opened",
        per_route(routes, RouteCounters::opened),
    )?;
    let mut ended = Vec::new();
    for route in routes {
        for ((who, why), count) in route.ended() {
            let labels = [
                ("route", route.name.to_string()),
                ("by", who.name().to_owned()),
                ("why", why.to_owned()),
            ];
            ended.push((labels, count));
        }
    }
    families.counter("tidegate_sessions_ended", "WebSockets that have ended", ended)?;
    families.histogram(
        "tidegate_session_seconds",
        "How long WebSockets were open",
        per_route(routes, RouteCounters::session_time),
    )?;
    families.counter(
        "tidegate_session_bytes",
        "Bytes of WebSockets that went on to the other side",
        per_direction(routes, RouteCounters::bytes),
    )?;
    families.counter(
        "tidegate_session_messages",
        "Messages of WebSockets that went on to the other side",
        per_direction(routes, RouteCounters::messages),
    )?;
    families.counter(
        "tidegate_close_codes",
        "Close codes: of the sides, 1006 for none; and of Tidegate's own to them",
        close_codes(routes),
    )?;
    families.counter(
        "tidegate_pings",
        "Pings of Tidegate's own",
        per_side(routes, RouteCounters::pings),
    )?;
    families.histogram(
        "tidegate_ping_round_trip_seconds",
        "How long they took to be answered",
        per_side(routes, RouteCounters::round_trips),
    )?;
    families.counter(
        "tidegate_protocol_errors",
        "WebSockets in which a side broke RFC 6455",
        per_side(routes, RouteCounters::protocol_errors),
    )
}

fn close_codes(routes: &Routes) -> Vec<Series<3, u64>> {
    let mut series = Vec::new();
    for route in routes {
        for side in SIDES {
            let said = route.codes(side).into_iter().map(|said| (self::side(side), said));
            let told = route
                .codes_told(side)
                .into_iter()
                .map(|told| (format!("tidegate_to_{}", self::side(side)), told));
            for (side, (number, count)) in said.chain(told) {
                let route = ("route", route.name.to_string());
                series.push(([route, ("side", side), ("code", close_code_label(number))], count));
            }
        }
    }
    series
}
