//! Puts the load of a scenario on a proxy, and reads what it costs while the load goes on.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::client::{Door, Doors, Link};
use crate::pace::Pace;
use crate::payload::{Bulk, Echo};
use crate::proxy::Proxy;
use crate::scenario::{Bounds, Course, Latency, Sample, Scenario, Work};

/// How many connections are opened at once: a thousand would overrun the queues of the kernel.
pub(crate) const OPENING: usize = 16;

/// Longest time for what has no time of its own, such as opening connections.
pub(crate) const GRACE: Duration = Duration::from_secs(120);

/// A load from which nothing came for so long stands still.
const STALLED: Duration = Duration::from_secs(10);

/// Puts the scenario's load on `proxy` and measures what it costs. The reading is taken while
/// the load goes on: opening and closing its connections is no part of the figure, unless that is
/// the work.
pub(crate) async fn measure(
    scenario: &Scenario,
    proxy: &Proxy,
    doors: &Doors,
    backend: &Backend,
    bounds: Bounds,
) -> io::Result<Sample> {
    let crew = Arc::new(Crew::new(scenario.clients));
    let counter = match scenario.work {
        Work::Upload { .. } => &backend.sunk_bytes, // what has arrived, not what was sent
        _ => &crew.done,
    };
    let mut clients = JoinSet::new();
    for number in 0..scenario.clients {
        let client =
            Client { number: number as u32, door: doors.of(number), crew: Arc::clone(&crew) };
        clients.spawn(client.work(scenario.work));
    }

    let measuring = async {
        let all_there = tokio::time::timeout(GRACE, crew.begin.wait()).await;
        all_there.map_err(|_| io::Error::other("not all connections could be opened"))?;
        tokio::time::sleep(bounds.warm_up).await;
        crew.latencies().clear();
        let (begun, cpu, count) = (Instant::now(), proxy.cpu()?, counter.load(Ordering::Relaxed));
        // On a machine that is busy with others, a short window may pass without an answer.
        let mut came = 0;
        while came == 0 && begun.elapsed() < STALLED {
            tokio::time::sleep(bounds.window).await;
            came = counter.load(Ordering::Relaxed) - count;
        }
        let (wall, cpu) = (begun.elapsed(), proxy.cpu()? - cpu);
        if came == 0 {
            return Err(io::Error::other("nothing came through"));
        }
        let count = came as f64;
        let wall = wall.as_secs_f64();
        Ok(Sample {
            figure: scenario.unit().figure(cpu.used, count),
            course: Some(Course {
                rate: count / wall,
                busy: cpu.used.as_secs_f64() / wall,
                waited: cpu.waited.as_secs_f64() / wall,
            }),
            latency: Latency::of(&mut crew.latencies()),
        })
    };
    tokio::select! {
        sample = measuring => sample,
        failure = first_failure(&mut clients) => Err(failure),
    }
    // Dropping the clients ends their tasks and, with them, their connections.
}

async fn first_failure(clients: &mut JoinSet<io::Result<Infallible>>) -> io::Error {
    match clients.join_next().await {
        Some(Ok(Err(failure))) => failure,
        Some(Err(panicked)) => panicked.into(),
        None => io::Error::other("no client was started"),
    }
}

/// What the clients of one measurement share.
struct Crew {
    clients: u32,
    /// Round trips, connects, requests, or bytes that arrived.
    done: AtomicU64,
    /// Every round trip, in nanoseconds.
    latencies: Mutex<Vec<u64>>,
    opening: Semaphore,
    /// Passed when all have opened their connections, by them and by who measures.
    begin: Barrier,
}

impl Crew {
    fn new(clients: usize) -> Self {
        Self {
            clients: clients as u32,
            done: AtomicU64::new(0),
            latencies: Mutex::default(),
            opening: Semaphore::new(OPENING),
            begin: Barrier::new(clients + 1),
        }
    }

    fn latencies(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// A message has come back that was sent, or due, at `since`.
    fn round_trip(&self, since: Instant) {
        self.latencies().push(since.elapsed().as_nanos() as u64);
        self.done(1);
    }
}

impl Latency {
    fn of(nanos: &mut [u64]) -> Option<Self> {
        let length = nanos.len();
        let mut micros = |per_cent: usize| {
            let (_, &mut at, _) = nanos.select_nth_unstable(length * per_cent / 100);
            at as f64 / 1e3
        };
        (length > 0).then(|| Self { median: micros(50), p99: micros(99) })
    }
}

/// One of the crew.
struct Client {
    number: u32,
    door: Door,
    crew: Arc<Crew>,
}

impl Client {
    /// What one client does until its task is dropped; it ends by itself only at a fault.
    async fn work(self, work: Work) -> io::Result<Infallible> {
        match work {
            Work::Echo { payload_bytes } => {
                let mut link = self.join("/echo").await?;
                let mut echo = Echo::new(self.number, payload_bytes);
                loop {
                    let sent = Instant::now();
                    echo.once(&mut link).await?;
                    self.crew.round_trip(sent);
                }
            }
            Work::Paced { payload_bytes, per_second } => {
                let mut link = self.join("/echo").await?;
                let mut echo = Echo::new(self.number, payload_bytes);
                let mut pace = Pace::new(self.number, self.crew.clients, per_second)?;
                loop {
                    let due = pace.due().await?;
                    echo.once(&mut link).await?;
                    self.crew.round_trip(due);
                }
            }
            Work::Download { payload_bytes } => {
                let mut link = self.join(&format!("/source/{payload_bytes}")).await?;
                let mut bulk = Bulk::from_server(payload_bytes);
                loop {
                    let bytes = link.receive_bulk(&mut bulk).await?;
                    self.crew.done(bytes);
                }
            }
            Work::Upload { payload_bytes } => {
                let mut link = self.join(&format!("/sink/{payload_bytes}")).await?;
                let bulk = Bulk::from_client(payload_bytes);
                loop {
                    link.send_bulk(&bulk).await?;
                }
            }
            Work::Connect => {
                self.crew.begin.wait().await;
                loop {
                    let link = self.door.websocket("/echo").await?;
                    self.say_and_leave(link).await?;
                    self.crew.done(1);
                }
            }
            Work::Resume => {
                let door = self.door.remembering();
                self.say_and_leave(door.websocket("/echo").await?).await?;
                self.crew.begin.wait().await;
                loop {
                    let link = door.websocket_resumed("/echo").await?;
                    self.say_and_leave(link).await?;
                    self.crew.done(1);
                }
            }
            Work::Get => {
                let mut link = self.door.connect().await?;
                self.crew.begin.wait().await;
                loop {
                    link.get().await?;
                    self.crew.done(1);
                }
            }
            Work::Idle(_) | Work::Beside => {
                Err(io::Error::other("idle sessions are watched, they do not work"))
            }
        }
    }

    /// Opens a WebSocket at `path`, and waits until all others have theirs.
    async fn join(&self, path: &str) -> io::Result<Link> {
        let permit = self.crew.opening.acquire().await.map_err(io::Error::other)?;
        let link = self.door.websocket(path).await?;
        drop(permit);
        self.crew.begin.wait().await;
        Ok(link)
    }

    async fn say_and_leave(&self, mut link: Link) -> io::Result<()> {
        Echo::new(self.number, 1024).once(&mut link).await?;
        link.close().await
    }
}
