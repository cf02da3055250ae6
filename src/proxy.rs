//! The life of a connection on one page: accepted, introduced, TLS, HTTP, routed, dialled, relayed.
//!
//! Start here. Each step is a call into the folder that knows it; what a connection carries along
//! (its permit, its facts for the record, its worker) is in [`Arrival`] and [`Client`].

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::config::{self, ProxyProtocol};
use crate::http::activity::Activity;
use crate::http::body::ResponseBody;
use crate::http::forward::{self, Outgoing};
use crate::http::handshake::{self, Handshake, SEC_WEBSOCKET_PROTOCOL, Strictness};
use crate::http::headers::{self, Forwarded, Hop};
use crate::http::open::{Opened, UpstreamLeg, open};
use crate::http::pool::Pool;
use crate::http::respond::{self, Drained, Refusal};
use crate::http::target::{Asked, HostError};
use crate::http::{framing, serve, target};
use crate::lifecycle::phases::{Alive, Drain};
use crate::listener::accept::Counted;
use crate::listener::limits::{Full, Limits, Permit};
use crate::listener::proxy_protocol::Addresses;
use crate::listener::secure::{self, Secured};
use crate::listener::{Entrance, introduction};
use crate::relay::sessions::Sessions;
use crate::relay::{self, Relay};
use crate::route::{self, Route};
use crate::telemetry::access_log::WorkerLog;
use crate::telemetry::record::{ClientFacts, EndedBy, Record};
use crate::tls::identity::Identity;
use crate::tls::server::Server;
use crate::tls::store::Store;
use crate::transport::{Socket, Stream};
use crate::upstream::Upstream;
use crate::upstream::endpoint::InFlight;

/// The configuration as it runs: what every worker reads and none changes.
#[derive(Debug, Clone)]
pub struct Running {
    /// The routes, in the order of the file.
    pub routes: Vec<Arc<Route>>,
    /// Finds the route of a request.
    pub table: Arc<route::Table<Arc<Route>>>,
    /// The upstreams, in the order of the file.
    pub upstreams: Vec<Arc<Upstream>>,
    /// TLS towards clients. The keys of its session tickets outlive a reload.
    pub tls: Arc<Server>,
    /// The certificates by name.
    pub certificates: Arc<Store>,
    /// How long a TLS handshake may take.
    pub tls_timeout: Duration,
    /// What is counted over all workers.
    pub limits: Arc<Limits>,
    /// What holds for each connection.
    pub per_connection: config::Limits,
    /// How often what is due is looked for: silent sessions, idle upstream connections.
    pub sweep_every: Duration,
    /// How sessions are sent away.
    pub drain: config::Drain,
}

/// What everything on one worker has at hand.
#[derive(Debug)]
pub struct Worker {
    /// The configuration as it runs. A connection looks once for what holds all along, and again
    /// with each request for where that goes.
    pub running: Arc<ArcSwap<Running>>,
    /// This worker's end of the access log.
    pub log: Rc<WorkerLog>,
    /// Its connections to endpoints.
    pub pool: Rc<Pool>,
    /// Its sessions.
    pub sessions: Rc<Sessions>,
    /// Its view of the life of the process.
    pub drain: Rc<Drain>,
}

/// A connection that has just been accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The client's address: the peer's, or the one for which a trusted peer says that it comes.
    pub client: SocketAddr,
    /// Where the client connected to, as far as is known.
    pub came_to: SocketAddr,
    /// Whether what the client says of clients of its own is believed.
    pub is_trusted: bool,
    /// The limit that it is beyond, if it is.
    pub refusal: Option<Full>,
    /// The listener it came by.
    pub entrance: Arc<Entrance>,
}

impl Arrival {
    /// For whom an upstream's connection is, for upstreams that want to be told.
    fn addresses(&self) -> Addresses {
        Addresses { client: self.client, destination: self.came_to }
    }
}

/// A connection's place among all others, until this is dropped: all that a session still has of
/// its connection's beginning.
#[derive(Debug)]
pub struct Place {
    /// Within the limits.
    pub permit: Permit,
    /// In the listener's count.
    pub counters: Counted,
    /// Among what a drain waits for.
    pub alive: Alive,
}

