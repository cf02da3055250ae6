//! A socket of a session, read and written with tokio asked about it no more often than need be.
//!
//! tokio's `poll_read` and `poll_write` count each call against a budget and see to the waker, most
//! of what they cost beside the system call; a socket that has given all it had would be polled
//! once more for the waker's sake alone, and one that has nothing to say whenever the other one
//! has. Here it is read and written as long as tokio holds it for ready, and the waker is left
//! there once for each time that it is woken.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncWrite as _, Interest};
use tokio::task::coop;

use crate::transport::Socket;

/// A socket of a session.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    /// Whether our waker was left there when there was nothing to be read. It has been woken if
    /// there is something now.
    is_awaited: bool,
}

impl Wire {
    /// A socket with which no waker of ours is left yet.
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, is_awaited: false }
    }

    /// The socket.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, for what is rare or has to wait.
    pub(super) fn pinned(&mut self) -> Pin<&mut Socket> {
        Pin::new(&mut self.socket)
    }

    /// Whether our waker is there and nothing has come, not even an end.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        self.is_awaited && self.try_io(Interest::READABLE, || Ok(())).is_err()
    }

    /// The waker that is there is not ours any more.
    pub(super) fn forget_waker(&mut self) {
        self.is_awaited = false;
    }

    /// Reads what there is, 0 bytes at the end of the stream.
    ///
    /// # Errors
    ///
    /// The socket's.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.is_awaited = false;
        loop {
            let room_len = room.len();
            // What fills less than the room is all there is.
            let is_all = |len| 0 < len && len < room_len;
            let read = self.until_it_blocks(Interest::READABLE, is_all, || {
                Ok(rustix::net::recv(self.socket.as_fd(), &mut *room, RecvFlags::empty())?.1)
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_readable(cx))?;
                }
                Ok(len) if is_all(len) => {
                    // An error is found by the next read as well.
                    let _ = self.poll_readable(cx);
                    return Poll::Ready(Ok(len));
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Leaves the waker with the socket, unless that is readable.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &self.socket {
            Socket::Tcp(tcp) => tcp.poll_read_ready(cx),
            Socket::Unix(unix) => unix.poll_read_ready(cx),
        };
        // A task that has used up its budget is woken for that, and its waker left nowhere.
        self.is_awaited = polled.is_pending() && coop::has_budget_remaining();
        polled
    }

    /// Writes as much of `bytes` as there is room for.
    ///
    /// # Errors
    ///
    /// The socket's.
    #[inline]
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, SendFlags::NOSIGNAL)
    }

    /// The same right before more is written, or the end: what fits into one packet goes in one.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub(super) fn poll_write_ahead(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, SendFlags::NOSIGNAL | SendFlags::MORE)
    }

    #[inline]
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Poll<io::Result<usize>> {
        // What is not taken whole, there was no room for.
        let is_all = |len| 0 < len && len < bytes.len();
        let written = self.until_it_blocks(Interest::WRITABLE, is_all, || {
            Ok(rustix::net::send(self.socket.as_fd(), bytes, flags)?)
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.pinned().poll_write(cx, bytes)
            }
            done => Poll::Ready(done),
        }
    }

    /// Does `call` if the socket is ready for it. What it gives `is_all` if the next call would
    /// block: then the socket is not ready any more.
    #[inline]
    fn until_it_blocks(
        &self,
        interest: Interest,
        is_all: impl FnOnce(usize) -> bool,
        call: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut all = None;
        let done = self.try_io(interest, || match call() {
            Ok(len) if is_all(len) => {
                all = Some(len);
                // It has not blocked, but so tokio is told.
                Err(io::ErrorKind::WouldBlock.into())
            }
            other => other,
        });
        all.map_or(done, Ok)
    }

    #[inline]
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.try_io(interest, call),
            Socket::Unix(unix) => unix.try_io(interest, call),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (Wire::new(Socket::Unix(ours)), theirs)
    }

    async fn read(wire: &mut Wire, room: &mut [u8]) -> usize {
        poll_fn(|cx| wire.poll_read(cx, room)).await.expect("an open socket")
    }

    /// Whoever reads with room to spare has left its waker for what comes next.
    #[tokio::test]
    async fn what_fills_less_than_the_room_is_all_there_is() {
        let (mut wire, mut peer) = pair();
        let mut room = [0; 4];
        peer.write_all(b"seven..").await.expect("room");
        assert_eq!(read(&mut wire, &mut room).await, 4);
        assert!(!wire.is_silent(), "there may be more");
        assert_eq!(read(&mut wire, &mut room).await, 3);
        assert!(wire.is_silent());
        peer.write_all(b".").await.expect("room");
        poll_fn(|_| if wire.is_silent() { Poll::Pending } else { Poll::Ready(()) }).await;
        assert_eq!(read(&mut wire, &mut room).await, 1);
        drop(peer);
        assert_eq!(read(&mut wire, &mut room).await, 0);
        assert!(!wire.is_silent(), "an end is not silence");
    }

    /// A task that has had its share is woken by tokio and its waker left nowhere.
    #[tokio::test]
    async fn a_task_that_has_had_its_share_asks_again() {
        let (mut wire, _peer) = pair();
        let mut room = [0; 4];
        poll_fn(|cx| {
            while let Poll::Ready(share) = coop::poll_proceed(cx) {
                share.made_progress();
            }
            assert!(wire.poll_read(cx, &mut room).is_pending() && !wire.is_silent());
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
        poll_fn(|cx| {
            assert!(wire.poll_read(cx, &mut room).is_pending() && wire.is_silent());
            Poll::Ready(())
        })
        .await;
    }

    /// One task may hand a session to another.
    #[tokio::test]
    async fn another_waker_takes_the_place_of_the_first() {
        let (mut wire, mut peer) = pair();
        let mut room = [0; 4];
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        assert!(wire.poll_read(&mut nobody, &mut room).is_pending() && wire.is_silent());
        wire.forget_waker();
        assert!(!wire.is_silent());
        let (len, written) = tokio::join!(read(&mut wire, &mut room), peer.write(b"."));
        assert_eq!((len, written.expect("room")), (1, 1));
    }

    async fn tcp_pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (theirs, _) = accepted.expect("the other end");
        (Wire::new(Socket::Tcp(ours.expect("a connection"))), theirs)
    }

    /// Nothing of it is sent before the end is, and all of it then.
    #[tokio::test]
    async fn the_last_words_go_out_with_the_end() {
        let (mut wire, mut peer) = tcp_pair().await;
        wire.pinned().write_all(b"first").await.expect("room");
        let mut heard = [0; 5];
        peer.read_exact(&mut heard).await.expect("what was said");
        let written = poll_fn(|cx| wire.poll_write_ahead(cx, b"last")).await;
        assert_eq!(written.expect("room"), 4);
        assert_eq!(rustix::io::ioctl_fionread(&peer).expect("a socket"), 0);
        wire.pinned().shutdown().await.expect("an end");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.expect("the rest");
        assert_eq!(rest, b"last");
    }

    /// A write that finds no room leaves the waker for when there is some.
    #[tokio::test]
    async fn writes_wait_for_room() {
        for poll_write in [Wire::poll_write, Wire::poll_write_ahead] {
            let (wire, peer) = pair();
            hear_all(wire, peer, poll_write).await;
            let (wire, peer) = tcp_pair().await;
            hear_all(wire, peer, poll_write).await;
        }
    }

    async fn hear_all(
        mut wire: Wire,
        mut peer: impl AsyncRead + Unpin,
        poll_write: fn(&mut Wire, &mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) {
        const BYTES: usize = 16 << 20;
        let saying = async {
            let words = vec![7; BYTES];
            let mut said = 0;
            while said < BYTES {
                let written = poll_fn(|cx| poll_write(&mut wire, cx, &words[said..])).await;
                said += written.expect("a peer that hears");
            }
            wire.pinned().shutdown().await.expect("an end");
        };
        let mut heard = Vec::new();
        let ((), len) = tokio::join!(saying, peer.read_to_end(&mut heard));
        assert_eq!(len.expect("the rest"), BYTES);
    }
}
