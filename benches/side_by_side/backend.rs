//! The backend behind every proxy: WebSocket echo, source and sink, and a page for plain HTTP, on
//! hand-written HTTP/1.1. It shares the load's thread, so that core 1 switches between them
//! without a scheduler and keeps the proxy on core 0 as busy as it can.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::frame;
use crate::payload::Bulk;

/// What is read from a socket at once.
pub(crate) const GULP: usize = 64 * 1024;

/// Body of the page: small, as an API's answer is, so that the request is what is paid for.
pub(crate) const PAGE: &[u8] = &[b'.'; 200];

/// What every connection to the backend shares.
#[derive(Debug, Default)]
pub(crate) struct Backend {
    /// Payload bytes that arrived at `/sink` and were what the client sent.
    pub(crate) sunk_bytes: AtomicU64,
}

impl Backend {
    /// Listens on a port of its own: one for each proxy, as the closed connections of one
    /// (TIME_WAIT) must not take the local ports of another.
    pub(crate) async fn listen(self: &Arc<Self>) -> io::Result<SocketAddr> {
        let listener = tokio::net::TcpSocket::new_v4()?;
        listener.set_reuseaddr(true)?;
        listener.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = listener.listen(4096)?;
        let address = listener.local_addr()?;
        tokio::spawn(accept(listener, Arc::clone(self)));
        Ok(address)
    }

    /// Serves one connection until it ends. That a proxy hangs up is no error: the load knows
    /// whether it got what it asked for.
    async fn serve(&self, mut tcp: TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let mut received = BytesMut::new();
        loop {
            let Some(head) = head(&mut tcp, &mut received).await? else { return Ok(()) };
            match websocket_key(&head) {
                None => tcp.write_all(&page()).await?,
                Some(key) => {
                    let answer = switching_protocols(key);
                    tcp.write_all(answer.as_bytes()).await?;
                    let mut path = head.split(' ').nth(1).unwrap_or_default().split('/').skip(1);
                    let purpose = path.next();
                    let payload_bytes = path.next().and_then(|bytes| bytes.parse().ok());
                    return match (purpose, payload_bytes) {
                        (Some("source"), Some(bytes)) => {
                            source(tcp, Bulk::from_server(bytes)).await
                        }
                        (Some("sink"), Some(bytes)) => {
                            self.sink(tcp, received, Bulk::from_client(bytes)).await
                        }
                        _ => echo(tcp, received).await,
                    };
                }
            }
        }
    }

    /// Takes bulk messages, and counts those that arrived as they were sent.
    async fn sink(
        &self,
        mut tcp: TcpStream,
        mut received: BytesMut,
        mut bulk: Bulk,
    ) -> io::Result<()> {
        loop {
            self.sunk_bytes.fetch_add(bulk.check(&received)?, Ordering::Relaxed);
            received.clear();
            if bulk.is_closed() || !fill(&mut tcp, &mut received).await? {
                return Ok(());
            }
        }
    }
}

/// Sends bulk messages until nobody takes them.
async fn source(mut tcp: TcpStream, bulk: Bulk) -> io::Result<()> {
    loop {
        tcp.write_all(bulk.batch()).await?;
    }
}

async fn accept(listener: TcpListener, backend: Arc<Backend>) {
    // Descriptors were counted beforehand, so an error here means that the run is over.
    while let Ok((tcp, _)) = listener.accept().await {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            let served = backend.serve(tcp).await;
            // Our own verdict on the bytes, as against what the system says of a socket. The load
            // sees its connection end, but not why.
            if let Some(fault) = served.err().filter(|fault| fault.kind() == io::ErrorKind::Other) {
                eprintln!("the backend hangs up: {fault}");
            }
        });
    }
}

/// Sends every message back and answers Close with Close.
async fn echo(mut tcp: TcpStream, mut received: BytesMut) -> io::Result<()> {
    let mut answer = Vec::new();
    loop {
        while let Some(header) = frame::parse(&received)? {
            if received.len() < header.frame_bytes() {
                break;
            }
            let mask = header.mask.ok_or_else(|| io::Error::other("a client's mask is gone"))?;
            let payload = &mut received[header.header_bytes..header.frame_bytes()];
            frame::apply_mask(payload, mask);
            answer.clear();
            frame::append_from_server(&mut answer, header.opcode, payload);
            tcp.write_all(&answer).await?;
            received.advance(header.frame_bytes());
            if header.opcode == frame::CLOSE {
                return tcp.shutdown().await;
            }
        }
        if received.is_empty() && answer.capacity() > 4096 {
            answer = Vec::new(); // thousands of idle sessions must not hold their last message
        }
        if !fill(&mut tcp, &mut received).await? {
            return Ok(());
        }
    }
}

/// Takes one request's head, without its blank line, or `None` at the end of the connection.
async fn head(tcp: &mut TcpStream, received: &mut BytesMut) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).into_owned();
            received.advance(end + 4);
            return Ok(Some(head));
        }
        if !fill(tcp, received).await? {
            return Ok(None);
        }
    }
}

async fn fill(tcp: &mut TcpStream, received: &mut BytesMut) -> io::Result<bool> {
    received.reserve(GULP);
    Ok(tcp.read_buf(received).await? > 0)
}

fn websocket_key(head: &str) -> Option<&str> {
    head.split("\r\n").filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value.trim())
    })
}

fn page() -> Vec<u8> {
    let length = PAGE.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), PAGE].concat()
}

fn switching_protocols(key: &str) -> String {
    let accept = accept_for(key);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// The answer to a key, as RFC 6455 §4.2.2 has it.
pub(crate) fn accept_for(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}
