//! Our side towards clients: one rustls configuration for each way to treat their certificates,
//! and the handshake.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, NoClientAuth, NoServerSessionStorage, ProducesTickets};
use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};

use super::client_auth::Authorities;
use super::handover::{Framed, Notary, Secured, noting};
use super::identity::Identity;
use super::store::Store;
use crate::config::{self, ClientAuth, UnknownName};

/// TLS towards clients as it runs.
#[derive(Debug, Clone)]
pub struct Server {
    /// For listeners that ask nobody for a certificate.
    open: Side,
    /// For those that do; `None` where it is not said whose certificates are believed.
    asking: Option<Asking>,
    certificates: Arc<Store>,
    unknown_name: UnknownName,
}

#[derive(Debug, Clone)]
struct Asking {
    authorities: Authorities,
    request: Side,
    require: Side,
}

/// A configuration with ticket keys of its own. A ticket brings the client's certificate back, or
/// that there was none, unasked: one from a listener that asks nobody must be worth nothing at one
/// that does, nor one that was issued when other CAs were believed (RFC 8446 §4.6.1, and
/// CVE-2025-23419 in nginx).
#[derive(Debug, Clone)]
struct Side {
    config: Arc<ServerConfig>,
    ticketer: Arc<dyn ProducesTickets>,
}

impl Server {
    /// Makes it of a configuration; the CAs of clients are apart, as they are read again by
    /// themselves. Ticket keys of `before` go on where a ticket means the same.
    ///
    /// # Errors
    ///
    /// What rustls says; with our provider and versions, only that there is no randomness.
    pub fn new(
        tls: &config::Tls,
        authorities: Option<Authorities>,
        certificates: &Arc<Store>,
        before: Option<&Self>,
    ) -> Result<Self, rustls::Error> {
        let open_before = before.map(|before| &before.open);
        let side = |verifier, before| Side::new(tls, verifier, certificates, before);
        let open = side(Arc::new(NoClientAuth), open_before)?;
        let asking = match authorities {
            None => None,
            Some(authorities) => {
                let before = before
                    .and_then(|before| before.asking.as_ref())
                    .filter(|before| before.authorities.are_those_of(&authorities));
                Some(Asking {
                    request: side(authorities.requesting(), before.map(|asking| &asking.request))?,
                    require: side(authorities.requiring(), before.map(|asking| &asking.require))?,
                    authorities,
                })
            }
        };
        let (certificates, unknown_name) = (certificates.clone(), tls.unknown_name);
        Ok(Self { open, asking, certificates, unknown_name })
    }

    /// The CAs whose clients are let in.
    pub fn authorities(&self) -> Option<&Authorities> {
        self.asking.as_ref().map(|asking| &asking.authorities)
    }

