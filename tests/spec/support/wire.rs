//! A connection on which the test writes and reads every byte itself.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::{eventually, within};

/// The key of RFC 6455 §1.3, for handshakes that are about something else.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A complete handshake (RFC 6455 §4.1) for `path`.
pub(crate) fn handshake(path: &str) -> String {
    handshake_with(path, "")
}

/// A complete handshake for `path` with more header lines, each ending in CR LF.
pub(crate) fn handshake_with(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// The `Sec-WebSocket-Accept` that answers `key`.
pub(crate) fn accept(key: &str) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes())
}

/// What a [`Wire`] may run over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// The TCP connection below, if that is what it is.
    fn tcp(&self) -> Option<&TcpStream>;

    /// The client's side of TLS over it, if that is what it is.
    fn tls(&mut self) -> Option<&mut rustls::ClientConnection> {
        None
    }
}

impl Stream for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Stream for UnixStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl Stream for tokio_rustls::client::TlsStream<TcpStream> {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }

    fn tls(&mut self) -> Option<&mut rustls::ClientConnection> {
        Some(self.get_mut().1)
    }
}

impl Stream for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }
}

/// How the peer left.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Ending {
    /// An orderly end: FIN, after a close_notify where there is TLS.
    Closed,
    /// RST.
    Reset,
    /// FIN under TLS without a close_notify.
    Truncated,
}

