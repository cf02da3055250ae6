//! Connections to endpoints for ordinary requests, and those that are kept for the next one. One
//! pool per worker, so there is no lock; a WebSocket owns its connection and never comes here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::body::RequestBody;
use crate::transport::Stream;
use crate::upstream::endpoint::Endpoint;

/// How long a connection is kept. An endpoint that closes sooner is noticed, or forgiven by a
/// second try.
const IDLE: Duration = Duration::from_secs(60);
/// More idle connections to one endpoint than this are not kept.
const MOST_IDLE: usize = 128;

/// A connection to an endpoint that takes one request after the other.
#[derive(Debug)]
pub struct Connection {
    /// Takes the request.
    pub sender: SendRequest<RequestBody>,
    task: AbortHandle,
    opened: Instant,
}

/// How we speak HTTP/1.1 to endpoints: names of headers as the client wrote them, ours in the
/// usual case.
pub fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(true).title_case_headers(true);
    builder
}

impl Connection {
    /// Speaks HTTP/1.1 over `stream`.
    ///
    /// # Errors
    ///
    /// What hyper says.
    pub async fn over(stream: Stream) -> Result<Self, hyper::Error> {
        let io = TokioIo::new(StillReadable { stream, is_refusing: false });
        let (sender, connection) = http1().handshake(io).await?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Self { sender, task: task.abort_handle(), opened: Instant::now() })
    }

    /// Closes it, whatever it is doing.
    pub fn close(self) {
        self.task.abort();
    }
}

/// A stream whose failing writes go nowhere, so that what the endpoint said before it hung up is
/// read all the same. hyper stops reading when a write fails, and an endpoint that answers early
/// (413, say) and closes while a body is on its way to it makes writes fail. If it said nothing,
/// the end of the stream tells.
#[derive(Debug)]
struct StillReadable {
    stream: Stream,
    is_refusing: bool,
}

impl StillReadable {
    fn forgive(&mut self, written: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "an endpoint takes no more of a request");
                self.is_refusing = true;
                Poll::Ready(Ok(len))
            }
            other => other,
        }
    }
}

impl AsyncRead for StillReadable {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for StillReadable {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_refusing {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.forgive(written, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let len = slices.iter().map(|slice| slice.len()).sum();
        if this.is_refusing {
            return Poll::Ready(Ok(len));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.forgive(written, len)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_refusing {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Pool {
    /// By the address of the endpoint's [`Arc`], which the connections keep alive.
    idle: RefCell<BTreeMap<usize, Vec<Idle>>>,
    /// What was opened before this was opened under another configuration.
    cleared: Cell<Option<Instant>>,
    /// When it was last swept, which is as exact as the age of what is idle need be.
    swept: Cell<Instant>,
}

impl Default for Pool {
    fn default() -> Self {
        let swept = Cell::new(Instant::now());
        Self { idle: RefCell::default(), cleared: Cell::default(), swept }
    }
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
    _endpoint: Arc<Endpoint>,
}

impl Pool {
    /// A connection to `endpoint` that is ready for a request, the one used last.
    pub fn take(&self, endpoint: &Arc<Endpoint>) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&key(endpoint))?;
        // One that was closed by the endpoint is not ready either, and is for the sweep.
        let at = kept.iter().rposition(|idle| idle.connection.sender.is_ready())?;
        Some(kept.remove(at).connection)
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn keep(&self, endpoint: &Arc<Endpoint>, connection: Connection) {
        let is_outdated = self.cleared.get().is_some_and(|cleared| connection.opened < cleared);
        if connection.sender.is_closed() || is_outdated {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(key(endpoint)).or_default();
        if kept.len() == MOST_IDLE {
            kept.retain(|idle| !idle.connection.sender.is_closed());
        }
        if kept.len() < MOST_IDLE {
            let since = self.swept.get();
            kept.push(Idle { connection, since, _endpoint: endpoint.clone() });
        }
    }

    /// Lets go of what has been idle for too long or was closed by the endpoint.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.swept.set(now);
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|idle| {
                !idle.connection.sender.is_closed() && now.duration_since(idle.since) < IDLE
            });
            !kept.is_empty()
        });
    }

    /// Lets go of everything, and of what is in use as soon as it is no longer.
    pub fn clear(&self) {
        self.cleared.set(Some(Instant::now()));
        self.idle.borrow_mut().clear();
    }
}

fn key(endpoint: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(endpoint).addr()
}
