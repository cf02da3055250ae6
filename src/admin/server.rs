//! Answers whoever asks by the admin interface. Whoever connects to the Unix socket is its owner
//! and may do everything; by TCP the process can be looked at, and nothing can be done to it.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::listen::{Open, Sockets, Unix};
use super::query::Parameters;
use super::snapshot::Watched;
use super::status;
use crate::config;
use crate::lifecycle::control::Control;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to leave off after a failed accept.
const PAUSE: Duration = Duration::from_millis(500);
/// Connections by TCP at once: their descriptors are those of the traffic.
const ONLOOKERS: usize = 64;
/// Events that may wait for whoever watches.
const EVENTS: usize = 4096;

/// How long whoever is still being answered may take, when the process leaves.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The admin interface of a process: where it listens.
#[derive(Debug)]
pub struct Interface {
    unix: Option<(PathBuf, AbortHandle)>,
    tcp: Option<(SocketAddr, AbortHandle)>,
    /// Whether the process leaves. Everybody who is being answered has a receiver of it.
    leaving: watch::Sender<bool>,
}

impl Default for Interface {
    fn default() -> Self {
        Self { unix: None, tcp: None, leaving: watch::Sender::new(false) }
    }
}

impl Interface {
    /// Where it listens.
    pub fn open(&self) -> Open {
        Open {
            unix: self.unix.as_ref().map(|(path, _)| path.clone()),
            tcp: self.tcp.as_ref().map(|(address, _)| *address),
        }
    }

    /// Listens on `sockets` from now on, and no more where `admin` does not say so.
    pub fn adopt(&mut self, sockets: Sockets, admin: &config::Admin, control: &Rc<Control>) {
        if let Some((_, task)) = self.unix.take_if(|(path, _)| admin.socket.as_ref() != Some(path))
        {
            task.abort();
        }
        if let Some((_, task)) = self.tcp.take_if(|(address, _)| admin.address != Some(*address)) {
            task.abort();
        }
        if let Some(unix) = sockets.unix {
            let path = unix.path.clone();
            tracing::info!(socket = %path.display(), "the admin interface is open");
            let task = tokio::task::spawn_local(accept_unix(
                unix,
                self.leaving.subscribe(),
                control.clone(),
            ));
            self.unix = Some((path, task.abort_handle()));
        }
        if let Some((address, listener)) = sockets.tcp {
            let bound = listener.local_addr().unwrap_or(address);
            tracing::info!(address = %bound, "the admin interface can be asked");
            let task = tokio::task::spawn_local(accept_tcp(
                listener,
                bound,
                self.leaving.subscribe(),
                control.clone(),
            ));
            self.tcp = Some((address, task.abort_handle()));
        }
    }

    /// Listens no more, and waits until everybody has had the end of their answer, within reason.
    pub fn close(&mut self) -> impl Future<Output = ()> + use<> {
        let unix = self.unix.take().map(|(_, task)| task);
        let tcp = self.tcp.take().map(|(_, task)| task);
        unix.into_iter().chain(tcp).for_each(|task| task.abort());
        let leaving = std::mem::take(self).leaving;
        leaving.send_replace(true);
        async move {
            if timeout(LAST_ANSWERS, leaving.closed()).await.is_err() {
                tracing::debug!("somebody did not take the end of an answer");
            }
        }
    }
}

