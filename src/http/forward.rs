//! Ordinary requests: to an endpoint and back, bodies streaming both ways.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, request};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::activity::Activity;
use super::body::{Opener, Progress, RequestBody, ResponseBody, Then};
use super::connection::{Connection, Failure};
use super::framing;
use super::headers::{self, Hop};
use super::pool::Pool;
use super::respond::{Drained, Refusal};
use crate::listener::proxy_protocol::Addresses;
use crate::telemetry::record::Record;
use crate::upstream::Upstream;
use crate::upstream::dial::dial;
use crate::upstream::endpoint::{Endpoint, InFlight};

/// How long a body is held back for an upstream's `100 (Continue)`; many never say it.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A request on its way out. Boxed, as one that waits for its answer is no longer here, and
/// futures are made and moved for each.
#[derive(Debug)]
pub struct Outgoing {
    /// `None` while it is being sent.
    request: Option<Request<RequestBody>>,
    /// What it takes to send it once more, where that may be done.
    copy: Option<Transcript>,
    progress: Progress,
    /// How long its body may pause.
    body_timeout: Duration,
    /// Whose it is.
    addresses: Addresses,
}

impl Outgoing {
    /// A request of the client of these `addresses`, whose headers are those for the upstream
    /// already, and whose body may not pause for longer than `body_timeout`.
    pub fn new(
        request: Request<Incoming>,
        body_timeout: Duration,
        addresses: Addresses,
        record: &Record,
    ) -> Self {
        let (mut head, incoming) = request.into_parts();
        let (mut body, progress) = RequestBody::new(incoming, record);
        let has_body = progress.has_body();
        if has_body && !head.headers.contains_key(CONTENT_LENGTH) {
            // hyper takes a GET or HEAD that says nothing of a body for one without.
            head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let can_be_repeated = !has_body && is_idempotent(&head.method);
        let copy = can_be_repeated.then(|| Transcript::of(&head));
        let opener = (has_body && expects_continue(&head.headers)).then(|| body.hold_back());
        let mut request = Request::from_parts(head, body);
        if let Some(opener) = &opener {
            open_on_continue(&mut request, opener);
        }
        Self { request: Some(request), copy, progress, body_timeout, addresses }
    }
}

/// Carries a request to an endpoint, and returns the answer with its headers made for the client.
/// Dropping it closes the connection to the endpoint.
///
/// # Errors
///
/// [`Refusal`] where no endpoint could be reached, or none answered.
pub async fn forward(
    mut outgoing: Box<Outgoing>,
    upstream: &Arc<Upstream>,
    pool: &Rc<Pool>,
    activity: &Activity,
    record: &Record,
) -> Result<Response<ResponseBody>, Refusal> {
    // A connection that began with the client's address is for nobody else.
    let pool = upstream.config.send_proxy_protocol.is_none().then_some(pool);
    let mut tried = Vec::new();
    loop {
        let next = upstream.choose(&tried);
        let kept = next.as_ref().and_then(|endpoint| keep_on(endpoint, pool, record));
        let (mut way, is_fresh) = match kept {
            Some(way) => (way, false),
            // Boxed, so that a request for which there is a connection does not carry along what it
            // takes to make one.
            None => {
                Box::pin(reach(next, upstream, pool, &mut tried, outgoing.addresses, record))
                    .await?
            }
        };
        let request = outgoing.request.take().expect("it is put back before the next try");
        let answer = {
            let mut asked = pin!(way.connection.ask(request));
            let answer = |cx: &mut Context| way.connection.poll_answer(asked.as_mut(), cx);
            let limit = upstream.config.handshake_timeout;
            in_time(answer, limit, outgoing.body_timeout, &outgoing.progress, activity).await?
        };
        match answer {
            Ok(answer) => return finish(answer, way, pool, outgoing),
            Err(_) if outgoing.progress.is_broken() => {
                return Err(Refusal::Malformed("its body cannot be read".into()));
            }
            Err(failure) => {
                outgoing.request = Some(again(failure, outgoing.copy.as_ref(), record)?);
                // A kept connection that the endpoint closed meanwhile says nothing against it.
                if is_fresh {
                    tried.push(way.in_flight.endpoint().clone());
                    if tried.len() > upstream.config.retries {
                        return Err(Refusal::Unanswered);
                    }
                }
            }
        }
    }
}

/// A connection to an endpoint, and the endpoint's count of what it serves.
struct Way {
    connection: Connection,
    in_flight: InFlight,
}

/// The way to `endpoint` by a connection that was kept in the pool.
fn keep_on(endpoint: &Arc<Endpoint>, pool: Option<&Rc<Pool>>, record: &Record) -> Option<Way> {
    let connection = pool?.take(endpoint)?;
    record.endpoint(&endpoint.name);
    Some(Way { connection, in_flight: endpoint.begin() })
}

/// Finds a connection to `next`: a fresh one (then `true`) where none was kept, to another endpoint
/// where dialling failed.
async fn reach(
    mut next: Option<Arc<Endpoint>>,
    upstream: &Arc<Upstream>,
    pool: Option<&Rc<Pool>>,
    tried: &mut Vec<Arc<Endpoint>>,
    addresses: Addresses,
    record: &Record,
) -> Result<(Way, bool), Refusal> {
    let mut last = None;
    while let Some(endpoint) = next {
        if let Some(way) = keep_on(&endpoint, pool, record) {
            return Ok((way, false));
        }
        record.endpoint(&endpoint.name);
        let in_flight = endpoint.begin();
        match dial(&endpoint, upstream, addresses).await {
            Ok(stream) => {
                let connection = Connection::over(stream).await.map_err(Refusal::Broken)?;
                return Ok((Way { connection, in_flight }, true));
            }
            Err(error) => {
                tracing::debug!(endpoint = %endpoint.name, %error, "dialling failed");
                tried.push(endpoint);
                if tried.len() > upstream.config.retries {
                    return Err(Refusal::Unreached(error));
                }
                last = Some(error);
                next = upstream.choose(tried);
            }
        }
    }
    Err(match last {
        Some(error) => Refusal::Unreached(error),
        None if tried.is_empty() => Refusal::Drained(Drained::Endpoints),
        None => Refusal::Unanswered,
    })
}

/// The request once more after a failure: as it came back unsent, or from its copy where it can
/// be repeated and no byte of an answer came (RFC 9110 §9.2.2).
fn again(
    mut failure: Failure,
    copy: Option<&Transcript>,
    record: &Record,
) -> Result<Request<RequestBody>, Refusal> {
    if let Some(unsent) = failure.take_message() {
        return Ok(unsent);
    }
    let error = failure.into_error();
    match copy {
        Some(copy) if !error.is_parse() => {
            tracing::debug!(%error, id = record.id(), "no answer, asking again");
            Ok(copy.request())
        }
        _ => Err(Refusal::Broken(error)),
    }
}

/// The answer, unless it takes longer than `limit` after the last of the request went out, or the
/// request's body stops coming. The clock is looked at only when a limit may be over, so neither a
/// request nor its body costs a timer.
///
/// # Errors
///
/// [`Refusal::Slow`] for the upstream, [`Refusal::SlowBody`] for the client.
async fn in_time<T>(
    mut answer: impl FnMut(&mut Context<'_>) -> Poll<T>,
    limit: Duration,
    body_timeout: Duration,
    progress: &Progress,
    activity: &Activity,
) -> Result<T, Refusal> {
    let began = Instant::now();
    activity.remind(Some(began + limit.min(body_timeout)));
    let answered = poll_fn(|cx| {
        if let Poll::Ready(answer) = answer(cx) {
            return Poll::Ready(Ok(answer));
        }
        if !activity.is_reminded() {
            return Poll::Pending;
        }
        // A body that is not asked for is held up by the upstream.
        let is_for_client = !progress.is_sent() && progress.is_awaited();
        let (limit, late) =
            if is_for_client { (body_timeout, Refusal::SlowBody) } else { (limit, Refusal::Slow) };
        let deadline = progress.last().unwrap_or(began) + limit;
        if deadline <= Instant::now() {
            return Poll::Ready(Err(late));
        }
        activity.remind(Some(deadline));
        Poll::Pending
    })
    .await;
    activity.remind(None);
    answered
}

fn finish(
    answer: Response<Incoming>,
    mut way: Way,
    pool: Option<&Rc<Pool>>,
    outgoing: Box<Outgoing>,
) -> Result<Response<ResponseBody>, Refusal> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::UnaskedSwitch);
    }
    let (mut head, incoming) = answer.into_parts();
    framing::check_answer(&mut head.headers).map_err(Refusal::Framing)?;
    headers::to_client(&mut head, Hop::Ordinary);
    if outgoing.progress.has_body() && !way.connection.is_idle() {
        // Its end may still be on its way, while a client that sends does not read.
        way.connection.go_on_alone();
    }
    let then = Then::Keep(pool.cloned(), Some(way.connection), outgoing.progress);
    Ok(Response::from_parts(head, ResponseBody::relayed(incoming, way.in_flight, then)))
}

