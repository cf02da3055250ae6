//! Bodies on their way through: a client's towards an endpoint, and the answer back. They are
//! counted, never gathered.

use std::cell::Cell;
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::activity::Activity;
use super::connection::Connection;
use super::headers;
use super::pool::Pool;
use super::respond;
use crate::telemetry::record::{Record, Side};
use crate::upstream::endpoint::InFlight;

/// The body of a client's request, if it has one.
#[derive(Debug)]
pub struct RequestBody(Option<Coming>);

#[derive(Debug)]
struct Coming {
    incoming: Incoming,
    record: Record,
    gate: Option<oneshot::Receiver<()>>,
    progress: Rc<ProgressCells>,
}

/// How far a request's body has come; shared with whoever waits for the answer. `None` where there
/// is none, as most requests have it.
#[derive(Debug, Clone)]
pub struct Progress(Option<Rc<ProgressCells>>);

#[derive(Debug, Default)]
struct ProgressCells {
    is_sent: Cell<bool>,
    is_awaited: Cell<bool>,
    awaited_since: Cell<Option<Instant>>,
    is_broken: Cell<bool>,
    last: Cell<Option<Instant>>,
}

impl Progress {
    /// Whether there is a body at all.
    pub fn has_body(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the whole body has been handed on.
    pub fn is_sent(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_sent.get())
    }

    /// Whether the endpoint has room for more of it, and it does not come.
    pub fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|body| body.is_awaited.get())
    }

    /// Whether the client ended it too early, or with something that is no body.
    pub fn is_broken(&self) -> bool {
        self.0.as_ref().is_some_and(|body| body.is_broken.get())
    }

    /// Since when the endpoint has waited for more of it, if it does.
    pub(super) fn awaited_since(&self) -> Option<Instant> {
        let is_awaited = self.is_awaited() && !self.is_sent();
        self.0.as_ref()?.awaited_since.get().filter(|_| is_awaited)
    }

    /// When the last piece of it was handed on.
    pub fn last(&self) -> Option<Instant> {
        self.0.as_ref()?.last.get()
    }
}

/// Opens the gate in front of a body, once; dropping the last clone opens it too.
#[derive(Debug, Clone)]
pub struct Opener(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl Opener {
    /// Lets the body through.
    pub fn open(&self) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // The body may be gone already, and then there is nothing to let through.
            let _ = sender.send(());
        }
    }
}

impl RequestBody {
    /// A body that is passed on as it comes.
    pub fn new(incoming: Incoming, record: &Record) -> (Self, Progress) {
        if incoming.is_end_stream() {
            return (Self::empty(), Progress(None));
        }
        let progress = Rc::new(ProgressCells::default());
        let record = record.clone();
        let coming = Coming { incoming, record, gate: None, progress: progress.clone() };
        (Self(Some(coming)), Progress(Some(progress)))
    }

    /// No body.
    pub fn empty() -> Self {
        Self(None)
    }

    /// Holds the body back until the gate is opened: a client that expects `100 (Continue)` is
    /// told to go on by hyper as soon as its body is asked for (RFC 9110 §10.1.1).
    pub fn hold_back(&mut self) -> Opener {
        let (sender, receiver) = oneshot::channel();
        if let Some(coming) = &mut self.0 {
            coming.gate = Some(receiver);
        }
        Opener(Arc::new(Mutex::new(Some(sender))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(Coming { incoming, record, gate, progress }) = &mut self.get_mut().0 else {
            return Poll::Ready(None);
        };
        if let Some(closed) = gate {
            // An error means that the opener is gone, which opens it too.
            let _ = ready!(Pin::new(closed).poll(cx));
            *gate = None;
        }
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        if polled.is_pending() && !progress.is_awaited.get() {
            progress.awaited_since.set(Some(Instant::now()));
        }
        progress.is_awaited.set(polled.is_pending());
        let mut frame = ready!(polled);
        end_hop(&mut frame);
        if let Some(Ok(frame)) = &frame {
            record.relayed(Side::Client, data_len(frame));
            progress.last.set(Some(Instant::now()));
        }
        progress.is_broken.set(matches!(frame, Some(Err(_))));
        progress.is_sent.set(is_last(&frame) || incoming.is_end_stream());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|coming| coming.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let nothing = || SizeHint::with_exact(0);
        self.0.as_ref().map_or_else(nothing, |coming| coming.incoming.size_hint())
    }
}

/// Whether nothing follows: the end itself, or the trailers before it.
fn is_last(frame: &Option<Result<Frame<Bytes>, hyper::Error>>) -> bool {
    frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers))
}