    /// Makes the handshake with a client, and says who it is if it has shown a certificate. `hello`
    /// is what was read from the socket already.
    ///
    /// # Errors
    ///
    /// [`Failed`]; the client has been told why by an alert, as far as it can be.
    pub async fn accept<S>(
        &self,
        socket: S,
        hello: Vec<u8>,
        client_auth: ClientAuth,
    ) -> Result<(Secured<S>, Option<Identity>), Failed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match (client_auth, &self.asking) {
            (ClientAuth::Off, _) => &self.open.config,
            (ClientAuth::Request, Some(asking)) => &asking.request.config,
            (ClientAuth::Require, Some(asking)) => &asking.require.config,
            // Between the two steps of a reload that takes `client_ca` away.
            (ClientAuth::Request | ClientAuth::Require, None) => {
                let error = io::Error::other("it is not said any more whose clients are believed");
                return Err(Failed { error, socket: Some(socket) });
            }
        };
        // Several KiB, which would be moved with every future that they are given to.
        let accepting = pin!(async {
            let socket = Framed::accepted(socket, hello);
            let accepting = match self.unknown_name {
                UnknownName::Default => TlsAcceptor::from(config.clone()).accept(socket),
                UnknownName::Refuse => {
                    Box::pin(self.known_name(socket)).await?.into_stream(config.clone())
                }
            };
            let failed = |(error, socket)| Failed { error, socket: Some(socket) };
            accepting.into_fallible().await.map_err(failed)
        });
        let (accepted, secrets) = noting(accepting).await;
        let mut stream = match accepted {
            Ok(stream) => stream,
            Err(Failed { error, socket }) => {
                let socket = match socket {
                    Some(framed) => Some(framed.into_delivered().await),
                    None => None,
                };
                return Err(Failed { error, socket });
            }
        };
        let (framed, connection) = stream.get_mut();
        // What comes last in TLS 1.3 is a ticket, for which nobody waits; in TLS 1.2 it is what the
        // client's handshake ends with.
        let delivered = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => {
                framed.hold_until_answered();
                Ok(())
            }
            _ => framed.deliver().await,
        };
        if let Err(error) = delivered {
            return Err(Failed { error, socket: None });
        }
        let stream = Secured::new(stream, secrets);
        let shown = stream.state().peer_certificates().and_then(|chain| chain.first());
        // Of a session that is resumed, it was verified when that began.
        match shown.map(|certificate| Identity::read(certificate, SystemTime::now())).transpose() {
            Ok(identity) => Ok((stream, identity)),
            Err(error) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, error);
                Err(Failed { error, socket: Some(stream.into_socket()) })
            }
        }
    }

    /// Reads no more than the ClientHello, and goes on if it asks for a name that a certificate is
    /// for, or for none.
    async fn known_name<S>(&self, socket: S) -> Result<StartHandshake<S>, Failed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
        let mut hello = match (&mut hello).await {
            Ok(hello) => hello,
            Err(error) => return Err(Failed { error, socket: hello.take_io() }),
        };
        let name = hello.client_hello().server_name().map(str::to_owned);
        let Some(name) = name.filter(|name| !self.certificates.knows(name)) else {
            return Ok(hello);
        };
        // rustls has no way to say so: where no certificate is chosen, it answers access_denied.
        let told = hello.io.write_all(&UNRECOGNIZED_NAME).await;
        let why = || io::Error::other(format!("no certificate is for `{name}`"));
        let error = told.err().unwrap_or_else(why);
        Err(Failed { error, socket: Some(hello.io) })
    }
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub struct Failed<S> {
    /// Why.
    pub error: io::Error,
    /// The socket, where it is left. It should be closed so that the client can read the alert.
    pub socket: Option<S>,
}

/// The fatal alert `unrecognized_name` in a record of its own, before anything is encrypted: RFC
/// 6066 §3, RFC 8446 §6.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

