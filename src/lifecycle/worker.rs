//! A worker: one thread with its own runtime, sockets, pool and sessions. Nothing on the data
//! path is shared with another worker; what it is told from outside are [`Command`]s.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::phases::{Drain, Phase};
use crate::admin::snapshot::{SessionInfo, Watched};
use crate::http::pool::Pool;
use crate::listener::{Door, accept};
use crate::proxy::{Running, Worker};
use crate::relay::departure::{Departure, LONGEST_PAUSE, Parting, Who};
use crate::relay::sessions::{Sessions, Why};
use crate::relay::view::{Filter, Query};
use crate::telemetry::access_log::{AccessLog, WorkerLog};
use crate::telemetry::metrics::Metrics;

/// What a worker is told from outside.
#[derive(Debug)]
pub enum Command {
    /// Accept on this socket of a listener.
    Listen(TcpListener, Arc<Door>),
    /// Accept on the listener no more.
    Shut(Arc<Door>),
    /// Send sessions away; answers how many.
    Depart(Departure, oneshot::Sender<usize>),
    /// List sessions; answers how many match, and those that are to be shown.
    List(Query, oneshot::Sender<(usize, Vec<SessionInfo>)>),
    /// Tell of sessions that come and go.
    Watch(Filter, Sender<Watched>),
    /// Let go of connections that are kept for endpoints.
    ForgetConnections,
    /// Say that you are alive.
    Answer(oneshot::Sender<()>),
}

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The configuration as it runs.
    pub running: Arc<ArcSwap<Running>>,
    /// The access log.
    pub log: AccessLog,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Starts the worker with this number, which does as it is told. Its thread ends with the number
/// of connections that had to be cut.
///
/// # Errors
///
/// What the system says to a new thread or event queue.
pub fn start(
    number: usize,
    shared: Shared,
    commands: UnboundedReceiver<Command>,
    phases: watch::Receiver<Phase>,
) -> io::Result<JoinHandle<usize>> {
    let (built, is_built) = mpsc::channel();
    let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        // A local runtime stays on the thread it was built on.
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                // Whoever starts us waits for this.
                let _ = built.send(Ok(()));
                let cut = runtime.block_on(run(number, shared, commands, phases));
                // Drops what is left, which writes its records, and does not wait for a resolver
                // that is still asked.
                runtime.shutdown_background();
                cut
            }
            Err(error) => {
                let _ = built.send(Err(error));
                0
            }
        }
    })?;
    is_built.recv().unwrap_or_else(|gone| Err(io::Error::other(gone)))?;
    Ok(thread)
}

async fn run(
    number: usize,
    shared: Shared,
    commands: UnboundedReceiver<Command>,
    phases: watch::Receiver<Phase>,
) -> usize {
    let worker = Rc::new(Worker {
        sessions: Sessions::new(shared.running.clone()),
        running: shared.running,
        log: WorkerLog::new(shared.log, shared.metrics, number),
        pool: Rc::new(Pool::default()),
        drain: Drain::new(phases),
    });
    tokio::task::spawn_local(sweep(worker.clone()));
    let following = worker.drain.follow(|| drain(&worker));
    let cut = tokio::select! {
        // First: what it was told to listen on, even a moment before it leaves, has a queue.
        biased;
        never = obey(worker.clone(), commands) => match never {},
        cut = following => cut,
    };
    worker.sessions.cut_all();
    worker.log.hand_over();
    cut
}

/// Finds what is due, for as long as the worker lives.
async fn sweep(worker: Rc<Worker>) {
    loop {
        let every = worker.running.load().sweep_every;
        sleep(every).await;
        worker.sessions.sweep(Instant::now());
        worker.pool.sweep();
    }
}

/// Sends the sessions away.
fn drain(worker: &Rc<Worker>) {
    let words = worker.running.load().drain.clone();
    let parting = Parting::new(Why::Drain, &words);
    worker.sessions.end_newcomers(parting.clone());
    // The process itself cuts what is left, with everything else.
    let departure = Departure {
        who: Who::All,
        parting,
        spread: words.spread,
        longest_pause: LONGEST_PAUSE,
        cut_after: None,
    };
    worker.sessions.depart(departure);
    worker.pool.clear();
}

async fn obey(worker: Rc<Worker>, mut commands: UnboundedReceiver<Command>) -> Infallible {
    // Dropping its sender ends an accept loop.
    let mut doors: Vec<(Arc<Door>, oneshot::Sender<()>)> = Vec::new();
    // Whoever asked may be gone when an answer is ready; then nobody misses it.
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(socket, door) => {
                let (shut, is_shut) = oneshot::channel();
                doors.push((door.clone(), shut));
                tokio::task::spawn_local(accept::accept(socket, door, is_shut, worker.clone()));
            }
            Command::Shut(door) => doors.retain(|(open, _)| !Arc::ptr_eq(open, &door)),
            Command::Depart(departure, answer) => {
                let _ = answer.send(worker.sessions.depart(departure));
            }
            Command::List(query, answer) => {
                let sessions = worker.sessions.clone();
                tokio::task::spawn_local(async move {
                    let _ = answer.send(sessions.list(&query).await);
                });
            }
            Command::Watch(filter, to) => {
                let sessions = worker.sessions.clone();
                tokio::task::spawn_local(async move { sessions.watch(filter, to).await });
            }
            Command::ForgetConnections => worker.pool.clear(),
            Command::Answer(answer) => {
                let _ = answer.send(());
            }
        }
    }
    std::future::pending().await
}
