//! What is measured, as a table: which load each row puts on a proxy, and what its figure means.
//! [`crate::load`] and [`crate::idle`] do it.

use std::time::Duration;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) over_tls: bool,
    pub(crate) work: Work,
    /// How many connections work at once.
    pub(crate) clients: usize,
    /// What the design aims at: a ratio to nginx, or a figure with its unit.
    pub(crate) aim: &'static str,
    /// Whether it is one of the rows of the design, which are measured if none is named.
    pub(crate) is_usual: bool,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Work {
    /// Each client sends a message when the one before has come back.
    Echo { payload_bytes: usize },
    /// All clients together send so many messages a second, evenly spread, whether or not those
    /// before have come back.
    Paced { payload_bytes: usize, per_second: u32 },
    /// Each client takes messages as fast as they come.
    Download { payload_bytes: usize },
    /// Each client sends messages as fast as they are taken.
    Upload { payload_bytes: usize },
    /// Each client connects, does both handshakes, echoes one message and closes; again and again.
    Connect,
    /// The same, and the TLS handshake resumes the session of the connection before.
    Resume,
    /// Each client fetches a small page over its one connection, again and again.
    Get,
    /// Sessions are opened, echo one message each, fall silent and are closed.
    Idle(Weighed),
    /// Clients echo messages of 1 KiB while the sessions of `Idle` are open beside them.
    Beside,
}

/// What is looked at while sessions come, are silent, and go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Weighed {
    /// Memory while all are open.
    Open,
    /// Memory that is still held when all have gone.
    Gone,
    /// CPU time while all are open and none says anything.
    Silence,
}

/// What a figure means. The less, the better, in each of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    MicrosPerRoundTrip,
    SecondsPerGigabyte,
    MicrosPerConnect,
    MicrosPerRequest,
    KibPerSession,
    MillisPerSecond,
    TimesWithout,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// All scenarios. Those of the design have a note of what it aims at.
pub(crate) const ALL: &[Scenario] = &[
    wss("wss echo 32 B", echo(32)).aim("0.75"),
    wss("wss echo 32 B, 1 session", echo(32)).clients(1),
    wss("wss echo 32 B, 1,000 sessions", echo(32)).clients(1000),
    wss("wss echo 32 B, paced", paced(32, 20_000)),
    wss("wss echo 1 KiB", echo(KIB)).usual("0.75"),
    wss("wss echo 1 KiB, 1 session", echo(KIB)).clients(1),
    wss("wss echo 1 KiB, 1,000 sessions", echo(KIB)).clients(1000),
    wss("wss echo 1 KiB, paced", paced(KIB, 20_000)),
    wss("wss echo 16 KiB", echo(16 * KIB)).usual("0.20"),
    wss("wss echo 16 KiB, 1 session", echo(16 * KIB)).clients(1),
    wss("wss echo 16 KiB, 1,000 sessions", echo(16 * KIB)).clients(1000),
    wss("wss echo 16 KiB, paced", paced(16 * KIB, 4_000)),
    ws("ws echo 32 B", echo(32)).aim("1.00"),
    ws("ws echo 32 B, 1 session", echo(32)).clients(1),
    ws("ws echo 32 B, 1,000 sessions", echo(32)).clients(1000),
    ws("ws echo 32 B, paced", paced(32, 20_000)),
    ws("ws echo 1 KiB", echo(KIB)).usual("1.00"),
    ws("ws echo 1 KiB, 1 session", echo(KIB)).clients(1),
    ws("ws echo 1 KiB, 1,000 sessions", echo(KIB)).clients(1000),
    ws("ws echo 1 KiB, paced", paced(KIB, 20_000)),
    ws("ws echo 16 KiB", echo(16 * KIB)),
    ws("ws echo 16 KiB, 1 session", echo(16 * KIB)).clients(1),
    ws("ws echo 16 KiB, 1,000 sessions", echo(16 * KIB)).clients(1000),
    ws("ws echo 16 KiB, paced", paced(16 * KIB, 4_000)),
    wss("wss download 4 KiB", download(4 * KIB)),
    wss("wss download 64 KiB", download(64 * KIB)).usual("0.30"),
    wss("wss download 1 MiB", download(MIB)),
    wss("wss upload 4 KiB", upload(4 * KIB)).usual("0.25"),
    wss("wss upload 64 KiB", upload(64 * KIB)).usual("0.30"),
    wss("wss upload 1 MiB", upload(MIB)),
    ws("ws download 4 KiB", download(4 * KIB)),
    ws("ws download 64 KiB", download(64 * KIB)).usual("0.32"),
    ws("ws download 1 MiB", download(MIB)),
    ws("ws upload 4 KiB", upload(4 * KIB)),
    ws("ws upload 64 KiB", upload(64 * KIB)),
    ws("ws upload 1 MiB", upload(MIB)),
    wss("wss connect, message, close", Work::Connect).clients(16).usual("0.60"),
    wss("wss connect resumed, message, close", Work::Resume).clients(16),
    wss("https GET, keep-alive", Work::Get).usual("0.85"),
    ws("http GET, keep-alive", Work::Get),
    wss("idle wss session", Work::Idle(Weighed::Open)).usual("≤ 6 KiB"),
    wss("idle wss session, after all have gone", Work::Idle(Weighed::Gone)).usual("≈ 0"),
    wss("idle wss sessions, all of them", Work::Idle(Weighed::Silence)).usual("≈ 0"),
    wss("wss echo 1 KiB beside idle sessions", Work::Beside).usual("1.00 ×"),
];