/// One connection, with what was read beyond the last thing asked for.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    ahead: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: impl Stream + 'static) -> Wire {
        if let Some(tcp) = stream.tcp() {
            tcp.set_nodelay(true).expect("a connected socket takes options");
        }
        Wire { stream: Box::new(stream), ahead: Vec::new() }
    }

    /// Writes all of `bytes`.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the peer reads");
    }

    /// Writes all of `bytes` unless the peer stops that.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("the peer to take what is written", async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Writes until nothing was taken for half a second, and returns how much was.
    pub(crate) async fn send_until_stuck(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            let piece = &bytes[written..bytes.len().min(written + (1 << 16))];
            let write = self.stream.write(piece);
            match tokio::time::timeout(Duration::from_millis(500), write).await {
                Ok(took) => written += took.expect("the proxy holds on"),
                Err(_) => break,
            }
        }
        written
    }

    /// Ends our direction: FIN, after a close_notify where there is TLS.
    pub(crate) async fn finish(&mut self) {
        within("the end of our direction", self.stream.shutdown())
            .await
            .expect("the socket is still ours to shut");
    }

    /// Returns once the peer's kernel has all that was sent, our FIN included: the state FIN_WAIT2 in proc(5).
    pub(crate) async fn delivered(&self) {
        let tcp = self.stream.tcp().expect("only TCP tells");
        let [ours, theirs] = [tcp.local_addr(), tcp.peer_addr()]
            .map(|address| address.expect("a connected socket").port());
        let line = format!(" 0100007F:{ours:04X} 0100007F:{theirs:04X} 05 ");
        let table = || std::fs::read_to_string("/proc/net/tcp").expect("Linux has /proc");
        eventually("the peer to have it", || table().contains(&line)).await;
    }

    /// Cuts the connection with RST.
    pub(crate) fn reset(self) {
        let tcp = self.stream.tcp().expect("only TCP has a reset");
        socket2::SockRef::from(tcp)
            .set_linger(Some(Duration::ZERO))
            .expect("a connected socket takes options");
    }

    /// `bytes` as the next TLS records, for [`Wire::send_sealed`].
    pub(crate) fn seal(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let tls = self.stream.tls().expect("only TLS seals");
        tls.writer().write_all(bytes.as_ref()).expect("there is no limit on so little");
        let mut sealed = Vec::new();
        tls.write_tls(&mut sealed).expect("a vector takes everything");
        sealed
    }

    /// The end of our direction of TLS, for [`Wire::send_sealed`]: close_notify.
    pub(crate) fn seal_end(&mut self) -> Vec<u8> {
        let tls = self.stream.tls().expect("only TLS has an end of its own");
        tls.send_close_notify();
        let mut sealed = Vec::new();
        tls.write_tls(&mut sealed).expect("a vector takes everything");
        sealed
    }

    /// Changes our keys of TLS 1.3, and wants the peer's changed: before what is sent or sealed next.
    pub(crate) fn change_keys(&mut self) {
        let tls = self.stream.tls().expect("only TLS has keys");
        tls.refresh_traffic_keys().expect("TLS 1.3");
    }

    /// The fatal alert with which our side of TLS answers `received`.
    pub(crate) fn alert(&mut self, mut received: &[u8]) -> Vec<u8> {
        let tls = self.stream.tls().expect("only TLS has alerts");
        tls.read_tls(&mut received).expect("a slice can be read");
        tls.process_new_packets().expect_err("this is to be refused");
        let mut sealed = Vec::new();
        tls.write_tls(&mut sealed).expect("a vector takes everything");
        sealed
    }

    /// Writes below TLS, in one piece.
    pub(crate) async fn send_sealed(&mut self, bytes: &[u8]) {
        let tcp = self.stream.tcp().expect("TLS runs over TCP here");
        within("room for a few bytes", tcp.writable()).await.expect("the socket is ours");
        assert_eq!(tcp.try_write(bytes).expect("the peer reads"), bytes.len());
    }

    /// Cuts the connection with FIN and no close_notify, which is a truncation under TLS.
    pub(crate) fn cut(self) {
        let tcp = self.stream.tcp().expect("only TCP is cut");
        socket2::SockRef::from(tcp)
            .shutdown(std::net::Shutdown::Write)
            .expect("a connected socket");
    }

    /// Whatever arrives next, at most a chunk; empty at the end.
    pub(crate) async fn some(&mut self) -> Vec<u8> {
        if !self.ahead.is_empty() {
            return std::mem::take(&mut self.ahead);
        }
        let mut chunk = vec![0; 64 * 1024];
        let read =
            within("more bytes", self.stream.read(&mut chunk)).await.expect("a peer that goes on");
        chunk.truncate(read);
        chunk
    }

    /// The next `length` bytes.
    pub(crate) async fn take(&mut self, length: usize) -> Vec<u8> {
        let mut taken = self.take_ahead(length);
        let start = taken.len();
        taken.resize(length, 0);
        let rest = self.stream.read_exact(&mut taken[start..]);
        if let Err(error) = within("the bytes that were promised", rest).await {
            panic!(
                "the peer sent less than {length} bytes ({error}), perhaps {:?}",
                String::from_utf8_lossy(&taken)
            );
        }
        taken
    }

    /// The next `length` bytes, or as many as come before the peer leaves.
    pub(crate) async fn take_or_end(&mut self, length: usize) -> Vec<u8> {
        let mut taken = self.take_ahead(length);
        let missing = (length - taken.len()) as u64;
        let mut rest = (&mut self.stream).take(missing);
        // A reset is an end, too.
        let _ = within("the bytes that were promised", rest.read_to_end(&mut taken)).await;
        taken
    }

    /// Checks that exactly `wanted` comes next.
    pub(crate) async fn expect(&mut self, wanted: impl AsRef<[u8]>) {
        let wanted = wanted.as_ref();
        let got = self.take(wanted.len()).await;
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(wanted));
    }

    /// Everything up to and including `end`.
    pub(crate) async fn until(&mut self, end: &str) -> Vec<u8> {
        let mut seen = std::mem::take(&mut self.ahead);
        loop {
            if let Some(at) = seen.windows(end.len()).position(|window| window == end.as_bytes()) {
                self.ahead = seen.split_off(at + end.len());
                return seen;
            }
            let more = self.some().await;
            assert!(
                !more.is_empty(),
                "the peer left after {:?}, before {end:?}",
                String::from_utf8_lossy(&seen)
            );
            seen.extend_from_slice(&more);
        }
    }

    /// Everything until the peer leaves, and how it left.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, Ending) {
        let mut rest = std::mem::take(&mut self.ahead);
        let ending = match within("the end", self.stream.read_to_end(&mut rest)).await {
            Ok(_) => Ending::Closed,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ending::Truncated,
            Err(_) => Ending::Reset,
        };
        (rest, ending)
    }

    /// Checks that the peer leaves in order without another byte.
    pub(crate) async fn expect_end(&mut self) {
        let (rest, ending) = self.rest().await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
        assert_eq!(ending, Ending::Closed);
    }

    /// The head of the next request or response.
    pub(crate) async fn head(&mut self) -> Head {
        Head::parse(&self.until("\r\n\r\n").await)
    }

    /// The next response with its body, however that is framed (RFC 9112 §6.3).
    pub(crate) async fn response(&mut self) -> Response {
        let head = self.head().await;
        let body = self.body(&head).await;
        Response { head, body }
    }

    /// The next request with its body.
    pub(crate) async fn request(&mut self) -> Response {
        let head = self.head().await;
        let framed =
            head.field("content-length").is_some() || head.field("transfer-encoding").is_some();
        let body = if framed { self.body(&head).await } else { String::new() };
        Response { head, body }
    }

    async fn body(&mut self, head: &Head) -> String {
        let bytes = if head.is("transfer-encoding", "chunked") {
            self.chunks().await
        } else if let Some(length) = head.field("content-length") {
            self.take(length.parse().expect("Content-Length is a number")).await
        } else if matches!(head.status(), Some(100..=199 | 204 | 304)) {
            Vec::new()
        } else {
            self.rest().await.0
        };
        String::from_utf8(bytes).expect("text bodies here")
    }

    /// A chunked body (RFC 9112 §7.1) without its trailers, which are left to be read up to the empty line.
    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend(chunk);
        }
        self.trailers().await;
        body
    }

    /// The next chunk of a chunked body, or `None` for the last, whose trailers come next.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = String::from_utf8(self.until("\r\n").await).expect("a chunk size is ASCII");
        let size = size.trim_end().split(';').next().unwrap_or_default().to_owned();
        let size = usize::from_str_radix(&size, 16)
            .unwrap_or_else(|_| panic!("{size:?} is no chunk size"));
        if size == 0 {
            return None;
        }
        let chunk = self.take(size).await;
        self.expect("\r\n").await;
        Some(chunk)
    }

    /// The trailer lines after the last chunk.
    pub(crate) async fn trailers(&mut self) -> Vec<String> {
        let mut trailers = Vec::new();
        loop {
            let line = String::from_utf8(self.until("\r\n").await).expect("trailers are text");
            if line == "\r\n" {
                return trailers;
            }
            trailers.push(line.trim_end().to_owned());
        }
    }

    /// Reads a handshake, answers it with 101 and `more` header lines, and returns what was asked.
    pub(crate) async fn accept_with(&mut self, more: &str) -> Head {
        let asked = self.head().await;
        let accept = accept(asked.field("sec-websocket-key").expect("a handshake has a key"));
        self.send(switching(&accept, more)).await;
        asked
    }

    /// Reads a handshake, answers it with 101, and returns what was asked.
    pub(crate) async fn accept(&mut self) -> Head {
        self.accept_with("").await
    }

    /// Sends a request with an empty body and reads the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        self.response().await
    }

    /// The status of the answer to `request`, or `None` if the peer leaves without one.
    pub(crate) async fn ask(&mut self, request: &str) -> Option<u16> {
        let _ = self.try_send(request).await;
        let mut answer = std::mem::take(&mut self.ahead);
        while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
            match within("an answer or the end", self.stream.read_buf(&mut answer)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
        Head::parse(&answer).status()
    }

    fn take_ahead(&mut self, at_most: usize) -> Vec<u8> {
        let keep = self.ahead.split_off(at_most.min(self.ahead.len()));
        std::mem::replace(&mut self.ahead, keep)
    }
}

