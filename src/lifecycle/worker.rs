//! A worker: one thread with its own runtime, sockets, pool and sessions. Nothing on the data
//! path is shared with another worker.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;

use super::phases::{Drain, Phase};
use crate::http::pool::Pool;
use crate::listener::{Entrance, accept};
use crate::proxy::{Running, Worker};
use crate::relay::sessions::Sessions;
use crate::telemetry::access_log::{AccessLog, WorkerLog};

/// Starts a worker that accepts on `sockets`. Its thread ends with the number of connections that
/// had to be cut.
///
/// # Errors
///
/// What the system says to a new thread or event queue.
pub fn start(
    number: usize,
    running: Arc<Running>,
    sockets: Vec<(TcpListener, Entrance)>,
    log: AccessLog,
    phases: watch::Receiver<Phase>,
) -> io::Result<JoinHandle<usize>> {
    let (built, is_built) = mpsc::channel();
    let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        // A local runtime stays on the thread it was built on.
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                // Whoever starts us waits for this.
                let _ = built.send(Ok(()));
                let cut = runtime.block_on(run(running, sockets, log, phases));
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
    running: Arc<Running>,
    sockets: Vec<(TcpListener, Entrance)>,
    log: AccessLog,
    phases: watch::Receiver<Phase>,
) -> usize {
    let worker = Rc::new(Worker {
        running,
        log: WorkerLog::new(log),
        pool: Rc::new(Pool::default()),
        sessions: Rc::new(Sessions::default()),
        drain: Drain::new(),
    });
    for (socket, entrance) in sockets {
        tokio::task::spawn_local(accept::accept(socket, Rc::new(entrance), worker.clone()));
    }
    let sweeping = worker.clone();
    tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(sweeping.running.sweep_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            sweeping.sessions.sweep(std::time::Instant::now());
            sweeping.pool.sweep();
        }
    });
    let cut = worker
        .drain
        .follow(phases, || {
            worker.sessions.end_all();
            worker.pool.clear();
        })
        .await;
    worker.sessions.cut_all();
    worker.log.hand_over();
    cut
}
