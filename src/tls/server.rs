//! Our side towards clients: one rustls configuration for each way to treat their certificates,
//! and the handshake.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, NoClientAuth, NoServerSessionStorage, ProducesTickets};
use rustls::version::{TLS12, TLS13};
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

    /// Makes the handshake with a client, and says who it is if it has shown a certificate.
    ///
    /// # Errors
    ///
    /// [`Failed`]; the client has been told why by an alert, as far as it can be.
    pub async fn accept<S>(
        &self,
        socket: S,
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
        let accepting = async {
            let socket = Framed::new(socket);
            let accepting = match self.unknown_name {
                UnknownName::Default => TlsAcceptor::from(config.clone()).accept(socket),
                UnknownName::Refuse => self.known_name(socket).await?.into_stream(config.clone()),
            };
            let failed = |(error, socket)| Failed { error, socket: Some(socket) };
            accepting.into_fallible().await.map_err(failed)
        };
        let (accepted, secrets) = noting(accepting).await;
        let stream = accepted.map_err(|failed| failed.map(Framed::into_inner))?;
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

impl<S> Failed<S> {
    fn map<T>(self, of: impl FnOnce(S) -> T) -> Failed<T> {
        Failed { error: self.error, socket: self.socket.map(of) }
    }
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
