//! What is measured: which load a scenario puts on a proxy, and what of it is counted.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::backend::{Backend, bulk_payload};
use crate::client::{Door, Link};
use crate::frame;
use crate::proxy::Proxy;

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) over_tls: bool,
    pub(crate) work: Work,
    pub(crate) unit: Unit,
    /// The ratio to nginx that we aim at, where the design names one.
    pub(crate) aim: Option<f64>,
}

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Each client sends a message when the one before has come back.
    Echo { payload_bytes: usize },
    /// Each client takes messages of 64 KiB as fast as they come.
    Download,
    /// Each client sends messages of 64 KiB as fast as they are taken.
    Upload,
    /// Each client connects, does both handshakes, echoes one message and closes; again and again.
    Connect,
    /// Each client fetches a small page over its one connection, again and again.
    Get,
    /// Sessions are opened, echo one message each and fall silent; memory is counted.
    Idle,
}

/// What a figure means. The less, the better, in each of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    MicrosPerRoundTrip,
    SecondsPerGigabyte,
    MicrosPerConnect,
    MicrosPerRequest,
    KibPerSession,
}

/// One measurement of a proxy's CPU time under load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// In the scenario's unit.
    pub(crate) figure: f64,
    /// Round trips, connects, requests or bytes in a second of wall-clock time.
    pub(crate) rate: f64,
    /// Which part of its core the proxy used: near 1, it was busy all the time.
    pub(crate) busy: f64,
    /// For which part of the time the proxy could have run, had its core been free.
    pub(crate) waited: f64,
}

/// All scenarios, with the aims of the design.
pub(crate) const ALL: [Scenario; 12] = [
    Scenario {
        name: "wss echo 32 B",
        over_tls: true,
        work: Work::Echo { payload_bytes: 32 },
        unit: Unit::MicrosPerRoundTrip,
        aim: Some(0.75),
    },
    Scenario {
        name: "wss echo 1 KiB",
        over_tls: true,
        work: Work::Echo { payload_bytes: 1024 },
        unit: Unit::MicrosPerRoundTrip,
        aim: Some(0.75),
    },
    Scenario {
        name: "wss echo 16 KiB",
        over_tls: true,
        work: Work::Echo { payload_bytes: 16 * 1024 },
        unit: Unit::MicrosPerRoundTrip,
        aim: Some(0.20),
    },
    Scenario {
        name: "ws echo 32 B",
        over_tls: false,
        work: Work::Echo { payload_bytes: 32 },
        unit: Unit::MicrosPerRoundTrip,
        aim: Some(1.0),
    },
    Scenario {
        name: "ws echo 1 KiB",
        over_tls: false,
        work: Work::Echo { payload_bytes: 1024 },
        unit: Unit::MicrosPerRoundTrip,
        aim: Some(1.0),
    },
    Scenario {
        name: "ws echo 16 KiB",
        over_tls: false,
        work: Work::Echo { payload_bytes: 16 * 1024 },
        unit: Unit::MicrosPerRoundTrip,
        aim: None,
    },
    Scenario {
        name: "wss download 64 KiB",
        over_tls: true,
        work: Work::Download,
        unit: Unit::SecondsPerGigabyte,
        aim: Some(0.30),
    },
    Scenario {
        name: "wss upload 64 KiB",
        over_tls: true,
        work: Work::Upload,
        unit: Unit::SecondsPerGigabyte,
        aim: Some(0.30),
    },
    Scenario {
        name: "ws download 64 KiB",
        over_tls: false,
        work: Work::Download,
        unit: Unit::SecondsPerGigabyte,
        aim: Some(0.32),
    },
    Scenario {
        name: "wss connect, message, close",
        over_tls: true,
        work: Work::Connect,
        unit: Unit::MicrosPerConnect,
        aim: Some(0.60),
    },
    Scenario {
        name: "https GET, keep-alive",
        over_tls: true,
        work: Work::Get,
        unit: Unit::MicrosPerRequest,
        aim: Some(0.85),
    },
    Scenario {
        name: "idle wss session",
        over_tls: true,
        work: Work::Idle,
        unit: Unit::KibPerSession,
        aim: Some(0.14),
    },
];

