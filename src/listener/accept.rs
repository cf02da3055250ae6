//! The loop that accepts connections on one socket of one worker.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::http::headers;
use crate::listener::Entrance;
use crate::listener::limits::Admission;
use crate::proxy::{self, Worker};

/// How long to leave off after a failed accept; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until the drain begins; then the socket is closed.
pub async fn accept(socket: TcpListener, entrance: Rc<Entrance>, worker: Rc<Worker>) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %entrance.address, %error, "cannot accept");
            return;
        }
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.drain.draining() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                admit(stream, peer, &entrance, &worker);
            }
            // The client was gone before we came to it.
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Descriptors or memory are used up: connections that end give them back, and
                // until then newcomers wait in the kernel's queue.
                tracing::warn!(
                    address = %entrance.address, %error, ?pause, "cannot accept for the moment"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
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

fn admit(stream: TcpStream, peer: SocketAddr, entrance: &Rc<Entrance>, worker: &Rc<Worker>) {
    // A client on an IPv6 socket that came by IPv4 is that IPv4 client.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let is_trusted = headers::is_trusted(peer.ip(), &entrance.trusted);
    let counted = (!is_trusted).then_some(peer.ip());
    let (refusal, permit) = match worker.running.limits.admit(counted) {
        Admission::Admitted(permit) => (None, permit),
        Admission::Refused(full, permit) => (Some(full), permit),
        Admission::Dropped => return,
    };
    let arrival = proxy::Arrival { peer, is_trusted, refusal, permit, entrance: entrance.clone() };
    let alive = worker.drain.keep_alive();
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        proxy::serve(stream, arrival, worker).await;
        drop(alive);
    });
}
