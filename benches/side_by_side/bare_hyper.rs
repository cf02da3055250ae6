//! What ordinary requests cost at the least where hyper speaks HTTP on both sides: its server
//! joined to its client, with the headers that tidegate adds and the case of all names; no routes,
//! no limits, no timers, no log.
//!
//! It is no proxy that anybody could use: every client has an upstream connection of its own,
//! answers are gathered before they are passed on, bodies of requests are dropped, and what goes
//! wrong ends the connection. What a real one costs more than this is what it does besides.

use std::ffi::OsString;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, VIA};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{client, server};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;

use crate::floor::{self, Given};
use crate::peer::Site;

/// What makes this program bare hyper, and is followed by what the floor is given.
pub(crate) const FLAG: &str = "--bare-hyper";

/// How it is started at a site.
pub(crate) fn arguments(site: &Site) -> Vec<OsString> {
    floor::arguments(FLAG, site)
}

/// Passes requests on until it is killed.
///
/// # Errors
///
/// What is wrong with the arguments, and what the system says.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let site = Given::read(arguments)?;
    let acceptor = TlsAcceptor::from(Arc::new(site.tls()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let (secure, plain) =
            (TcpListener::bind(site.wss).await?, TcpListener::bind(site.ws).await?);
        loop {
            let (tcp, is_secure) = tokio::select! {
                accepted = secure.accept() => (accepted?.0, true),
                accepted = plain.accept() => (accepted?.0, false),
            };
            tcp.set_nodelay(true)?;
            let (acceptor, backend) = (acceptor.clone(), site.backend);
            tokio::task::spawn_local(async move {
                if !is_secure {
                    serve(tcp, backend).await;
                } else if let Ok(tls) = acceptor.accept(tcp).await {
                    serve(tls, backend).await;
                }
            });
        }
    })
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + 'static, backend: SocketAddr) {
    // Requests of a connection come one after the other: nobody waits for the lock.
    let upstream = Rc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let upstream = upstream.clone();
        async move {
            let mut upstream = upstream.lock().await;
            if upstream.is_none() {
                *upstream = Some(Upstream::connect(backend).await?);
            }
            let upstream = upstream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            upstream.ask(request).await.map_err(io::Error::other)
        }
    });
    let mut server = server::conn::http1::Builder::new();
    server.preserve_header_case(true).title_case_headers(true);
    // Whoever leaves in the middle of something is no concern of others.
    let _ = server.serve_connection(TokioIo::new(io), service).await;
}

const PSEUDONYM: HeaderValue = HeaderValue::from_static("1.1 hyper");
/// Nobody else is measured from.
const LOOPBACK: HeaderValue = HeaderValue::from_static("127.0.0.1");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

type Connection = client::conn::http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>;

struct Upstream {
    requests: client::conn::http1::SendRequest<Empty<Bytes>>,
    connection: Pin<Box<Connection>>,
}

impl Upstream {
    async fn connect(backend: SocketAddr) -> io::Result<Self> {
        let tcp = TcpStream::connect(backend).await?;
        tcp.set_nodelay(true)?;
        let mut client = client::conn::http1::Builder::new();
        let handshake =
            client.preserve_header_case(true).title_case_headers(true).handshake(TokioIo::new(tcp));
        let (requests, connection) = handshake.await.map_err(io::Error::other)?;
        Ok(Self { requests, connection: Box::pin(connection) })
    }

    async fn ask(&mut self, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
        let mut request = request.map(|_| Empty::new());
        let headers = request.headers_mut();
        let host = headers.get(HOST).cloned();
        headers.append(VIA, PSEUDONYM);
        headers.insert(HeaderName::from_static("x-forwarded-for"), LOOPBACK);
        headers.insert(HeaderName::from_static("x-forwarded-proto"), HTTPS);
        if let Some(host) = host {
            headers.insert(HeaderName::from_static("x-forwarded-host"), host);
        }
        let answer = self.requests.send_request(request);
        let (mut head, body) = beside(&mut self.connection, answer).await?.into_parts();
        head.headers.append(VIA, PSEUDONYM);
        let body = beside(&mut self.connection, body.collect()).await?;
        Ok(Response::from_parts(head, Full::new(body.to_bytes())))
    }
}

/// Polls the connection in the task of its user: a task of its own would cost more.
async fn beside<F: Future>(connection: &mut Pin<Box<Connection>>, user: F) -> F::Output {
    let mut user = pin!(user);
    poll_fn(|cx| {
        // What becomes of it, its user hears.
        let _ = connection.as_mut().poll(cx);
        if let Poll::Ready(done) = user.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        // The user may just have given it something to do.
        let _ = connection.as_mut().poll(cx);
        user.as_mut().poll(cx)
    })
    .await
}
