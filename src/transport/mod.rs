//! What a connection is made of before it is relayed: a socket, with TLS over it or not. Both
//! sides of the proxy use the same types, so hyper sees one kind of I/O and the relay can take
//! either side apart again.

mod unsent;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
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

impl Socket {
    /// Writes what nothing but our end comes behind: it goes out together with that, which has to
    /// follow at once.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Unix(unix) => return Pin::new(unix).poll_write(cx, bytes),
        };
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            match tcp.try_io(Interest::WRITABLE, || Ok(send(&*tcp, bytes, flags)?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Nothing of it is sent before the end is, and all of it then.
    #[tokio::test]
    async fn the_last_words_go_out_with_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut ours, (mut theirs, _)) =
            (Socket::Tcp(ours.expect("a connection")), accepted.expect("the other end"));
        ours.write_all(b"first").await.expect("room");
        let mut heard = [0; 5];
        theirs.read_exact(&mut heard).await.expect("what was said");
        let written = poll_fn(|cx| ours.poll_write_last(cx, b"last")).await;
        assert_eq!(written.expect("room"), 4);
        assert_eq!(rustix::io::ioctl_fionread(&theirs).expect("a socket"), 0);
        ours.shutdown().await.expect("an end");
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.expect("the rest");
        assert_eq!(rest, b"last");
    }

    #[tokio::test]
    async fn last_words_wait_for_room_and_unix_sockets_take_them_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (ours, (theirs, _)) = (ours.expect("a connection"), accepted.expect("the other end"));
        let (near, far) = UnixStream::pair().expect("a pair");
        hear_all(Socket::Tcp(ours), Socket::Tcp(theirs)).await;
        hear_all(Socket::Unix(near), Socket::Unix(far)).await;
    }

    async fn hear_all(mut ours: Socket, mut theirs: Socket) {
        const BYTES: usize = 16 << 20;
        let saying = async {
            let words = vec![7; BYTES];
            let mut said = 0;
            while said < BYTES {
                let written = poll_fn(|cx| ours.poll_write_last(cx, &words[said..])).await;
                said += written.expect("a peer that hears");
            }
            ours.shutdown().await.expect("an end");
        };
        let mut heard = Vec::new();
        let ((), len) = tokio::join!(saying, theirs.read_to_end(&mut heard));
        assert_eq!(len.expect("the rest"), BYTES);
    }
}