async fn accept_unix(unix: Unix, leaving: watch::Receiver<bool>, control: Rc<Control>) {
    loop {
        match unix.listener.accept().await {
            Ok((stream, _)) if is_owner(&stream) => {
                let visit = serve(stream, Visitor::Owner, leaving.clone(), control.clone());
                tokio::task::spawn_local(visit);
            }
            Ok((stream, _)) => {
                let peer = stream.peer_cred().ok();
                let (uid, pid) = (peer.map(|peer| peer.uid()), peer.and_then(|peer| peer.pid()));
                tracing::warn!(uid, pid, "somebody else's process asked by the admin socket");
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot accept for the moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether the peer is our own user or root, whatever has become of the file's mode.
fn is_owner(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == ours || peer.uid() == 0)
}

async fn accept_tcp(
    listener: TcpListener,
    address: SocketAddr,
    leaving: watch::Receiver<bool>,
    control: Rc<Control>,
) {
    let visitor = Visitor::Onlooker { is_local: address.ip().is_loopback() };
    let places = Arc::new(Semaphore::new(ONLOOKERS));
    loop {
        // It is never closed. Who finds no place waits in the kernel's queue.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let visit = serve(stream, visitor, leaving.clone(), control.clone());
                tokio::task::spawn_local(async move {
                    visit.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%address, %error, "the admin interface cannot accept for the moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visitor {
    /// Our own user.
    Owner,
    /// Anybody who reaches the TCP address.
    Onlooker {
        /// Whether that is an address of this machine only.
        is_local: bool,
    },
}

async fn serve<S>(
    stream: S,
    visitor: Visitor,
    mut leaving: watch::Receiver<bool>,
    control: Rc<Control>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| {
        let control = control.clone();
        async move { Ok::<_, Infallible>(answer(request, visitor, &control).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = leaving.wait_for(|is_leaving| *is_leaving) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin interface ended");
    }
}

/// An answer: all of it at once, or line by line as things happen.
enum Answer {
    Whole(Option<Bytes>),
    Lines(mpsc::Receiver<Watched>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Self::Whole(text) => text.take(),
            Self::Lines(events) => ready!(events.poll_recv(cx)).map(|event| {
                // Numbers and strings only: it can be written.
                let mut line = serde_json::to_vec(&event).unwrap_or_default();
                line.push(b'\n');
                line.into()
            }),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Why something is not answered as it was meant.
struct Refused(StatusCode, String);

impl Refused {
    fn wrong(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    fn unknown(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const JSON_LINES: &str = "application/jsonl";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn respond(status: StatusCode, kind: &'static str, answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Answer> {
    let mut text: String = text.into();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    respond(status, TEXT, Answer::Whole(Some(text.into())))
}

fn json(value: &impl Serialize) -> Response<Answer> {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            respond(StatusCode::OK, JSON, Answer::Whole(Some(bytes.into())))
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn answer(
    request: Request<Incoming>,
    visitor: Visitor,
    control: &Rc<Control>,
) -> Response<Answer> {
    if let Err(Refused(status, why)) = check(&request, visitor) {
        return text(status, why);
    }
    let parameters = Parameters::read(request.uri().query());
    let (is_acting, path) = (request.method() == Method::POST, request.uri().path());
    let answered = if is_acting {
        act(path, parameters, control).await
    } else {
        look(path, parameters, control).await
    };
    match answered {
        Ok(response) => response,
        Err(Refused(status, why)) => {
            let mut response = text(status, why);
            if status == StatusCode::METHOD_NOT_ALLOWED {
                let other = if is_acting { "GET, HEAD" } else { "POST" };
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(other));
            }
            response
        }
    }
}

/// Whether this visitor may ask this at all.
fn check(request: &Request<Incoming>, visitor: Visitor) -> Result<(), Refused> {
    let is_looking = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_looking && request.method() != Method::POST {
        let why = format!("{} is nothing that is done here", request.method());
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, why));
    }
    match visitor {
        Visitor::Owner => Ok(()),
        Visitor::Onlooker { .. } if !is_looking => Err(Refused(
            StatusCode::FORBIDDEN,
            "by TCP the process can be looked at; to do something, use its Unix socket".into(),
        )),
        // A page in a browser of this machine could have its own name lead here.
        Visitor::Onlooker { is_local: true } if !is_for_this_machine(request) => Err(Refused(
            StatusCode::FORBIDDEN,
            "ask for localhost or an IP address, not for another name".into(),
        )),
        Visitor::Onlooker { .. } => Ok(()),
    }
}

fn is_for_this_machine(request: &Request<Incoming>) -> bool {
    // What no browser leaves out, a health check may.
    let Some(host) = request.headers().get(HOST) else { return true };
    let authority = host.to_str().unwrap_or("").parse::<http::uri::Authority>();
    authority.is_ok_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
    })
}

async fn look(
    path: &str,
    mut parameters: Parameters,
    control: &Rc<Control>,
) -> Result<Response<Answer>, Refused> {
    let response = match path {
        "/livez" => text(StatusCode::OK, "alive"),
        "/readyz" if control.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "draining"),
        "/readyz" => text(StatusCode::OK, "ready"),
        "/metrics" => {
            let metrics = status::metrics(control);
            respond(StatusCode::OK, OPEN_METRICS, Answer::Whole(Some(metrics.into())))
        }
        "/status" => json(&status::status(control)),
        "/sessions" => {
            let is_watching = parameters.take_flag("watch");
            let mut query = parameters.query().map_err(Refused::wrong)?;
            parameters.finish().map_err(Refused::wrong)?;
            name_route(&mut query.filter.route, control);
            if is_watching {
                let (to, events) = mpsc::channel(EVENTS);
                control.watch(&query.filter, &to);
                return Ok(respond(StatusCode::OK, JSON_LINES, Answer::Lines(events)));
            }
            return Ok(json(&control.list(&query).await.1));
        }
        "/sessions/close" | "/reload" | "/drain" | "/undrain" => {
            let why = format!("{path} does something: ask by POST");
            return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, why));
        }
        _ => {
            return Err(Refused::unknown(
                "there is /metrics, /livez, /readyz, /status and /sessions; and by POST, \
                 /sessions/close, /reload, /drain and /undrain",
            ));
        }
    };
    parameters.finish().map_err(Refused::wrong)?;
    Ok(response)
}

/// A route that was named by its path alone is found by its whole name.
fn name_route(route: &mut Option<String>, control: &Control) {
    if let Some(named) = route
        && let Ok(found) = control.find_route(named)
    {
        *named = found.name().to_string();
    }
}

async fn act(
    path: &str,
    mut parameters: Parameters,
    control: &Rc<Control>,
) -> Result<Response<Answer>, Refused> {
    match path {
        "/reload" => {
            parameters.finish().map_err(Refused::wrong)?;
            match control.reload_for("an operator") {
                Ok(done) => Ok(json(&done)),
                Err(faults) => Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, faults)),
            }
        }
        "/sessions/close" => close(parameters, control).await,
        "/drain" | "/undrain" => {
            let named = (
                parameters.take("route"),
                parameters.take("upstream"),
                parameters.take("endpoint"),
            );
            parameters.finish().map_err(Refused::wrong)?;
            let done = match (path, named) {
                ("/drain", (None, None, None)) => Ok(control.drain().await),
                ("/drain", (Some(route), None, None)) => control.drain_route(&route).await,
                ("/drain", (None, Some(upstream), Some(endpoint))) => {
                    control.drain_endpoint(&upstream, &endpoint).await
                }
                (_, (Some(route), None, None)) => control.undrain_route(&route),
                (_, (None, Some(upstream), Some(endpoint))) => {
                    control.undrain_endpoint(&upstream, &endpoint)
                }
                _ => {
                    return Err(Refused::wrong(
                        "name either `route`, or `upstream` and `endpoint`",
                    ));
                }
            };
            done.map(|done| json(&done)).map_err(Refused::unknown)
        }
        "/metrics" | "/livez" | "/readyz" | "/status" | "/sessions" => {
            let why = format!("{path} only tells: ask by GET");
            Err(Refused(StatusCode::METHOD_NOT_ALLOWED, why))
        }
        _ => Err(Refused::unknown("there is nothing to be done at this path")),
    }
}

async fn close(
    mut parameters: Parameters,
    control: &Rc<Control>,
) -> Result<Response<Answer>, Refused> {
    let is_for_all = parameters.take_flag("all");
    let parting = parameters.parting().map_err(Refused::wrong)?;
    let rate = parameters.rate().map_err(Refused::wrong)?;
    let mut filter = parameters.filter().map_err(Refused::wrong)?;
    parameters.finish().map_err(Refused::wrong)?;
    if filter.is_empty() != is_for_all {
        return Err(Refused::wrong(
            "say which sessions: by `id`, `route`, `upstream`, `endpoint`, `client`, `older` or \
             `idle`; or `all=true`, and nothing of these",
        ));
    }
    name_route(&mut filter.route, control);
    Ok(json(&control.close(filter, parting, rate).await))
}