/// A client's connection, as its requests see it.
struct Client {
    facts: Rc<ClientFacts>,
    /// The name it asked for in the TLS handshake.
    sni: Option<String>,
    /// What its certificate says of it, for the upstream.
    identity: Option<Identity>,
    /// Its address without the port, for the upstream, once that was asked for.
    address: RefCell<Option<HeaderValue>>,
    /// Which host it asked for last.
    host: RefCell<Option<Rc<Asked>>>,
    arrival: Arrival,
    worker: Rc<Worker>,
    /// Filled by a request that became a session, for the relay to take over.
    session: RefCell<Option<Session>>,
}

impl Client {
    /// Its address without the port, as a header has it.
    fn address(&self) -> HeaderValue {
        let written = || {
            let address = self.arrival.client.ip().to_string();
            // Digits, letters, dots and colons.
            HeaderValue::try_from(address).unwrap_or(HeaderValue::from_static("unknown"))
        };
        self.address.borrow_mut().get_or_insert_with(written).clone()
    }
}

/// What a session needs besides the client's own leg.
struct Session {
    upstream: UpstreamLeg,
    meaningful_reserved: u8,
    route: Arc<Route>,
    record: Record,
    permit: Permit,
}

/// Carries one connection from its acceptance to its end.
pub fn serve(
    socket: TcpStream,
    arrival: Arrival,
    place: Place,
    worker: Rc<Worker>,
) -> impl Future<Output = ()> {
    Connection::Beginning(Box::pin(begin(socket, arrival, place, worker)))
}

/// The future of a connection. Most of a session's life is idle: what only its beginning needed is
/// boxed and given back then, so that the task is as large as a relay and no larger.
#[expect(clippy::large_enum_variant, reason = "the larger one is what it is in nearly always")]
enum Connection {
    Beginning(Pin<Box<dyn Future<Output = Option<Relayed>>>>),
    Relayed(Relayed),
}

/// A session: its relay, and what it holds until that is over.
struct Relayed {
    relay: Relay,
    _in_flight: InFlight,
    _permit: Permit,
    _place: Place,
}

// Written by hand, since an `async` block has room for the relay twice: before and while it is
// awaited.
impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Self::Beginning(beginning) = this {
            match ready!(beginning.as_mut().poll(cx)) {
                Some(relayed) => *this = Self::Relayed(relayed),
                None => return Poll::Ready(()),
            }
        }
        let Self::Relayed(Relayed { relay, .. }) = this else { return Poll::Ready(()) };
        Pin::new(relay).poll(cx)
    }
}

/// Carries a connection to its end, or to where it has become a session.
async fn begin(
    socket: TcpStream,
    arrival: Arrival,
    place: Place,
    worker: Rc<Worker>,
) -> Option<Relayed> {
    let (socket, arrival, place) = match arrival.entrance.proxy_protocol {
        ProxyProtocol::Off => (socket, arrival, place),
        ProxyProtocol::Accept | ProxyProtocol::Require => {
            Box::pin(introduction::introduce(socket, arrival, place, &worker)).await?
        }
    };
    let socket = Socket::Tcp(socket);
    let facts = ClientFacts::new(arrival.client, arrival.entrance.address_text.clone());
    let Secured { stream, facts, identity, sni } = if arrival.entrance.tls {
        Box::pin(secure::secure(socket, facts, &arrival.entrance, &place.counters, &worker)).await?
    } else {
        Secured { stream: Stream::Plain(socket), facts, identity: None, sni: None }
    };
    let client = Rc::new(Client {
        facts: Rc::new(facts),
        sni,
        identity,
        address: RefCell::default(),
        host: RefCell::default(),
        arrival,
        worker: worker.clone(),
        session: RefCell::new(None),
    });
    let limits = worker.running.load().per_connection.clone();
    let let_go = serve::serve(
        stream,
        &limits,
        &worker.drain,
        || Record::begin(&worker.log, &client.facts),
        |request, activity| answer(request, activity, client.clone()),
    );
    // Boxed like the TLS handshake, so that neither has room for both.
    let let_go = Box::pin(let_go).await;
    let Session { upstream, meaningful_reserved, route, record, permit } = client.session.take()?;
    let Some(let_go) = let_go else {
        record.ended(EndedBy::Client, "gone before its handshake was answered");
        return None;
    };
    let UpstreamLeg { stream, early, in_flight } = upstream;
    let opening = relay::Opening {
        client: (let_go.stream, let_go.early),
        upstream: (stream, early),
        meaningful_reserved,
        route,
        endpoint: in_flight.endpoint().clone(),
        record,
    };
    let relay = Relay::new(opening, &worker.sessions);
    Some(Relayed { relay, _in_flight: in_flight, _permit: permit, _place: place })
}