impl Scenario {
    /// How many connections work at once.
    fn clients(&self) -> usize {
        match self.work {
            Work::Echo { .. } | Work::Get => 64,
            // More would only wait for each other in the kernel's buffers.
            Work::Download | Work::Upload => 4,
            Work::Connect | Work::Idle => 16,
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
        }
    }

    /// The figure for `count` units of work that took `cpu`.
    fn figure(self, cpu: Duration, count: f64) -> f64 {
        match self {
            Self::SecondsPerGigabyte => cpu.as_secs_f64() * 1e9 / count,
            _ => cpu.as_secs_f64() * 1e6 / count,
        }
    }
}

/// How long, and how much, one measurement may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) idle_sessions: usize,
}

/// Longest time that a measurement may last beyond what it was given.
const GRACE: Duration = Duration::from_secs(30);

/// Puts the scenario's load on `proxy` and measures what it costs. The reading is taken while
/// the load goes on: opening and closing its connections is no part of the figure, unless that is
/// the work.
pub(crate) async fn measure(
    scenario: &Scenario,
    proxy: &Proxy,
    door: &Door,
    backend: &Backend,
    bounds: Bounds,
) -> io::Result<Sample> {
    let done = Arc::new(AtomicU64::new(0));
    let counter = match scenario.work {
        Work::Upload => &backend.sunk_bytes, // what has arrived, not what was sent
        _ => &*done,
    };
    let mut clients = JoinSet::new();
    for client in 0..scenario.clients() {
        clients.spawn(work(scenario.work, client as u32, door.clone(), Arc::clone(&done)));
    }

    let measuring = async {
        tokio::time::sleep(bounds.warm_up).await;
        let (begun, cpu, count) = (Instant::now(), proxy.cpu()?, counter.load(Ordering::Relaxed));
        tokio::time::sleep(bounds.window).await;
        let (wall, cpu) = (begun.elapsed(), proxy.cpu()? - cpu);
        let count = (counter.load(Ordering::Relaxed) - count) as f64;
        if count == 0.0 {
            return Err(io::Error::other("nothing came through"));
        }
        Ok(Sample {
            figure: scenario.unit.figure(cpu.used, count),
            rate: count / wall.as_secs_f64(),
            busy: cpu.used.as_secs_f64() / wall.as_secs_f64(),
            waited: cpu.waited.as_secs_f64() / wall.as_secs_f64(),
        })
    };
    tokio::select! {
        sample = measuring => sample,
        failure = first_failure(&mut clients) => Err(failure),
    }
    // Dropping the clients ends their tasks and, with them, their connections.
}

/// What an idle session holds in the memory of a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// KiB per session while all are open.
    pub(crate) open: f64,
    /// KiB per session that the process still holds a moment after all have gone.
    pub(crate) after: f64,
}

/// Opens many sessions through `proxy`, which must be fresh, and weighs it before, meanwhile and
/// afterwards.
pub(crate) async fn weigh(proxy: &Proxy, door: &Door, bounds: Bounds) -> io::Result<Memory> {
    // The very first session pays for what is made once.
    let first = open_idle(door, 0).await?;
    first.close().await?;
    settle().await;
    let before = proxy.pss_kib()?;

    let opening = async {
        let mut sessions = Vec::with_capacity(bounds.idle_sessions);
        let mut pending = JoinSet::new();
        for number in 0..bounds.idle_sessions {
            if pending.len() == 16 {
                sessions.extend(joined(&mut pending).await?);
            }
            let door = door.clone();
            pending.spawn(async move { open_idle(&door, number as u32).await });
        }
        while let Some(session) = joined(&mut pending).await? {
            sessions.push(session);
        }
        Ok::<_, io::Error>(sessions)
    };
    let sessions = tokio::time::timeout(GRACE, opening).await??;
    settle().await;
    let open = proxy.pss_kib()?;
    // All still work, and none was cut: otherwise less than it seems was weighed.
    let mut closing = JoinSet::new();
    for session in sessions {
        closing.spawn(session.close());
    }
    let closing = async {
        while let Some(end) = closing.join_next().await {
            end??;
        }
        Ok::<_, io::Error>(())
    };
    tokio::time::timeout(GRACE, closing).await??;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = proxy.pss_kib()?;
    let per_session = |kib: f64| (kib - before) / bounds.idle_sessions as f64;
    Ok(Memory { open: per_session(open), after: per_session(after) })
}

