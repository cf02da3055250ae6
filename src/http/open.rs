//! Opens a session: repeats a client's handshake to an endpoint, checks the answer in full, and
//! takes the endpoint's connection out of hyper's hands. Only a checked 101 comes back as an open
//! leg; every other answer is relayed whole.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::body::{RequestBody, ResponseBody, Then};
use super::connection::http1;
use super::framing;
use super::handshake::Handshake;
use super::headers::{self, Hop};
use super::respond::{Drained, Refusal};
use crate::listener::proxy_protocol::Addresses;
use crate::telemetry::record::Record;
use crate::transport::Stream;
use crate::upstream::Upstream;
use crate::upstream::dial::dial;
use crate::upstream::endpoint::InFlight;

/// What an endpoint made of a handshake.
#[derive(Debug)]
pub enum Opened {
    /// It agreed: its leg is open, and the client is to be sent this answer.
    Session(UpstreamLeg, Response<()>),
    /// It refused; its answer goes back whole.
    Refused(Response<ResponseBody>),
}

/// An endpoint's connection after its 101.
#[derive(Debug)]
pub struct UpstreamLeg {
    /// The connection.
    pub stream: Stream,
    /// What the endpoint sent right behind its answer: the first bytes to relay.
    pub early: Bytes,
    /// The endpoint's count of what it serves.
    pub in_flight: InFlight,
}

/// Repeats a handshake, whose headers are those for the upstream already, to one endpoint after
/// the other until one answers. It is for the client of these `addresses`. Dropping it closes the
/// connection to the endpoint.
///
/// # Errors
///
/// [`Refusal`] where no endpoint could be reached, none answered in time, or the answer was wrong.
pub async fn open(
    request: Request<()>,
    handshake: &Handshake,
    upstream: &Arc<Upstream>,
    addresses: Addresses,
    record: &Record,
) -> Result<Opened, Refusal> {
    let (head, ()) = request.into_parts();
    let mut tried = Vec::new();
    // As long as none was even tried.
    let mut last = Refusal::Drained(Drained::Endpoints);
    while let Some(endpoint) = upstream.choose(&tried) {
        record.endpoint(&endpoint.name);
        let in_flight = endpoint.begin();
        let attempt = async {
            let stream =
                dial(&endpoint, upstream, addresses).await.map_err(Failed::before_an_answer)?;
            let body = RequestBody::empty();
            let request = Request::from_parts(head.clone(), body);
            let limit = upstream.config.handshake_timeout;
            match timeout(limit, ask(stream, request, handshake)).await {
                Ok(answered) => answered,
                Err(_elapsed) => Err(Failed::Finally(Refusal::Slow)),
            }
        };
        match attempt.await {
            Ok(Answer::Switched { stream, early, head }) => {
                let leg = UpstreamLeg { stream, early, in_flight };
                return Ok(Opened::Session(leg, head));
            }
            Ok(Answer::Other(answer, task)) => {
                let (mut head, incoming) = answer.into_parts();
                if let Err(error) = framing::check_answer(&mut head.headers) {
                    task.abort();
                    return Err(Refusal::Framing(error));
                }
                headers::to_client(&mut head, Hop::Ordinary);
                let body = ResponseBody::relayed(incoming, in_flight, Then::Close(task));
                return Ok(Opened::Refused(Response::from_parts(head, body)));
            }
            Err(Failed::Finally(refusal)) => return Err(refusal),
            Err(Failed::BeforeAnAnswer(refusal)) => {
                tracing::debug!(endpoint = %endpoint.name, %refusal, "no answer to a handshake");
                tried.push(endpoint);
                last = refusal;
                if tried.len() > upstream.config.retries {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// How asking one endpoint failed.
enum Failed {
    /// Another may be asked: nothing was answered.
    BeforeAnAnswer(Refusal),
    /// There was an answer, or no time is left.
    Finally(Refusal),
}

impl Failed {
    fn before_an_answer(error: crate::upstream::dial::DialError) -> Self {
        Self::BeforeAnAnswer(Refusal::Unreached(error))
    }
}

/// An endpoint's answer to a handshake.
enum Answer {
    Switched { stream: Stream, early: Bytes, head: Response<()> },
    Other(Response<Incoming>, tokio::task::AbortHandle),
}

/// Asks one endpoint. hyper's connection is polled here, in the same task, until the answer is
/// there; after a 101 it gives the stream back with what it had read beyond.
async fn ask(
    stream: Stream,
    request: Request<RequestBody>,
    handshake: &Handshake,
) -> Result<Answer, Failed> {
    let broken = |error: hyper::Error| {
        if error.is_parse() {
            Failed::Finally(Refusal::Broken(error))
        } else {
            Failed::BeforeAnAnswer(Refusal::Broken(error))
        }
    };
    let (mut sender, mut connection) =
        http1().handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut asking = std::pin::pin!(sender.send_request(request));
    let mut ended = None;
    let answer = std::future::poll_fn(|cx| {
        if ended.is_none()
            && let Poll::Ready(how) = connection.poll_without_shutdown(cx)
        {
            ended = Some(how);
        }
        asking.as_mut().poll(cx)
    })
    .await
    .map_err(broken)?;

    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let task = tokio::task::spawn_local(async move {
            if ended.is_none() {
                // How it ends, the reader of the body is told.
                let _ = connection.await;
            }
        });
        return Ok(Answer::Other(answer, task.abort_handle()));
    }
    let (mut head, _no_body) = answer.into_parts();
    handshake.check_answer(&head).map_err(|error| Failed::Finally(Refusal::Answer(error)))?;
    if ended.is_none() {
        std::future::poll_fn(|cx| connection.poll_without_shutdown(cx))
            .await
            .map_err(|error| Failed::Finally(Refusal::Broken(error)))?;
    }
    let parts = connection.into_parts();
    headers::to_client(&mut head, Hop::Handshake);
    let head = Response::from_parts(head, ());
    Ok(Answer::Switched { stream: parts.io.into_inner(), early: parts.read_buf, head })
}
