//! One leg of a session: a socket, with TLS records over it or not, and what is stuck on the way
//! into it.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::AsyncWrite as _;
use tokio::task::coop;

use super::backlog::Backlog;
use super::wire::Wire;
use crate::tls::records::{Buffer, READ_BYTES, RecordError, Records, TakenOver};
use crate::transport::Stream;

/// A worker's scratch buffers, lent to one poll of one session at a time.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) input: Input,
    pub(super) output: Output,
}

/// What comes from a leg.
#[derive(Debug)]
pub(super) struct Input {
    /// What a TLS socket gave.
    sealed: Box<[u8]>,
    /// What a leg gave, in plain.
    plain: Buffer,
}

impl Default for Input {
    fn default() -> Self {
        Self { sealed: vec![0; READ_BYTES].into_boxed_slice(), plain: Buffer::new() }
    }
}

impl Input {
    /// Empties it but for `bytes`, which what is received next follows on.
    pub(super) fn begin_with(&mut self, bytes: &[u8]) {
        self.plain.begin_with(bytes);
    }

    /// What it began with, and what [`Leg::poll_receive`] received.
    pub(super) fn received(&self) -> &[u8] {
        self.plain.filled()
    }
}

/// What goes to a TLS leg, sealed.
#[derive(Debug, Default)]
pub(super) struct Output {
    sealed: Buffer,
}

/// What came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Bytes, at least one, in the scratch buffer.
    Bytes,
    /// The peer has ended its direction.
    End,
    /// The same without `close_notify`: anybody on the way may have cut the stream short (RFC 8446
    /// §6.1). WebSocket messages say their own length, so it ends like any other, but is told.
    Truncated,
}

/// One side of a session.
#[derive(Debug)]
pub(super) struct Leg {
    wire: Wire,
    records: Option<Box<Records>>,
    /// Read before the relay began, not yet relayed.
    early: Backlog,
    /// What the kernel did not take.
    stuck: Backlog,
    has_ended: bool,
    ending: Ending,
    is_closed: bool,
    /// Bytes that were thrown away while it was being closed.
    discarded: usize,
    /// Bytes that the kernel has taken.
    written: u64,
}

/// How much is read at once where there is no TLS. What was read goes out right away, and of so
/// much more is still in the processor's nearest caches; twice and half of it cost more.
const PLAIN_READ_BYTES: usize = READ_BYTES / 2;

/// How much one poll relays before other sessions of the worker have their turn.
const TURN_BYTES: usize = 512 * 1024;

/// How much of what a peer goes on to say is thrown away while its leg is being closed, before it
/// is closed on its unread words.
const DISCARD_BYTES: usize = 1 << 20;

/// How far our own end of a leg has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// `close_notify` is sealed, or there is no TLS.
    Said,
    /// FIN is sent.
    Done,
}

impl Leg {
    /// A leg of this stream, from which `early` bytes have been read already.
    pub(super) fn new(stream: Stream, early: Bytes) -> Self {
        let (socket, records, plain, sealed) = match stream {
            Stream::Plain(socket) => (socket, None, Vec::new(), Vec::new()),
            Stream::Tls(tls) => {
                let (socket, TakenOver { records, plain, sealed }) = tls.take_over();
                (socket, Some(Box::new(records)), plain, sealed)
            }
        };
        Self {
            wire: Wire::new(socket),
            records,
            // Copied, even where it is empty: it is a slice of hyper's buffer, and would keep all
            // of its 8 KiB for as long as the session lasts.
            early: [&early, &plain[..]].concat().into(),
            stuck: sealed.into(),
            has_ended: false,
            ending: Ending::NotYet,
            is_closed: false,
            discarded: 0,
            written: 0,
        }
    }

    /// So many reads that fill their room are a turn.
    #[inline]
    pub(super) fn reads_in_a_turn(&self) -> usize {
        if self.records.is_some() { TURN_BYTES / READ_BYTES } else { TURN_BYTES / PLAIN_READ_BYTES }
    }

