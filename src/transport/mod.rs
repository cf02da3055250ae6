//! What a connection is made of before it is relayed: a socket, with TLS over it or not. Both
//! sides of the proxy use the same types, so hyper sees one kind of I/O and the relay can take
//! either side apart again.

mod unsent;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::handover::Secured;

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP, to clients and most endpoints.
    Tcp(TcpStream),
    /// A Unix socket, to `unix:` endpoints and what is built in.
    Unix(UnixStream),
}

/// Probes start after this much silence; a peer that answers none of them is gone after
/// [`USER_TIMEOUT`] (`tcp(7)`).
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long data may stay unacknowledged before the kernel gives the connection up. A living peer
/// that reads nothing, a page in a debugger say, counts as well (tcp(7)), so it is not short.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// Sets `TCP_NODELAY`, keepalive and `TCP_USER_TIMEOUT`. A listening socket passes them on to
/// what it accepts, so that an accepted connection costs no call for them.
///
/// # Errors
///
/// What `setsockopt` says.
pub fn set_tcp_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // How many probes may stay unanswered does not count where there is a user timeout.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

impl Socket {
    /// Whether the peer's kernel has all that was written.
    pub fn is_delivered(&self) -> bool {
        unsent::unsent_bytes(self).is_ok_and(|unsent| unsent == 0)
    }

    /// Bytes that were written and that the peer's kernel does not have yet; 0 where that cannot
    /// be told.
    pub fn unsent(&self) -> u64 {
        unsent::unsent_bytes(self).map_or(0, |unsent| unsent as u64)
    }

    /// Makes the coming close a reset (RFC 9293 §3.5.2), for a peer that must learn at once that
    /// the other side is gone.
    pub fn reset_on_close(&self) {
        if let Self::Tcp(tcp) = self {
            // It only fails on a socket that is closed already.
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}

/// Calls the same method on whichever stream is there.
macro_rules! on_either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => $call,
            Self::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One piece goes out cheaper with send(2); a head alone is one, and nearly all that rustls
        // writes.
        if let [only] = slices {
            return self.poll_write(cx, only);
        }
        on_either!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A socket, with TLS over it or not.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(Socket),
    /// TLS; boxed, since its state is many times as large as a socket.
    Tls(Box<Secured<Socket>>),
}

impl Stream {
    /// The socket below.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
        }
    }
}

/// Calls the same method on whichever stream is there.
macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => $call,
            Self::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
