//! What it takes to take a TLS connection out of rustls's hands after HTTP is done with it: the
//! secrets that its handshake came to, the part of a record that rustls has read and cannot give
//! back, and the tickets that it has written and that wait for the first answer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use rustls::{CommonState, Connection, KeyLog};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::records::{Records, Secret, Secrets, TakenOver};

thread_local! {
    /// What the handshake that is being polled comes to.
    static NOTED: RefCell<Secrets> = RefCell::new(Secrets::default());
}

/// Notes the traffic secrets of the handshake that is being polled: rustls gives a connection's
/// keys away, but not the secrets that the next ones follow from (RFC 8446 §7.2), other than to its
/// key log.
#[derive(Debug)]
pub(super) struct Notary;

const CLIENT_SECRET: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_SECRET: &str = "SERVER_TRAFFIC_SECRET_0";

impl KeyLog for Notary {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        NOTED.with_borrow_mut(|noted| match label {
            CLIENT_SECRET => noted.client = Secret::new(secret),
            SERVER_SECRET => noted.server = Secret::new(secret),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT_SECRET | SERVER_SECRET)
    }
}

/// Makes a handshake, and keeps the secrets that it comes to.
pub(super) async fn noting<H: Future>(handshake: H) -> (H::Output, Secrets) {
    let mut handshake = pin!(handshake);
    let mut secrets = Secrets::default();
    let made = poll_fn(|cx| {
        // Others may be polled on this thread between two polls of this one.
        NOTED.replace(std::mem::take(&mut secrets));
        let polled = handshake.as_mut().poll(cx);
        secrets = NOTED.take();
        polled
    })
    .await;
    (made, secrets)
}

/// A TLS connection over `S` that can be taken over.
#[derive(Debug)]
pub struct Secured<S> {
    tls: TlsStream<Framed<S>>,
    secrets: Secrets,
}

impl<S> Secured<S> {
    pub(super) fn new(tls: impl Into<TlsStream<Framed<S>>>, secrets: Secrets) -> Self {
        Self { tls: tls.into(), secrets }
    }

    /// What is below.
    pub fn socket(&self) -> &S {
        &self.tls.get_ref().0.socket
    }

    /// What was agreed on.
    pub fn state(&self) -> &CommonState {
        self.tls.get_ref().1
    }

    /// The name that a client asked for, where this is a server's side.
    pub fn server_name(&self) -> Option<&str> {
        match &self.tls {
            TlsStream::Server(tls) => tls.get_ref().1.server_name(),
            TlsStream::Client(_) => None,
        }
    }

    /// What is below, without a word of farewell.
    pub fn into_socket(self) -> S {
        match self.tls {
            TlsStream::Client(tls) => tls.into_inner().0.socket,
            TlsStream::Server(tls) => tls.into_inner().0.socket,
        }
    }

    /// Takes the connection apart.
    pub fn take_over(self) -> (S, TakenOver) {
        let Self { tls, secrets } = self;
        let (framed, connection) = match tls {
            TlsStream::Client(tls) => {
                let (framed, connection) = tls.into_inner();
                (framed, Connection::from(connection))
            }
            TlsStream::Server(tls) => {
                let (framed, connection) = tls.into_inner();
                (framed, Connection::from(connection))
            }
        };
        let Framed { socket, tail, mut held, .. } = framed;
        let mut taken = Records::take_over(connection, secrets, tail.partial);
        if !held.is_empty() {
            held.append(&mut taken.sealed);
            taken.sealed = held;
        }
        (socket, taken)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.tls).poll_read(cx, buf);
        if buf.filled().len() > before
            && let TlsStream::Server(tls) = &mut this.tls
        {
            tls.get_mut().0.asked();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tls).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tls).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_shutdown(cx)
    }
}

/// A socket that remembers the part of a record that was read from it last, and that holds a
/// server's tickets back until there is an answer to send along with them.
///
/// rustls writes a ticket as soon as it has the client's Finished, and what is sent alone costs as
/// much as what is sent with it. Which of its words are tickets, only rustls knows; but all that
/// comes before them, the client has to read before it goes on. So what a handshake writes is held
/// until it reads again, and what is left when it is done was written behind the client's last
/// word.
#[derive(Debug)]
pub struct Framed<S> {
    socket: S,
    tail: Tail,
    /// What was read from the socket and is still to be read from here.
    early: Vec<u8>,
    /// What was written here and not yet to the socket.
    held: Vec<u8>,
    holding: Holding,
}