impl Side {
    /// Certificates by SNI, session tickets, ALPN `http/1.1`.
    fn new(
        tls: &config::Tls,
        verifier: Arc<dyn ClientCertVerifier>,
        certificates: &Arc<Store>,
        before: Option<&Self>,
    ) -> Result<Self, rustls::Error> {
        // Drawn afresh, and changed every few hours.
        let ticketer = before.map_or_else(Ticketer::new, |before| Ok(before.ticketer.clone()))?;
        let versions: &[_] = if tls.allow_tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let mut config = ServerConfig::builder_with_provider(super::provider())
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = ticketer.clone();
        // Tickets resume without memory of ours, so a cache of sessions would only cost it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(Notary);
        Ok(Self { config: Arc::new(config), ticketer })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::io::IoSlice;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use futures_util::{FutureExt as _, poll};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
    use tokio::io::{AsyncReadExt as _, DuplexStream, ReadBuf, duplex};
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use super::*;
    use crate::tls::certificate::Certificate;
    use crate::tls::records::Buffer;

    /// Our end of a connection, which takes down how long every write was.
    struct Written {
        socket: DuplexStream,
        lengths: Rc<RefCell<Vec<usize>>>,
        /// How much it takes of what is written at once.
        room: Rc<Cell<usize>>,
    }

    impl AsyncRead for Written {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Written {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut bytes: Vec<u8> =
                slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            bytes.truncate(self.room.get());
            self.lengths.borrow_mut().push(bytes.len());
            Pin::new(&mut self.socket).poll_write(cx, &bytes)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_shutdown(cx)
        }
    }

    fn both(version: &'static SupportedProtocolVersion) -> (Server, Arc<ClientConfig>) {
        let made = rcgen::generate_simple_self_signed(["server.test".to_owned()]).expect("made");
        let folder = tempfile::tempdir().expect("a folder");
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&chain, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        let certificate =
            Certificate::load(&chain, &key, SystemTime::now()).expect("a certificate");
        let config = config::Tls {
            allow_tls12: true,
            handshake_timeout: Duration::from_secs(10),
            client_ca: None,
            unknown_name: UnknownName::Default,
            key_permissions: config::KeyPermissions::Warn,
        };
        let store = Arc::new(Store::new(vec![certificate]));
        let server = Server::new(&config, None, &store, None).expect("a server");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let client = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (server, Arc::new(client))
    }

    struct Pair {
        ours: Secured<Written>,
        theirs: TlsStream<DuplexStream>,
        lengths: Rc<RefCell<Vec<usize>>>,
        room: Rc<Cell<usize>>,
    }

    /// A handshake of which either side hears no more than it has to.
    async fn shake_hands(server: &Server, client: &Arc<ClientConfig>) -> Pair {
        let (socket, peer) = duplex(1 << 16);
        let lengths = Rc::new(RefCell::new(Vec::new()));
        let room = Rc::new(Cell::new(usize::MAX));
        let socket = Written { socket, lengths: lengths.clone(), room: room.clone() };
        let name = ServerName::try_from("server.test").expect("a name");
        let connecting = TlsConnector::from(client.clone()).connect(name, peer);
        let accepting = server.accept(socket, Vec::new(), ClientAuth::Off);
        let both = async { tokio::join!(accepting, connecting) };
        let both = timeout(Duration::from_secs(60), both).await;
        let (accepted, connected) = both.expect("nobody waits for what is held");
        let (ours, _) = accepted.map_err(|failed| failed.error).expect("a handshake");
        Pair { ours, theirs: connected.expect("a handshake"), lengths, room }
    }

    impl Pair {
        fn writes(&self) -> usize {
            self.lengths.borrow().len()
        }

        fn tickets(&self) -> u32 {
            self.theirs.get_ref().1.tls13_tickets_received()
        }

        /// The client asks, and we have read that.
        async fn ask(&mut self) {
            self.theirs.write_all(b"ask").await.expect("room");
            self.theirs.flush().await.expect("room");
            let mut asked = [0; 3];
            self.ours.read_exact(&mut asked).await.expect("what was asked");
        }

        /// What the client reads, exactly so much.
        fn reads(&mut self, len: usize) -> Vec<u8> {
            let mut read = vec![0; len];
            let reading = self.theirs.read_exact(&mut read).now_or_never();
            reading.expect("it is all there").expect("an answer");
            read
        }
    }

    #[tokio::test]
    async fn a_ticket_goes_out_with_the_first_answer() {
        let (server, client) = both(&TLS13);
        let mut pair = shake_hands(&server, &client).await;
        pair.ask().await;
        // As hyper does, whether or not it has something to say.
        pair.ours.flush().await.expect("room");
        assert_eq!(pair.writes(), 1, "the server's part of the handshake");
        pair.ours.write_all(b"answer").await.expect("room");
        assert_eq!(pair.writes(), 2);
        assert_eq!(pair.reads(6), b"answer");
        assert_eq!(pair.tickets(), 1);
        pair.ours.write_all(b"more").await.expect("room");
        assert_eq!(pair.reads(4), b"more");
        assert_eq!(pair.writes(), 3);
        let next = shake_hands(&server, &client).await;
        assert_eq!(next.theirs.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }

    /// However little of it the socket takes at a time.
    #[tokio::test]
    async fn a_ticket_and_an_answer_go_out_in_pieces() {
        let (server, client) = both(&TLS13);
        for room in [1, 7, 100, 220, 240, 250, 260, 270, 300] {
            let mut pair = shake_hands(&server, &client).await;
            pair.ask().await;
            pair.room.set(room);
            pair.ours.write_all(&[7; 500]).await.expect("room");
            pair.ours.flush().await.expect("room");
            assert_eq!(pair.reads(500), [7; 500], "{room} at a time");
            assert_eq!(pair.tickets(), 1);
        }
    }

    /// Who waits for its ticket before it asks would wait for ever.
    #[tokio::test]
    async fn who_asks_nothing_gets_its_ticket_all_the_same() {
        let (server, client) = both(&TLS13);
        let mut pair = shake_hands(&server, &client).await;
        let mut asked = [0; 1];
        assert!(poll!(pin!(pair.ours.read(&mut asked))).is_pending());
        pair.ours.flush().await.expect("room");
        assert!(poll!(pin!(pair.theirs.read(&mut asked))).is_pending());
        assert_eq!(pair.tickets(), 1);
    }

    #[tokio::test]
    async fn a_ticket_that_is_held_goes_out_with_the_end() {
        let (server, client) = both(&TLS13);
        let mut pair = shake_hands(&server, &client).await;
        pair.ask().await;
        pair.ours.shutdown().await.expect("room");
        assert_eq!(pair.theirs.read(&mut [0; 1]).await.expect("an end in order"), 0);
        assert_eq!(pair.tickets(), 1);
    }

    /// And what is sealed by others comes behind it.
    #[tokio::test]
    async fn a_ticket_that_is_held_is_taken_over() {
        let (server, client) = both(&TLS13);
        let mut pair = shake_hands(&server, &client).await;
        pair.ask().await;
        assert_eq!(pair.writes(), 1);
        let (mut socket, mut taken) = pair.ours.take_over();
        let mut sealed = Buffer::new();
        taken.records.seal(b"answer", &mut sealed).expect("keys");
        socket.write_all(&taken.sealed).await.expect("room");
        socket.write_all(sealed.filled()).await.expect("room");
        let mut answer = [0; 6];
        pair.theirs.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"answer");
        assert_eq!(pair.theirs.get_ref().1.tls13_tickets_received(), 1);
    }

    /// The last word of a handshake is the server's in TLS 1.2, and the client waits for it.
    #[tokio::test]
    async fn a_handshake_of_tls12_is_done_on_both_sides() {
        let (server, client) = both(&TLS12);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut pair = shake_hands(&server, &client).await;
            assert_eq!(pair.theirs.get_ref().1.handshake_kind(), Some(kind));
            pair.ask().await;
            pair.ours.write_all(b"answer").await.expect("room");
            assert_eq!(pair.reads(6), b"answer");
        }
    }