/// Trailers go on without what was for this hop.
fn end_hop(frame: &mut Option<Result<Frame<Bytes>, hyper::Error>>) {
    if let Some(Ok(frame)) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        headers::end_hop_of_trailers(trailers);
    }
}

fn data_len(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

/// The body of an answer, and what must last as long as it does.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    record: Option<Record>,
    activity: Option<Rc<Activity>>,
}

#[derive(Debug)]
enum Source {
    Own(Full<Bytes>),
    Upstream(Relayed),
}

/// An answer that an endpoint is giving.
#[derive(Debug)]
struct Relayed {
    incoming: Incoming,
    is_read: bool,
    /// Why it broke off, which is told a little later.
    broken_off: Option<hyper::Error>,
    in_flight: InFlight,
    then: Then,
}

/// What becomes of an endpoint's connection after its answer.
#[derive(Debug)]
pub enum Then {
    /// It is kept for the next request, if this one has been sent and answered in full; without a
    /// pool, it has no next one.
    Keep(Option<Rc<Pool>>, Option<Connection>, Progress),
    /// It is closed.
    Close(AbortHandle),
}

impl ResponseBody {
    /// An answer of our own.
    pub fn own(text: Bytes) -> Self {
        Self { source: Source::Own(Full::new(text)), record: None, activity: None }
    }

    /// An endpoint's answer.
    pub fn relayed(incoming: Incoming, in_flight: InFlight, then: Then) -> Self {
        let relayed = Relayed { incoming, is_read: false, broken_off: None, in_flight, then };
        Self { source: Source::Upstream(relayed), record: None, activity: None }
    }

    /// Keeps the record open, and the connection marked as busy, until the body is gone.
    pub fn on_behalf_of(mut self, record: Record, activity: Rc<Activity>) -> Self {
        if let Source::Upstream(Relayed { then: Then::Keep(_, _, progress), .. }) = &self.source
            && !progress.is_sent()
        {
            activity.answers_upload(progress.clone());
        }
        self.record = Some(record);
        self.activity = Some(activity);
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Own(full) => match ready!(Pin::new(full).poll_frame(cx)) {
                Some(Ok(frame)) => Some(Ok(frame)),
                Some(Err(never)) => match never {},
                None => None,
            },
            Source::Upstream(relayed) => {
                let mut frame = ready!(relayed.poll_frame(cx));
                end_hop(&mut frame);
                relayed.is_read = is_last(&frame) || relayed.incoming.is_end_stream();
                frame
            }
        };
        match (&frame, &this.record) {
            (Some(Ok(frame)), Some(record)) => record.relayed(Side::Upstream, data_len(frame)),
            (Some(Err(error)), Some(record)) => {
                let why = respond::chain(error);
                record.reason(format_args!("the upstream's answer broke off: {why}"));
            }
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(full) => full.is_end_stream(),
            Source::Upstream(relayed) => relayed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(full) => full.size_hint(),
            Source::Upstream(relayed) => relayed.incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let Some(activity) = &self.activity else { return };
        if let (Some(overdue), Some(record)) = (activity.why_given_up(), &self.record) {
            record.reason(format_args!("the answer was broken off: {overdue}"));
        }
        activity.answered();
    }
}

impl Relayed {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken_off.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = match &mut self.then {
            Then::Keep(_, Some(connection), _) => connection.poll_body(&mut self.incoming, cx),
            Then::Keep(_, None, _) | Then::Close(_) => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        if let Poll::Ready(Some(Err(error))) = polled {
            // hyper forgets what it has not written when it hears of this, be it the answer's whole
            // beginning. It writes while it waits for more.
            self.broken_off = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        let is_read = self.is_read || self.incoming.is_end_stream();
        match &mut self.then {
            Then::Keep(pool, connection, progress) => {
                let connection = connection.take().filter(|_| is_read && progress.is_sent());
                match (pool, connection) {
                    (Some(pool), Some(connection)) => {
                        pool.keep(self.in_flight.endpoint(), connection);
                    }
                    (None, Some(connection)) => connection.close_in_order(),
                    (_, None) => {}
                }
            }
            Then::Close(task) if !is_read => task.abort(),
            Then::Close(_) => {}
        }
    }
}
