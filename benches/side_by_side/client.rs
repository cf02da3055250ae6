//! One connection of the load: TCP, TLS where wanted, and WebSocket or HTTP/1.1 on it. Lean, but
//! no leaner than it takes to keep a proxy busy: the figures are the proxy's CPU time, not ours.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::{GULP, PAGE, accept_for};
use crate::frame;
use crate::payload::Bulk;

/// The name in the certificate, in SNI and in `Host`.
pub(crate) const HOST: &str = "bench.test";

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// How clients speak TLS: 1.3 with AES-128-GCM and X25519 and nothing else, so that every proxy
/// does the same cryptography, and without resumption, so that every handshake is a full one
/// unless [`Door::remembering`] says otherwise.
pub(crate) fn tls_settings(
    certificate: CertificateDer<'static>,
) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    use rustls::crypto::aws_lc_rs;
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let mut settings = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    settings.resumption = rustls::client::Resumption::disabled();
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(settings))
}

/// Where a scenario's connections go.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    /// At least one; the clients are dealt out evenly.
    pub(crate) addresses: Vec<SocketAddr>,
    /// `None` for plain TCP.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Doors {
    /// The one that this client takes.
    pub(crate) fn of(&self, client: usize) -> Door {
        let address = self.addresses[client % self.addresses.len()];
        Door { address, tls: self.tls.clone() }
    }
}

/// Where one client's connections go.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Door {
    /// The same door for a client that resumes the session of its connection before. Each has
    /// tickets of its own: with a store for all of them, who finds one would be chance.
    pub(crate) fn remembering(&self) -> Self {
        let tls = self.tls.as_ref().map(|settings| {
            let mut settings = (**settings).clone();
            settings.resumption = rustls::client::Resumption::in_memory_sessions(1);
            Arc::new(settings)
        });
        Self { address: self.address, tls }
    }

    /// Connects, and does the TLS handshake if there is one. It must be of this `kind`.
    async fn connect_with(&self, kind: HandshakeKind) -> io::Result<Link> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let mut link = Link { tcp, tls: None, received: BytesMut::new() };
        if let Some(settings) = &self.tls {
            let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
            let mut engine =
                ClientConnection::new(Arc::clone(settings), name).map_err(io::Error::other)?;
            engine.set_buffer_limit(None); // one write takes one message, however large
            link.tls = Some(Box::new(Tls { engine, ciphertext: BytesMut::new(), out: Vec::new() }));
            link.shake_hands(kind).await?;
        }
        Ok(link)
    }

    /// Connects, with a full handshake if there is TLS.
    pub(crate) async fn connect(&self) -> io::Result<Link> {
        self.connect_with(HandshakeKind::Full).await
    }

    /// Connects with a full handshake, and opens a WebSocket at `path`.
    pub(crate) async fn websocket(&self, path: &str) -> io::Result<Link> {
        self.websocket_with(HandshakeKind::Full, path).await
    }

    /// The same with a handshake that resumes an earlier session.
    pub(crate) async fn websocket_resumed(&self, path: &str) -> io::Result<Link> {
        self.websocket_with(HandshakeKind::Resumed, path).await
    }

    async fn websocket_with(&self, kind: HandshakeKind, path: &str) -> io::Result<Link> {
        let mut link = self.connect_with(kind).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        link.send(request.as_bytes()).await?;
        let head = link.head().await?;
        if !head.starts_with("HTTP/1.1 101 ") || !head.contains(&accept_for(KEY)) {
            return Err(io::Error::other(format!("no WebSocket at {path}: {head}")));
        }
        Ok(link)
    }
}

/// An open connection to a proxy.
pub(crate) struct Link {
    tcp: TcpStream,
    tls: Option<Box<Tls>>,
    /// Plaintext that has arrived and was not looked at yet.
    received: BytesMut,
}

struct Tls {
    engine: ClientConnection,
    ciphertext: BytesMut,
    out: Vec<u8>,
}

