//! The TLS handshake with a client, within its time.

use std::cell::Cell;
use std::rc::Rc;

use rustls::ProtocolVersion;
use tokio::time::timeout;

use crate::http::respond::{self, Refusal};
use crate::http::serve;
use crate::listener::Entrance;
use crate::listener::accept::Counted;
use crate::proxy::Worker;
use crate::telemetry::metrics::TlsVersion;
use crate::telemetry::record::{ClientFacts, Record, TlsFacts};
use crate::tls::identity::Identity;
use crate::tls::server::Failed;
use crate::transport::{Socket, Stream};

/// The content type of a handshake record, the first byte of every TLS connection (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// A connection, with TLS over it or not.
pub struct Secured {
    /// The connection.
    pub stream: Stream,
    /// What is known of it for the record.
    pub facts: ClientFacts,
    /// What the client's certificate says of it.
    pub identity: Option<Identity>,
    /// The name the client asked for (SNI), in lower case.
    pub sni: Option<String>,
}

/// Secures a connection. `None` where that fails; nobody else is concerned.
pub async fn secure(
    socket: Socket,
    mut facts: ClientFacts,
    entrance: &Entrance,
    counted: &Counted,
    worker: &Rc<Worker>,
) -> Option<Secured> {
    let (server, limit) = {
        let running = worker.running.load();
        (running.tls.clone(), running.tls_timeout)
    };
    let client_auth = entrance.client_auth;
    let counters = counted.shard();
    let has_begun = Cell::new(false);
    let accepting = async {
        // Looked at first: once rustls has refused it, its alert is on the way already.
        let is_tls = match socket.next_byte().await {
            Ok(byte) => byte.is_none_or(|byte| byte == TLS_HANDSHAKE),
            Err(error) => return Err(Failed { error, socket: None }),
        };
        has_begun.set(true);
        if is_tls { server.accept(socket, client_auth).await.map(Ok) } else { Ok(Err(socket)) }
    };
    let accepted = tokio::select! {
        accepted = timeout(limit, accepting) => accepted,
        () = worker.drain.silent_at_leaving(|| !has_begun.get()) => return None,
    };
    match accepted {
        Ok(Ok(Ok((tls, identity)))) => {
            let state = tls.state();
            let version = match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::V12,
                _ => TlsVersion::V13,
            };
            let resumed = state.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            counters.secured(version, resumed);
            facts.tls = Some(TlsFacts {
                version,
                resumed,
                subject: identity.as_ref().map(|identity| identity.subject().into()),
            });
            let sni = tls.server_name().map(str::to_ascii_lowercase);
            Some(Secured { stream: Stream::Tls(Box::new(tls)), facts, identity, sni })
        }
        Ok(Ok(Err(socket))) => {
            counters.not_secured();
            let record = Record::begin(&worker.log, &Rc::new(facts));
            let answer = respond::in_bytes(&Refusal::PlainOnTls, &record);
            serve::close(Stream::Plain(socket), Some(answer)).await;
            None
        }
        Ok(Err(Failed { error, socket })) => {
            counters.not_secured();
            tracing::debug!(client = %facts.client, %error, "TLS handshake failed");
            if let Some(socket) = socket {
                tokio::select! {
                    () = serve::close(Stream::Plain(socket), None) => {}
                    () = worker.drain.leaving_after(|| true) => {}
                }
            }
            None
        }
        Err(_elapsed) => {
            counters.not_secured();
            tracing::debug!(client = %facts.client, "TLS handshake took too long");
            None
        }
    }
}
