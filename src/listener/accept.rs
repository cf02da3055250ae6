//! The loop that accepts connections on one socket of one worker.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::bind::BACKLOG;
use crate::http::headers;
use crate::listener::limits::Admission;
use crate::listener::{Door, Entrance};
use crate::proxy::{self, Arrival, Place, Worker};
use crate::telemetry::metrics::{ListenerCounters, ListenerShard};

/// How long to leave off after a failed accept; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until the worker leaves, or until the listener is shut by a reload; then the socket is
/// closed. Who had connected by then is still let in.
pub fn accept(
    socket: TcpListener,
    door: Arc<Door>,
    is_shut: oneshot::Receiver<()>,
    worker: Rc<Worker>,
) -> impl Future<Output = ()> {
    // Open from now on, and not only when the loop comes to run.
    let open = worker.drain.open_door();
    async move {
        accept_until(socket, door, is_shut, worker).await;
        drop(open);
    }
}

async fn accept_until(
    socket: TcpListener,
    door: Arc<Door>,
    mut is_shut: oneshot::Receiver<()>,
    worker: Rc<Worker>,
) {
    let address = door.entrance.load().address;
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%address, %error, "cannot accept");
            return;
        }
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Who waits at a socket that was passed to us waits for the next process.
            () = worker.drain.leaving() => if door.is_passed { return } else { break },
            _ = &mut is_shut => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                admit(stream, peer, &door, &worker);
            }
            // The client was gone before we came to it.
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Descriptors or memory are used up: connections that end give them back, and
                // until then newcomers wait in the kernel's queue.
                tracing::warn!(%address, %error, ?pause, "cannot accept for the moment");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    // The kernel resets what waits in the queue of a socket that is closed.
    // Asked by itself, since the runtime knows only what it was told of before, and gives each task
    // no more than its share.
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..BACKLOG {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if is_about_one_connection(&error) => continue,
            Err(_) => break,
        };
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        match stream {
            Ok(stream) => admit(stream, peer, &door, &worker),
            Err(error) => tracing::debug!(%address, %error, "a connection is lost"),
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
    )
}

fn admit(stream: TcpStream, peer: SocketAddr, door: &Arc<Door>, worker: &Rc<Worker>) {
    let entrance = door.entrance.load_full();
    // A client on an IPv6 socket that came by IPv4 is that IPv4 client.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let is_trusted = headers::is_trusted(peer.ip(), &entrance.trusted);
    let counted = (!is_trusted).then_some(peer.ip());
    let counters = Counted::new(&door.counters, worker.log.worker());
    let (refusal, permit) = match worker.running.load().limits.admit(counted) {
        Admission::Admitted(permit) => (None, permit),
        Admission::Refused(full, permit) => (Some(full), permit),
        Admission::Dropped => return,
    };
    let came_to = came_to(&stream, &entrance);
    let place = Place { permit, counters, alive: worker.drain.keep_alive() };
    let arrival = Arrival { client: peer, came_to, is_trusted, refusal, entrance };
    tokio::task::spawn_local(proxy::serve(stream, arrival, place, worker.clone()));
}

/// Which address of ours the client connected to.
fn came_to(stream: &TcpStream, entrance: &Entrance) -> SocketAddr {
    if !entrance.address.ip().is_unspecified() {
        return entrance.address;
    }
    // It is known unless the connection is over already.
    let local = stream.local_addr().unwrap_or(entrance.address);
    SocketAddr::new(local.ip().to_canonical(), local.port())
}

/// A connection that is counted as open until this is dropped.
#[derive(Debug)]
pub struct Counted {
    counters: Arc<ListenerCounters>,
    worker: usize,
}

impl Counted {
    fn new(counters: &Arc<ListenerCounters>, worker: usize) -> Self {
        counters.of(worker).accepted();
        Self { counters: counters.clone(), worker }
    }

    /// What this worker counts for the listener.
    pub fn shard(&self) -> &ListenerShard {
        self.counters.of(self.worker)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shard().closed();
    }
}