async fn open_idle(door: &Door, number: u32) -> io::Result<Link> {
    let mut link = door.websocket("/echo").await?;
    Echo::new(number, 1024).once(&mut link).await?;
    link.rest();
    Ok(link)
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

async fn joined<T: 'static>(tasks: &mut JoinSet<io::Result<T>>) -> io::Result<Option<T>> {
    tasks.join_next().await.transpose()?.transpose()
}

/// What one client does until its task is dropped; it ends by itself only at a fault.
async fn work(work: Work, client: u32, door: Door, done: Arc<AtomicU64>) -> io::Result<Infallible> {
    match work {
        Work::Echo { payload_bytes } => {
            let mut link = door.websocket("/echo").await?;
            let mut echo = Echo::new(client, payload_bytes);
            loop {
                echo.once(&mut link).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
        Work::Download => {
            let mut link = door.websocket("/source").await?;
            let expected = bulk_payload();
            loop {
                link.expect(frame::BINARY, &expected).await?;
                done.fetch_add(expected.len() as u64, Ordering::Relaxed);
            }
        }
        Work::Upload => {
            let mut link = door.websocket("/sink").await?;
            let message = frame::from_client(frame::BINARY, &bulk_payload());
            loop {
                link.send(&message).await?;
            }
        }
        Work::Connect => loop {
            let mut link = door.websocket("/echo").await?;
            Echo::new(client, 1024).once(&mut link).await?;
            link.close().await?;
            done.fetch_add(1, Ordering::Relaxed);
        },
        Work::Get => {
            let mut link = door.connect().await?;
            loop {
                link.get().await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
        Work::Idle => Err(io::Error::other("idle sessions are weighed, not timed")),
    }
}

async fn first_failure(clients: &mut JoinSet<io::Result<Infallible>>) -> io::Error {
    match clients.join_next().await {
        Some(Ok(Err(failure))) => failure,
        Some(Err(panicked)) => panicked.into(),
        None => io::Error::other("no client was started"),
    }
}

/// A message that is told apart from every other by its first 8 bytes, the client's number and
/// its own, so that an answer that went to the wrong session is noticed.
struct Echo {
    payload: Vec<u8>,
    frame: Vec<u8>,
    sent: u32,
}

impl Echo {
    fn new(client: u32, payload_bytes: usize) -> Self {
        let mut payload = bulk_payload();
        payload.truncate(payload_bytes);
        payload[..4].copy_from_slice(&client.to_be_bytes());
        let frame = frame::from_client(frame::BINARY, &payload);
        Self { payload, frame, sent: 0 }
    }

    async fn once(&mut self, link: &mut Link) -> io::Result<()> {
        self.sent = self.sent.wrapping_add(1);
        let number = self.sent.to_be_bytes();
        self.payload[4..8].copy_from_slice(&number);
        let header_bytes = self.frame.len() - self.payload.len();
        let place = &mut self.frame[header_bytes + 4..header_bytes + 8];
        place.copy_from_slice(&number);
        frame::apply_mask(place, frame::MASK); // 4 bytes in, the mask begins anew
        link.send(&self.frame).await?;
        link.expect(frame::BINARY, &self.payload).await
    }
}