const fn wss(name: &'static str, work: Work) -> Scenario {
    Scenario { over_tls: true, ..ws(name, work) }
}

const fn ws(name: &'static str, work: Work) -> Scenario {
    let clients = match work {
        // More would only wait for each other in the kernel's buffers.
        Work::Download { .. } | Work::Upload { .. } => 4,
        _ => 64,
    };
    Scenario { name, over_tls: false, work, clients, aim: "–", is_usual: false }
}

const fn echo(payload_bytes: usize) -> Work {
    Work::Echo { payload_bytes }
}

const fn paced(payload_bytes: usize, per_second: u32) -> Work {
    Work::Paced { payload_bytes, per_second }
}

const fn download(payload_bytes: usize) -> Work {
    Work::Download { payload_bytes }
}

const fn upload(payload_bytes: usize) -> Work {
    Work::Upload { payload_bytes }
}

impl Scenario {
    const fn clients(self, clients: usize) -> Self {
        Self { clients, ..self }
    }

    const fn aim(self, aim: &'static str) -> Self {
        Self { aim, ..self }
    }

    const fn usual(self, aim: &'static str) -> Self {
        Self { aim, is_usual: true, ..self }
    }

    /// The clients of `Beside`, as a scenario of their own.
    pub(crate) const fn beside_idle() -> Self {
        wss("wss echo 1 KiB", echo(KIB))
    }

    /// Whether a figure of each comes of watching the same sessions.
    pub(crate) fn shares_sessions_with(&self, other: &Self) -> bool {
        matches!((self.work, other.work), (Work::Idle(_), Work::Idle(_)))
    }

    pub(crate) fn unit(&self) -> Unit {
        match self.work {
            Work::Echo { .. } | Work::Paced { .. } => Unit::MicrosPerRoundTrip,
            Work::Download { .. } | Work::Upload { .. } => Unit::SecondsPerGigabyte,
            Work::Connect | Work::Resume => Unit::MicrosPerConnect,
            Work::Get => Unit::MicrosPerRequest,
            Work::Idle(Weighed::Open | Weighed::Gone) => Unit::KibPerSession,
            Work::Idle(Weighed::Silence) => Unit::MillisPerSecond,
            Work::Beside => Unit::TimesWithout,
        }
    }
}

impl Unit {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::MicrosPerRoundTrip => "µs a round trip",
            Self::SecondsPerGigabyte => "s per GB",
            Self::MicrosPerConnect => "µs a connect",
            Self::MicrosPerRequest => "µs a request",
            Self::KibPerSession => "KiB a session",
            Self::MillisPerSecond => "ms of CPU a second",
            Self::TimesWithout => "× the cost without them",
        }
    }

    /// The figure for `count` units of work that took `cpu`.
    pub(crate) fn figure(self, cpu: Duration, count: f64) -> f64 {
        match self {
            Self::SecondsPerGigabyte => cpu.as_secs_f64() * 1e9 / count,
            _ => cpu.as_secs_f64() * 1e6 / count,
        }
    }
}

/// What one measurement of a proxy found.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// In the scenario's unit.
    pub(crate) figure: f64,
    /// How it went meanwhile, where CPU time was measured under load.
    pub(crate) course: Option<Course>,
    /// How long a round trip took, where messages were echoed.
    pub(crate) latency: Option<Latency>,
}

impl Sample {
    /// Of something else than load.
    pub(crate) fn plain(figure: f64) -> Self {
        Self { figure, course: None, latency: None }
    }
}

/// What tells a reader how far to trust a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    /// Round trips, connects, requests or bytes in a second of wall-clock time.
    pub(crate) rate: f64,
    /// Which part of its core the proxy used: near 1, it was busy all the time.
    pub(crate) busy: f64,
    /// For which part of the time the proxy could have run, had its core been free.
    pub(crate) waited: f64,
}

/// Round trips as a client sees them, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    /// Half of them took no longer.
    pub(crate) median: f64,
    /// All but one in a hundred took no longer.
    pub(crate) p99: f64,
}

/// How long, and how much, one measurement may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) idle_sessions: usize,
    /// How long idle sessions are watched.
    pub(crate) silence: Duration,
    /// How long after the last of them memory is looked at.
    pub(crate) afterwards: Duration,
}