    /// Whether everything was received that had come, and nothing has come since: our waker is
    /// there for it.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        // The end of TLS may have come with the last bytes, long before the FIN.
        self.wire.is_silent() && self.records.as_ref().is_none_or(|records| records.end().is_none())
    }

    /// It is polled with another waker from now on.
    pub(super) fn forget_waker(&mut self) {
        self.wire.forget_waker();
    }

    /// Receives what there is into the scratch buffer, behind what that began with.
    ///
    /// # Errors
    ///
    /// The socket's; `InvalidData` for records that cannot be opened.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
    ) -> Poll<io::Result<Received>> {
        if !self.early.is_empty() {
            let len = self.early.len().min(READ_BYTES);
            input.plain.append(&self.early[..len]);
            self.early.advance(len);
            return Poll::Ready(Ok(Received::Bytes));
        }
        if self.has_ended {
            return Poll::Ready(Ok(Received::End));
        }
        if self.records.is_some() {
            return self.poll_receive_records(cx, input);
        }
        let len = ready!(self.wire.poll_read(cx, input.plain.room(PLAIN_READ_BYTES)))?;
        input.plain.add(len);
        self.has_ended = len == 0;
        let received = if self.has_ended { Received::End } else { Received::Bytes };
        Poll::Ready(Ok(received))
    }

    fn poll_receive_records(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
    ) -> Poll<io::Result<Received>> {
        let begun = input.plain.filled().len();
        while input.plain.filled().len() == begun {
            let Some(records) = &mut self.records else { break };
            match records.end() {
                Some(Ok(())) => {
                    self.has_ended = true;
                    return Poll::Ready(Ok(Received::End));
                }
                Some(Err(error)) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, error.clone());
                    return Poll::Ready(Err(error));
                }
                None => {}
            }
            let len = ready!(self.wire.poll_read(cx, &mut input.sealed))?;
            if len == 0 {
                self.has_ended = true;
                return Poll::Ready(Ok(Received::Truncated));
            }
            records.open(&input.sealed[..len], &mut input.plain);
            // An alert of ours, an answer to a change of keys. What comes of it, the next write
            // finds out as well.
            if records.has_waiting() {
                let _ = self.poll_flush(cx);
            }
            if input.plain.filled().len() == begun {
                // A peer may go on with what comes to nothing for as long as it likes.
                ready!(coop::poll_proceed(cx)).made_progress();
            }
        }
        Poll::Ready(Ok(Received::Bytes))
    }

    /// Sends all of `bytes`: what the kernel does not take now stays behind until
    /// [`Leg::poll_flush`] has got rid of it. Nothing may be stuck when it is called.
    ///
    /// # Errors
    ///
    /// The socket's; `QuotaExceeded` where the keys of TLS are used up.
    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        cx: &mut Context<'_>,
        output: &mut Output,
    ) -> io::Result<()> {
        let mut bytes = bytes;
        if let Some(records) = &mut self.records {
            output.sealed.begin_with(&[]);
            records.seal(bytes, &mut output.sealed).map_err(unsealed)?;
            bytes = output.sealed.filled();
        }
        self.write(bytes, cx, Wire::poll_write)
    }

    /// Sends the last bytes that go this way and our end behind them, `close_notify` and FIN, all
    /// in one. What the kernel does not take now, [`Leg::poll_finish`] has to see to.
    ///
    /// # Errors
    ///
    /// Those of [`Leg::send`].
    pub(super) fn send_last(
        &mut self,
        bytes: &[u8],
        cx: &mut Context<'_>,
        output: &mut Output,
    ) -> io::Result<()> {
        let mut bytes = bytes;
        if let Some(records) = &mut self.records {
            output.sealed.begin_with(&[]);
            records.seal(bytes, &mut output.sealed).map_err(unsealed)?;
            records.seal_end();
            output.sealed.append(&records.take_waiting());
            bytes = output.sealed.filled();
        }
        self.ending = Ending::Said;
        self.write(bytes, cx, Wire::poll_write_ahead)?;
        match self.poll_finish(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Writes all of `bytes`, by `poll_write`; what the kernel does not take is stuck.
    fn write(
        &mut self,
        mut bytes: &[u8],
        cx: &mut Context<'_>,
        poll_write: impl Fn(&mut Wire, &mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match poll_write(&mut self.wire, cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    self.written += len as u64;
                    bytes = &bytes[len..];
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.stuck = bytes.to_vec().into();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends what is stuck. Ready when nothing is, which is nearly always.
    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_stuck() { self.poll_flush_stuck(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_flush_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_by(cx, Wire::poll_write)
    }

    fn poll_flush_by(
        &mut self,
        cx: &mut Context<'_>,
        poll_write: impl Fn(&mut Wire, &mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.stuck.is_empty() {
                let len = ready!(poll_write(&mut self.wire, cx, &self.stuck))?;
                if len == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += len as u64;
                self.stuck.advance(len);
            }
            self.stuck = match &mut self.records {
                Some(records) => records.take_waiting().into(),
                None => Backlog::default(),
            };
            if self.stuck.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Ends our direction behind what is stuck: `close_notify`, then FIN.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending == Ending::NotYet {
            if let Some(records) = &mut self.records {
                records.seal_end();
            }
            self.ending = Ending::Said;
        }
        if self.ending == Ending::Said {
            ready!(self.poll_flush_by(cx, Wire::poll_write_ahead))?;
            ready!(self.wire.pinned().poll_shutdown(cx))?;
            self.ending = Ending::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the leg: our direction as [`Leg::poll_finish`] does, the peer's by waiting for its
    /// end and throwing away what comes before. Ready when both are over, in whatever way.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, input: &mut Input) -> Poll<()> {
        if self.is_closed {
            return Poll::Ready(());
        }
        let finished = self.poll_finish(cx);
        if !matches!(finished, Poll::Ready(Err(_))) {
            loop {
                if self.discarded > DISCARD_BYTES {
                    ready!(finished).ok();
                    if self.wire.socket().is_delivered() {
                        break;
                    }
                    // Not read any more, so that it cannot keep us busy: its time runs out.
                    return Poll::Pending;
                }
                input.begin_with(&[]);
                match ready!(self.poll_receive(cx, input)) {
                    Ok(Received::Bytes) => self.discarded += input.received().len(),
                    Ok(Received::End | Received::Truncated) => {
                        ready!(finished).ok();
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        self.is_closed = true;
        Poll::Ready(())
    }

    /// Whether something is stuck on the way into it.
    #[inline]
    pub(super) fn is_stuck(&self) -> bool {
        !self.stuck.is_empty() || self.records.as_ref().is_some_and(|records| records.has_waiting())
    }

    /// Whether the peer has reset the connection, asked of the kernel: a leg that is not being
    /// read, because the other one is stuck, hears of nothing.
    pub(super) fn is_reset(&self) -> bool {
        let mut socket = [PollFd::new(self.wire.socket(), PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut socket, Some(&at_once))
            .is_ok_and(|_| socket[0].revents().contains(PollFlags::ERR))
    }

    /// Whether the kernel has something from the peer that was not read yet.
    pub(super) fn has_unread(&self) -> bool {
        rustix::io::ioctl_fionread(self.wire.socket()).is_ok_and(|unread| unread > 0)
    }

    /// Whether the peer's kernel has all that was sent.
    pub(super) fn is_delivered(&self) -> bool {
        !self.is_stuck() && self.wire.socket().is_delivered()
    }

    /// How many bytes the peer's kernel has acknowledged. It grows as long as the peer is there and
    /// takes what it is sent.
    pub(super) fn acknowledged(&self) -> u64 {
        self.written.saturating_sub(self.wire.socket().unsent())
    }

    /// Whether it is over, or not waited for any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Is not waited for any more, and closed by a reset: its peer is gone.
    pub(super) fn abandon(&mut self) {
        self.is_closed = true;
        self.reset();
    }

    /// Makes the coming close a reset, unless the leg has had its end in order.
    pub(super) fn reset(&self) {
        if self.ending != Ending::Done {
            self.wire.socket().reset_on_close();
        }
    }
}

fn unsealed(error: RecordError) -> io::Error {
    let kind = match error {
        RecordError::KeysUsedUp => io::ErrorKind::QuotaExceeded,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}
