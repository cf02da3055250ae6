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
    /// Whether our waker is there, to be woken when there is something to be read.
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

    /// Whether the last read found all there was, and our waker was left for what comes next.
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Whether something has come, or an end.
    #[inline]
    pub(super) fn is_readable(&self) -> bool {
        self.try_io(Interest::READABLE, || Ok(())).is_ok()
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
        let is_all = |len| 0 < len && len < bytes.len();
        let written = self.until_it_blocks(Interest::WRITABLE, is_all, || {
            Ok(rustix::net::send(self.socket.as_fd(), bytes, SendFlags::NOSIGNAL)?)
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