/// A 101 with `accept` and more header lines.
pub(crate) fn switching(accept: &str, more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let bytes = self.take_ahead(buf.remaining());
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

/// The first line and the header lines of a request or response, as they came.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// All of it, for tests of spelling and order.
    pub(crate) text: String,
}

impl Head {
    fn parse(bytes: &[u8]) -> Head {
        Head { text: String::from_utf8(bytes.to_vec()).expect("heads are text here") }
    }

    /// The request or status line.
    pub(crate) fn first(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The status, if this is a response.
    pub(crate) fn status(&self) -> Option<u16> {
        self.first().strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    /// Every value of the field `name`, in the order of the lines.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The value of the field `name`, which must not be there twice.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let values = self.fields(name);
        assert!(values.len() < 2, "{name} is there {} times in {}", values.len(), self.text);
        values.first().copied()
    }

    /// Whether the field `name` has exactly this value, but for case.
    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.field(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }
}

/// A message with its text body.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().expect("a response has a status")
    }

    /// Checks that tidegate itself refused, with `status` and a short text that mentions `reason`.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, reason: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        let kind = self.head.field("content-type").expect("a refusal says what it is");
        assert!(kind.starts_with("text/plain"), "{kind}");
        let body = self.body.to_lowercase();
        assert!(
            body.contains(&reason.to_lowercase()) && body.len() < 300,
            "{:?} should mention {reason:?}",
            self.body
        );
    }
}