/// How long what is written is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// Not at all.
    Nothing,
    /// Until the handshake reads.
    Handshake,
    /// Until something is written behind it, or flushed before anything was asked.
    Tickets,
    /// Until something is written behind it, which is about to happen.
    TicketsWithAnswer,
}

impl<S> Framed<S> {
    /// Nothing is held, and nothing was read yet.
    pub(super) fn new(socket: S) -> Self {
        let holding = Holding::Nothing;
        Self { socket, tail: Tail::default(), early: Vec::new(), held: Vec::new(), holding }
    }

    /// For a server's handshake. `early` was read from the socket already.
    pub(super) fn accepted(socket: S, early: Vec<u8>) -> Self {
        Self { early, holding: Holding::Handshake, ..Self::new(socket) }
    }

    /// The handshake is done: what it wrote last can wait for the first answer.
    pub(super) fn hold_until_answered(&mut self) {
        self.holding = Holding::Tickets;
    }

    /// Something was asked, so that there will be an answer.
    fn asked(&mut self) {
        if self.holding == Holding::Tickets {
            self.holding = Holding::TicketsWithAnswer;
        }
    }
}

impl<S: AsyncWrite + Unpin> Framed<S> {
    /// Delivers what is held, and holds nothing from now on.
    pub(super) async fn deliver(&mut self) -> io::Result<()> {
        self.holding = Holding::Nothing;
        poll_fn(|cx| self.poll_deliver(cx)).await
    }

    /// What is below, for which the last words of a handshake that failed are meant.
    pub(super) async fn into_delivered(mut self) -> S {
        // Whatever comes of it, the handshake has failed.
        let _ = self.deliver().await;
        self.socket
    }

    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.no_longer_held(written);
        }
        Poll::Ready(Ok(()))
    }

    fn no_longer_held(&mut self, len: usize) {
        if len == self.held.len() {
            // Nothing comes behind a ticket; a handshake has hardly more than two turns.
            self.held = Vec::new();
        } else {
            self.held.drain(..len);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.holding == Holding::Handshake {
            ready!(this.poll_deliver(cx))?;
        }
        let before = buf.filled().len();
        if this.early.is_empty() {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        } else {
            let len = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..len]);
            this.early.drain(..len);
            if this.early.is_empty() {
                this.early = Vec::new();
            }
        }
        this.tail.read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.holding == Holding::Handshake {
            let before = this.held.len();
            slices.iter().for_each(|slice| this.held.extend_from_slice(slice));
            return Poll::Ready(Ok(this.held.len() - before));
        }
        if let Some(first) = slices.iter().find(|slice| !slice.is_empty()) {
            // What is written in pieces, rustls goes on with.
            while !this.held.is_empty() {
                let both = [IoSlice::new(&this.held), IoSlice::new(first)];
                let written = ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, &both))?;
                if written == 0 {
                    return Poll::Ready(Ok(0));
                }
                let of_held = written.min(this.held.len());
                this.no_longer_held(of_held);
                if written > of_held {
                    return Poll::Ready(Ok(written - of_held));
                }
            }
        }
        Pin::new(&mut this.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Whoever flushes with nothing written behind a ticket does not mean that.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.holding {
            Holding::Handshake | Holding::TicketsWithAnswer => {}
            Holding::Nothing | Holding::Tickets => ready!(this.poll_deliver(cx))?,
        }
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_deliver(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// What was read of a record whose rest has not come yet. Holds no memory while that is nothing.
#[derive(Debug, Default)]
pub struct Tail {
    partial: Vec<u8>,
}

/// Content type, protocol version, length (RFC 8446 §5.1).
const HEADER_BYTES: usize = 5;

impl Tail {
    /// What was read behind the last whole record.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// So much more was read.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !self.partial.is_empty() {
            let lacking = whole_len(&self.partial).unwrap_or(HEADER_BYTES) - self.partial.len();
            if lacking == 0 {
                self.partial = Vec::new();
                break;
            }
            let Some((rest, further)) = bytes.split_at_checked(lacking) else {
                self.partial.extend_from_slice(bytes);
                return;
            };
            self.partial.extend_from_slice(rest);
            bytes = further;
        }
        while let Some(whole) = whole_len(bytes)
            && let Some((_, further)) = bytes.split_at_checked(whole)
        {
            bytes = further;
        }
        if !bytes.is_empty() {
            self.partial.reserve_exact(whole_len(bytes).unwrap_or(HEADER_BYTES));
            self.partial.extend_from_slice(bytes);
        }
    }
}