/// What it takes to send a request without a body once more, which hardly ever happens: it is
/// written down as cheaply as can be. The extensions stay behind: all they have is the case of
/// header names, which is not worth a copy of every request.
#[derive(Debug)]
struct Transcript {
    method: Method,
    uri: Uri,
    /// Names and values by turns, each with a NUL behind it, which neither can have.
    headers: Vec<u8>,
}

impl Transcript {
    fn of(head: &request::Parts) -> Self {
        let len =
            |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 2;
        let mut headers = Vec::with_capacity(head.headers.iter().map(len).sum());
        for (name, value) in &head.headers {
            for text in [name.as_str().as_bytes(), value.as_bytes()] {
                headers.extend_from_slice(text);
                headers.push(0);
            }
        }
        Self { method: head.method.clone(), uri: head.uri.clone(), headers }
    }

    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let mut texts = self.headers.split(|byte| *byte == 0);
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            // What was a name and a value is one again.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                request.headers_mut().append(name, value);
            }
        }
        request
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Opens the gate in front of the body when the upstream says `100 (Continue)`, or after a while.
fn open_on_continue(request: &mut Request<RequestBody>, opener: &Opener) {
    let on_continue = opener.clone();
    hyper::ext::on_informational(request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            on_continue.open();
        }
    });
    let opener = opener.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(CONTINUE_WAIT).await;
        opener.open();
    });
}