/// Answers one request, and puts it on record whatever comes of it.
fn answer(
    request: Request<Incoming>,
    activity: Rc<Activity>,
    client: Rc<Client>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    let record = Record::begin(&client.worker.log, &client.facts);
    // Here already, so that the future, which is made anew for each request, has no room for all
    // that a head is judged by.
    let accepted = accept(request, &client, &record);
    async move {
        let carried = match accepted {
            Ok(accepted) => carry(accepted, &activity, &client, &record).await,
            Err(refusal) => Err(refusal),
        };
        let response = carried.unwrap_or_else(|refusal| respond::with(&refusal, &record));
        record.answered(response.status().as_u16());
        let mut response = response.map(|body| body.on_behalf_of(record, activity.clone()));
        // Whoever asks again is to find another process (RFC 9112 §9.6).
        if client.worker.drain.is_draining() && !activity.is_switched() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// What a client of HTTP/1.0 may leave out.
static NO_HOST: HeaderValue = HeaderValue::from_static("");

/// Carries one request on and the answer back; a handshake's session is left with the client for
/// the relay.
async fn carry(
    accepted: Accepted,
    activity: &Activity,
    client: &Rc<Client>,
    record: &Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let Accepted { asking, route } = accepted;
    match asking {
        // Boxed, so that an ordinary request does not carry along what only this takes.
        Asking::Session(asking) => {
            Box::pin(open_session(asking, &route, activity, client, record)).await
        }
        Asking::Ordinary(outgoing) => {
            let pool = &client.worker.pool;
            let answered =
                forward::forward(outgoing, &route.upstream, pool, activity, record).await;
            if answered.is_err() {
                // Nobody wants what may be left of the request's body: hyper is to find out, before
                // it writes the answer, whether the connection has to end with it and says so
                // (RFC 9112 §9.6).
                yield_now().await;
            }
            answered
        }
    }
}

/// A request that is to be carried out.
struct Accepted {
    asking: Asking,
    route: Arc<Route>,
}

/// What is asked for, as the upstream is to have it.
enum Asking {
    Session(Box<(Request<()>, Handshake)>),
    Ordinary(Box<Outgoing>),
}

/// Judges a request by its head.
fn accept(
    request: Request<Incoming>,
    client: &Client,
    record: &Record,
) -> Result<Accepted, Refusal> {
    let host = target::host_of(&request, client.host.take());
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let authority = host.as_ref().ok().and_then(Option::as_ref).map(|host| &host.authority);
    record.asked(request.method(), authority, target);

    if let Some(full) = client.arrival.refusal {
        return Err(Refusal::Full(full));
    }
    let host = host?;
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    target::check_form(request.uri())?;
    client.host.replace(host.clone());
    let host_name = host.as_ref().map_or("", |host| host.name.as_str());
    check_direction(host_name, client)?;
    if let Some(port) = client.arrival.entrance.redirect_to {
        if host_name.is_empty() {
            return Err(HostError::Missing.into());
        }
        return Err(redirect(&request, host_name, port));
    }
    let running = client.worker.running.load();
    let route = running.table.find(host_name, request.uri().path())?.ok_or(Refusal::NoRoute)?;
    record.routed(&route.counters, &route.upstream.name);

    let (mut head, body) = request.into_parts();
    framing::check_coding(&head.headers)?;
    let strictness =
        if route.config.strict_handshake { Strictness::Strict } else { Strictness::Lenient };
    let handshake = Handshake::read(&head, !body.is_end_stream(), strictness);
    if !matches!(handshake, Ok(None)) {
        record.is_handshake();
    }
    let handshake = handshake?;
    if let (Some(_), Some(origins)) = (&handshake, &route.config.origins) {
        let is_secure = client.arrival.entrance.tls
            || client.arrival.is_trusted && headers::says_https(&head.headers);
        let asked = host.as_ref().map(|host| &host.authority);
        origins.check(&head.headers, asked, is_secure)?;
    }
    let hop = if handshake.is_some() { Hop::Handshake } else { Hop::Ordinary };

    let asked_host = host.as_ref().map_or(&NO_HOST, |host| &host.header);
    let is_tls = client.arrival.entrance.tls;
    let address = client.address();
    let is_trusted = client.arrival.is_trusted;
    let identity = client.identity.as_ref();
    let forwarded = Forwarded { client: &address, is_trusted, is_tls, host: asked_host, identity };
    headers::to_upstream(&mut head.headers, forwarded, hop);
    // Where the target has none, it is from there that we know what was asked for.
    let is_as_asked = host.is_some() && head.uri.authority().is_none();
    if route.upstream.config.host.is_some() || !is_as_asked {
        let sent_host = route.upstream.config.host.as_ref().unwrap_or(asked_host);
        head.headers.insert(HOST, sent_host.clone());
    }
    head.uri = target::origin_form(&head.uri);
    head.version = http::Version::HTTP_11;
    let mut request = Request::from_parts(head, body);
    // hyper has put the wish to upgrade there; it is ours to grant, and not the upstream's.
    drop(hyper::upgrade::on(&mut request));
    let asking = match handshake {
        Some(handshake) => Asking::Session(Box::new((request.map(|_no_body| ()), handshake))),
        None => {
            let body_timeout = running.per_connection.body_timeout;
            let addresses = client.arrival.addresses();
            Asking::Ordinary(Box::new(Outgoing::new(request, body_timeout, addresses, record)))
        }
    };
    Ok(Accepted { asking, route: route.clone() })
}

/// Repeats the handshake to the upstream, and leaves the session with the client.
async fn open_session(
    asking: Box<(Request<()>, Handshake)>,
    route: &Arc<Route>,
    activity: &Activity,
    client: &Rc<Client>,
    record: &Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let limits = client.worker.running.load().limits.clone();
    check_standing(route, client)?;
    let permit = limits.open_session().map_err(Refusal::Full)?;
    let turn = limits.handshake_turn().map_err(Refusal::Full)?;
    if !turn.wait().is_zero() {
        tokio::select! {
            () = sleep(turn.wait()) => {}
            () = client.worker.drain.draining() => {}
        }
        check_standing(route, client)?;
    }
    turn.used();
    let addresses = client.arrival.addresses();
    let (request, handshake) = *asking;
    let opened = open(request, &handshake, &route.upstream, addresses, record).await?;
    let (upstream, answer) = match opened {
        Opened::Session(upstream, answer) => (upstream, answer),
        Opened::Refused(answer) => return Ok(answer),
    };
    // Again: better no session than one that ends at once.
    check_standing(route, client)?;
    let subprotocol = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
    let subprotocol = subprotocol.map(|name| String::from_utf8_lossy(name.as_bytes()).into());
    record.answered(answer.status().as_u16());
    record.opened(subprotocol);
    *client.session.borrow_mut() = Some(Session {
        upstream,
        meaningful_reserved: handshake::meaningful_reserved(answer.headers()),
        route: route.clone(),
        record: record.clone(),
        permit,
    });
    activity.switch();
    Ok(answer.map(|()| ResponseBody::own(bytes::Bytes::new())))
}

/// Whether new sessions are welcome.
fn check_standing(route: &Route, client: &Client) -> Result<(), Refusal> {
    if client.worker.drain.is_draining() {
        return Err(Refusal::Draining);
    }
    if route.standing.is_up() { Ok(()) } else { Err(Refusal::Drained(Drained::Route)) }
}

/// A host outside the certificate that the client was shown is answered with 421 (RFC 9110
/// §15.5.20): its connection was meant for somebody else.
fn check_direction(host: &str, client: &Client) -> Result<(), Refusal> {
    let sni = client.sni.as_deref();
    let Some(sni) = sni.filter(|sni| *sni != host && !host.is_empty()) else { return Ok(()) };
    let is_covered = client
        .worker
        .running
        .load()
        .certificates
        .facts(sni)
        .is_some_and(|certificate| certificate.cover(host));
    if is_covered {
        Ok(())
    } else {
        Err(Refusal::Misdirected { host: host.to_owned(), sni: sni.to_owned() })
    }
}

/// The same place by TLS. A handshake is told so with 426, since browsers follow no redirect then.
fn redirect(request: &Request<Incoming>, host: &str, port: u16) -> Refusal {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let target = target::origin_form(request.uri());
    if handshake::asks_for_websocket(request.headers()) {
        Refusal::UseTls(format!("wss://{host}{port}{}", target.path()))
    } else {
        Refusal::Redirect(format!("https://{host}{port}{target}"))
    }
}