/// How long the record is that begins so, as far as that can be told.
fn whole_len(record: &[u8]) -> Option<usize> {
    let header = record.first_chunk::<HEADER_BYTES>()?;
    Some(HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]])))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::yield_now;

    use super::*;

    /// They take turns, one is given up half-way, and one is of TLS 1.2 and comes to no secrets.
    #[tokio::test]
    async fn handshakes_on_one_thread_keep_their_secrets_apart() {
        let handshake = |byte| {
            noting(async move {
                Notary.log(CLIENT_SECRET, &[], &[byte; 32]);
                yield_now().await;
                Notary.log(SERVER_SECRET, &[], &[byte + 1; 32]);
                yield_now().await;
            })
        };
        let mut given_up = Box::pin(handshake(5));
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        let others = async { tokio::join!(handshake(1), noting(yield_now()), handshake(3)) };
        let (((), one), ((), none), ((), three)) = others.await;
        for (secrets, byte) in [(one, 1), (three, 3)] {
            assert!(secrets.client.is_some());
            assert_eq!(secrets.client, Secret::new(&[byte; 32]));
            assert_eq!(secrets.server, Secret::new(&[byte + 1; 32]));
        }
        assert_eq!((none.client, none.server), (None, None));
        NOTED.with_borrow(|left| assert!(left.client.is_none() && left.server.is_none()));
    }

    /// A server speaks before it hears, when it has ended, and when its handshake has failed.
    #[tokio::test]
    async fn what_a_handshake_writes_is_held_no_longer_than_until_it_reads() {
        async fn said(peer: &mut DuplexStream) -> Vec<u8> {
            let mut said = vec![0; 16];
            let len = peer.read(&mut said).now_or_never().map_or(0, |read| read.expect("open"));
            said.truncate(len);
            said
        }
        let (socket, mut peer) = duplex(64);
        let mut framed = Framed::accepted(socket, Vec::new());
        framed.write_all(b"hello").await.expect("held");
        framed.flush().await.expect("held");
        assert_eq!(said(&mut peer).await, b"");
        assert!(futures_util::poll!(pin!(framed.read(&mut [0]))).is_pending());
        assert_eq!(said(&mut peer).await, b"hello");
        framed.write_all(b"bye").await.expect("held");
        framed.shutdown().await.expect("room");
        assert_eq!(said(&mut peer).await, b"bye");

        let (socket, mut peer) = duplex(64);
        let mut framed = Framed::accepted(socket, Vec::new());
        framed.write_all(b"alert").await.expect("held");
        let _socket = framed.into_delivered().await;
        assert_eq!(said(&mut peer).await, b"alert");
    }

    /// However little of it is asked for at once.
    #[tokio::test]
    async fn what_was_read_before_comes_first_and_counts_as_read() {
        let (socket, mut peer) = duplex(64);
        let mut framed = Framed::accepted(socket, b"\x16\x03\x03\0\x02ab\x17\x03".to_vec());
        peer.write_all(b"\x03\0\x01c\x15\x03").await.expect("room");
        drop(peer);
        let mut read = Vec::new();
        while read.len() < 15 {
            read.push(framed.read_u8().await.expect("a byte"));
        }
        assert_eq!(read, b"\x16\x03\x03\0\x02ab\x17\x03\x03\0\x01c\x15\x03");
        assert_eq!(framed.tail.partial(), b"\x15\x03");
    }

    proptest! {
        /// However the bytes come, what is remembered is what lies behind the last whole record.
        #[test]
        fn what_is_behind_the_last_whole_record_is_remembered(
            lengths in prop::collection::vec(0..600_usize, 0..6),
            behind in 0..700_usize,
            cuts in prop::collection::vec(0..4000_usize, 0..8),
        ) {
            let mut bytes = Vec::new();
            for len in lengths {
                bytes.extend([23, 3, 3]);
                bytes.extend(u16::try_from(len).expect("a short record").to_be_bytes());
                bytes.extend(std::iter::repeat_n(7, len));
            }
            let whole = bytes.len();
            let mut last = vec![23, 3, 3, 2, 184]; // 696 bytes are to follow
            last.resize(700, 9);
            bytes.extend(&last[..behind]);

            let mut tail = Tail::default();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                tail.read(&bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(&tail.partial[..], &bytes[whole..]);
        }
    }
}