impl Link {
    /// Sends all of `bytes`.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.tcp.write_all(bytes).await,
            Some(tls) => {
                tls.engine.writer().write_all(bytes)?;
                tls.flush(&mut self.tcp).await
            }
        }
    }

    /// Sends a batch of messages with one write, each in TLS records of its own.
    pub(crate) async fn send_bulk(&mut self, bulk: &Bulk) -> io::Result<()> {
        match &mut self.tls {
            None => self.tcp.write_all(bulk.batch()).await,
            Some(tls) => {
                for message in bulk.messages() {
                    tls.engine.writer().write_all(message)?;
                }
                tls.flush(&mut self.tcp).await
            }
        }
    }

    /// Takes what has come of a bulk stream, or what comes next, and returns what
    /// [`Bulk::check`] says of it.
    pub(crate) async fn receive_bulk(&mut self, bulk: &mut Bulk) -> io::Result<u64> {
        if self.received.is_empty() {
            self.fill().await?;
        }
        let ended = bulk.check(&self.received)?;
        self.received.clear();
        match bulk.is_closed() {
            true => Err(io::Error::other("the proxy closed the WebSocket")),
            false => Ok(ended),
        }
    }

    /// Takes the next message, which must be `expected`, byte for byte.
    pub(crate) async fn expect(&mut self, opcode: u8, expected: &[u8]) -> io::Result<()> {
        let header = loop {
            match frame::parse(&self.received)? {
                Some(header) if self.received.len() >= header.frame_bytes() => break header,
                _ => self.fill().await?,
            }
        };
        let payload = &self.received[header.header_bytes..header.frame_bytes()];
        if header.opcode != opcode || header.mask.is_some() || payload != expected {
            return Err(io::Error::other(format!("another message than was sent: {header:?}")));
        }
        self.received.advance(header.frame_bytes());
        Ok(())
    }

    /// Fetches the backend's page once.
    pub(crate) async fn get(&mut self) -> io::Result<()> {
        self.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await?;
        let head = self.head().await?;
        let length = format!("content-length: {}", PAGE.len());
        if !head.starts_with("HTTP/1.1 200 ") || !head.to_ascii_lowercase().contains(&length) {
            return Err(io::Error::other(format!("not the backend's page: {head}")));
        }
        while self.received.len() < PAGE.len() {
            self.fill().await?;
        }
        if !self.received.starts_with(PAGE) {
            return Err(io::Error::other("the page arrived changed"));
        }
        self.received.advance(PAGE.len());
        Ok(())
    }

    /// Says Close, hears it, and leaves as a browser does.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        let code = 1000u16.to_be_bytes();
        self.send(&frame::from_client(frame::CLOSE, &code)).await?;
        self.expect(frame::CLOSE, &code).await?;
        if let Some(tls) = &mut self.tls {
            tls.engine.send_close_notify();
            // The proxy may have hung up already: then there is nobody left to tell.
            let _ = tls.flush(&mut self.tcp).await;
        }
        Ok(())
    }

    /// Gives back the buffers of a session that will be idle, so that thousands fit in memory.
    pub(crate) fn rest(&mut self) {
        self.received = BytesMut::new();
        if let Some(tls) = &mut self.tls {
            tls.ciphertext = BytesMut::new();
            tls.out = Vec::new();
        }
    }

    async fn shake_hands(&mut self, kind: HandshakeKind) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        loop {
            tls.flush(&mut self.tcp).await?;
            if !tls.engine.is_handshaking() {
                break;
            }
            tls.read(&mut self.tcp, &mut self.received).await?;
        }
        let suite = tls.engine.negotiated_cipher_suite().map(|suite| suite.suite());
        if suite != Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256) {
            return Err(io::Error::other(format!("the proxy chose {suite:?}")));
        }
        let done = tls.engine.handshake_kind().ok_or(io::ErrorKind::UnexpectedEof)?;
        if done != kind {
            return Err(io::Error::other(format!("the handshake was {done:?}, not {kind:?}")));
        }
        Ok(())
    }

    /// Takes a response's head.
    async fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.advance(end + 4);
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    /// Waits until there is more in `received`.
    async fn fill(&mut self) -> io::Result<()> {
        let before = self.received.len();
        match &mut self.tls {
            None => {
                self.received.reserve(GULP);
                if self.tcp.read_buf(&mut self.received).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            // A read may bring half a record, or a session ticket, which is nothing to us.
            Some(tls) => {
                while self.received.len() == before {
                    tls.read(&mut self.tcp, &mut self.received).await?;
                }
            }
        }
        Ok(())
    }
}

impl Tls {
    async fn flush(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        self.out.clear();
        while self.engine.wants_write() {
            self.engine.write_tls(&mut self.out)?;
        }
        tcp.write_all(&self.out).await
    }

    /// Reads the socket once, in one large gulp, and appends what it decrypts to.
    async fn read(&mut self, tcp: &mut TcpStream, plaintext: &mut BytesMut) -> io::Result<()> {
        self.ciphertext.reserve(GULP);
        if tcp.read_buf(&mut self.ciphertext).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !self.ciphertext.is_empty() {
            let taken = self.engine.read_tls(&mut &self.ciphertext[..])?;
            self.ciphertext.advance(taken);
            let news = self.engine.process_new_packets().map_err(io::Error::other)?;
            let mut waiting = news.plaintext_bytes_to_read();
            let mut reader = self.engine.reader();
            while waiting > 0 {
                let chunk = reader.fill_buf()?;
                let length = chunk.len();
                plaintext.extend_from_slice(chunk);
                reader.consume(length);
                waiting -= length;
            }
        }
        Ok(())
    }
}
