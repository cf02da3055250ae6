//! The TLS handshake with a client, within its time.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use rustls::ProtocolVersion;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::timeout;

use crate::http::respond::{self, Refusal};
use crate::http::serve;
use crate::listener::Entrance;
use crate::listener::accept::Counted;
use crate::proxy::Worker;
use crate::telemetry::metrics::TlsVersion;
use crate::telemetry::record::{ClientFacts, Record, TlsFacts};
use crate::tls::handover;
use crate::tls::identity::Identity;
use crate::tls::server::Failed;
use crate::transport::{Socket, Stream};

/// The content type of a handshake record, the first byte of every TLS connection (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// What is read of a connection before it is known to speak TLS: a whole ClientHello, mostly.
const HELLO_BYTES: usize = 4096;

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

/// What comes of a connection.
enum Accepted {
    Tls(Box<handover::Secured<Socket>>, Option<Identity>),
    /// It is no TLS that is spoken.
    Plain(Socket),
    /// Nothing was said in time.
    GivenUp,
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
    // Several KiB, which would be moved with every future that they are given to.
    let accepting = pin!(async {
        let mut socket = socket;
        let given_up = worker.drain.leaving_after(|| true);
        let hello = match hear(&mut socket, given_up).await {
            Some(Ok(hello)) => hello,
            Some(Err(error)) => return Err(Failed { error, socket: None }),
            None => return Ok(Accepted::GivenUp),
        };
        // Looked at first: what rustls refuses, it answers with an alert.
        if hello.first().is_some_and(|first| *first != TLS_HANDSHAKE) {
            return Ok(Accepted::Plain(socket));
        }
        let (tls, identity) = server.accept(socket, hello, client_auth).await?;
        Ok(Accepted::Tls(Box::new(tls), identity))
    });
    match timeout(limit, accepting).await {
        Ok(Ok(Accepted::Tls(tls, identity))) => {
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
            Some(Secured { stream: Stream::Tls(tls), facts, identity, sni })
        }
        Ok(Ok(Accepted::GivenUp)) => None,
        Ok(Ok(Accepted::Plain(socket))) => {
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

/// The first bytes that come, none at the end of the stream; `None` if nothing has come when it is
/// `given_up`.
async fn hear(
    socket: &mut Socket,
    given_up: impl Future<Output = ()>,
) -> Option<io::Result<Vec<u8>>> {
    let mut given_up = pin!(given_up);
    poll_fn(|cx| {
        // Who says nothing has no buffer held for it.
        let mut hello = [MaybeUninit::uninit(); HELLO_BYTES];
        let mut hello = ReadBuf::uninit(&mut hello);
        // First, so that nobody is given up who has spoken.
        if let Poll::Ready(read) = Pin::new(&mut *socket).poll_read(cx, &mut hello) {
            return Poll::Ready(Some(read.map(|()| hello.filled().to_vec())));
        }
        given_up.as_mut().poll(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::io::Write as _;

    use tokio::net::UnixStream;

    use super::*;

    /// Its time is over in the same moment in which it is heard.
    #[tokio::test]
    async fn nobody_is_given_up_who_has_spoken() {
        for _ in 0..64 {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let mut theirs = theirs.into_std().expect("a socket");
            theirs.write_all(b"\x16\x03\x01").expect("room for three bytes");
            ours.readable().await.expect("a word");
            let heard = hear(&mut Socket::Unix(ours), ready(())).await;
            assert_eq!(heard.expect("a word").expect("a word"), b"\x16\x03\x01");
        }
    }

    #[tokio::test]
    async fn who_is_silent_is_given_up_and_who_leaves_is_not_waited_for() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut ours = Socket::Unix(ours);
        assert!(hear(&mut ours, ready(())).await.is_none());
        drop(theirs);
        let heard = hear(&mut ours, std::future::pending()).await;
        assert_eq!(heard.expect("the end").expect("the end"), b"");
    }
}