    /// An alert is the last that is written, and nothing comes behind it.
    #[tokio::test]
    async fn who_cannot_be_agreed_with_is_told_so() {
        let (mut server, client) = both(&TLS12);
        for unknown_name in [UnknownName::Default, UnknownName::Refuse] {
            server.unknown_name = unknown_name;
            let (socket, peer) = duplex(1 << 16);
            let name = ServerName::try_from("another.test").expect("a name");
            let connecting = TlsConnector::from(client.clone()).connect(name, peer);
            let accepting = server.accept(socket, Vec::new(), ClientAuth::Off);
            let (accepted, connected) = tokio::join!(accepting, connecting);
            assert!(accepted.is_err());
            let error = connected.expect_err("an alert").to_string();
            let is_told = error.contains("UnrecognisedName");
            assert_eq!(is_told, unknown_name == UnknownName::Refuse, "{error}");
        }
    }

    /// What was read of it before TLS had it is where it begins, and where its records do.
    #[tokio::test]
    async fn a_hello_that_was_read_before_is_where_it_begins() {
        let (server, client) = both(&TLS13);
        for already in [1, 5, 100, 4096] {
            let (mut socket, peer) = duplex(1 << 16);
            let name = ServerName::try_from("server.test").expect("a name");
            let connecting = TlsConnector::from(client.clone()).connect(name, peer);
            let accepting = async {
                let mut hello = vec![0; already];
                let len = socket.read(&mut hello).await.expect("a hello");
                hello.truncate(len);
                server.accept(socket, hello, ClientAuth::Off).await.map_err(|failed| failed.error)
            };
            let (accepted, connected) = tokio::join!(accepting, connecting);
            let (mut theirs, (ours, _)) =
                (connected.expect("a handshake"), accepted.expect("a handshake"));
            let (mut socket, mut taken) = ours.take_over();
            theirs.write_all(b"words").await.expect("room");
            theirs.flush().await.expect("room");
            let mut sealed = [0; 64];
            let len = socket.read(&mut sealed).await.expect("a record");
            let mut plain = Buffer::new();
            plain.begin_with(&[]);
            taken.records.open(&sealed[..len], &mut plain);
            assert_eq!(plain.filled(), b"words", "{already} bytes");
        }
    }
}
