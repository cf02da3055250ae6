//! A connection to an endpoint for ordinary requests, one after the other. hyper speaks HTTP on it,
//! and whoever uses it polls hyper, in passing; only where nobody could is there a task for it.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, coop};

use super::body::RequestBody;
use crate::transport::Stream;

/// A connection to an endpoint that takes one request after the other. Dropping it closes it at
/// once, whatever it is doing.
#[derive(Debug)]
pub struct Connection(Box<Parts>);

/// Boxed, as they are handed from the pool to a request to an answer's body and back.
#[derive(Debug)]
struct Parts {
    sender: SendRequest<RequestBody>,
    driver: Driver,
    /// What hyper wakes, for as long as the driver is [`Driver::Here`].
    bell: Arc<Bell>,
    /// The same.
    waker: Waker,
    opened: Instant,
}

/// What a request comes to with hyper; a failure has the request if nothing of it was sent.
type Came = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// The same failure. Boxed, as it is large and an answer is what is handed on.
pub type Failure = Box<TrySendError<Request<RequestBody>>>;

type Http = http1::Connection<TokioIo<StillReadable>, RequestBody>;

/// Who polls hyper's connection, without which nothing is sent or read.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is the usual one, and boxed with the rest")]
enum Driver {
    /// Whoever uses it, in passing: the request that waits for its answer, then the reader of the
    /// answer's body. It costs no task and wakes none.
    Here(Http),
    /// A task of its own.
    Elsewhere(AbortHandle),
    /// Nobody, as it is over.
    Over,
}

/// How we speak HTTP/1.1 to endpoints: names of headers as the client wrote them, ours in the
/// usual case.
pub fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(true).title_case_headers(true);
    builder
}

impl Connection {
    /// Speaks HTTP/1.1 over `stream`.
    ///
    /// # Errors
    ///
    /// What hyper says.
    pub async fn over(stream: Stream) -> Result<Self, hyper::Error> {
        let io = TokioIo::new(StillReadable { stream, is_refusing: false });
        let (sender, http) = http1().handshake(io).await?;
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let opened = Instant::now();
        Ok(Self(Box::new(Parts { sender, driver: Driver::Here(http), bell, waker, opened })))
    }

    /// Takes a request, which goes out when its answer is polled for the first time.
    pub fn ask(&mut self, request: Request<RequestBody>) -> impl Future<Output = Came> + use<> {
        let parts = &mut *self.0;
        // Nobody is to be woken who polls it anyway.
        parts.bell.muted(|| parts.sender.try_send_request(request))
    }

    /// The answer to what was asked; its body may still be coming.
    ///
    /// # Errors
    ///
    /// What hyper says, with the request if nothing of it was sent.
    pub fn poll_answer(
        &mut self,
        asked: Pin<&mut impl Future<Output = Came>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Incoming>, Failure>> {
        // Whatever changes for the answer, it does so while the connection is polled; but where that
        // has used up what the task may do at once, the answer is not even looked at.
        let mut nobody = Context::from_waker(Waker::noop());
        let is_to_be_woken = self.progress(cx) || !coop::has_budget_remaining();
        let cx = if is_to_be_woken { cx } else { &mut nobody };
        asked.poll(cx).map_err(Box::new)
    }

    /// The next of an answer's body.
    pub fn poll_body(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut incoming = Pin::new(incoming);
        if let Driver::Elsewhere(_) = self.0.driver {
            return incoming.poll_frame(cx);
        }
        let mut nobody = Context::from_waker(Waker::noop());
        // hyper would have itself woken for each piece that is taken, which we ask for more anyway.
        let taken = self.0.bell.muted(|| incoming.as_mut().poll_frame(&mut nobody));
        if taken.is_ready() {
            return taken;
        }
        self.progress(cx);
        self.0.bell.muted(|| incoming.poll_frame(&mut nobody))
    }

    /// Lets hyper send and read what it can, and wakes this task when there is more. Returns
    /// whether another task does so.
    fn progress(&mut self, cx: &Context<'_>) -> bool {
        let parts = &mut *self.0;
        let http = match &mut parts.driver {
            Driver::Here(http) => http,
            Driver::Elsewhere(_) => return true,
            Driver::Over => return false,
        };
        parts.bell.is_heard();
        parts.bell.calls(cx.waker());
        if let Poll::Ready(ended) = Pin::new(http).poll(&mut Context::from_waker(&parts.waker)) {
            log_end(ended);
            // What is still owed to the request or the reader of the answer, it gets by this.
            parts.driver = Driver::Over;
        }
        false
    }

    /// Whether the last request has been sent and answered in full, and the next may follow.
    pub fn is_idle(&self) -> bool {
        self.0.sender.is_ready()
    }

    /// Goes on without being asked from here on: needed where a request is still being sent while
    /// its answer comes, since both directions may wait for one another, or where nobody is left
    /// who would ask.
    pub fn go_on_alone(&mut self) {
        match mem::replace(&mut self.0.driver, Driver::Over) {
            Driver::Here(http) => {
                let task = tokio::task::spawn_local(async move { log_end(http.await) });
                self.0.driver = Driver::Elsewhere(task.abort_handle());
                // Of no use any more, and it would keep its task's memory.
                self.0.bell.calls(Waker::noop());
            }
            other => self.0.driver = other,
        }
    }

    /// Closes it as soon as nothing is to be sent any more, and says so first where that is usual.
    pub fn close_in_order(mut self) {
        self.go_on_alone();
        // Without a sender hyper says goodbye by itself.
        self.0.driver = Driver::Over;
    }

    /// Is kept: nobody is there who would look after it at once.
    pub(super) fn rest(&mut self) {
        if self.is_idle() {
            self.0.bell.calls(Waker::noop());
        } else {
            // The end of the request is still to be sent, or the connection to be closed.
            self.go_on_alone();
        }
    }

    /// Whether it was opened before then.
    pub(super) fn is_outdated(&self, cleared: Option<Instant>) -> bool {
        cleared.is_some_and(|cleared| self.0.opened < cleared)
    }

    /// Looks whether the endpoint has closed it, if anything has happened since it was last used.
    /// Returns whether it is still open.
    pub(super) fn is_still_open(&mut self) -> bool {
        if self.0.bell.has_rung() {
            self.progress(&Context::from_waker(Waker::noop()));
        }
        !self.is_over()
    }

    /// Whether nothing can be asked on it any more, as far as is known.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.0.driver, Driver::Over) || self.0.sender.is_closed()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Driver::Elsewhere(task) = &self.driver {
            task.abort();
        }
    }
}

fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an upstream connection ended");
    }
}

/// What hyper's connection wakes: whoever uses it now, or else a note that something has happened.
/// It stays the same for the connection's whole life, while the users come and go, so nobody is
/// woken who has nothing to do with it any more.
#[derive(Debug)]
struct Bell {
    calls: Mutex<Waker>,
    has_rung: AtomicBool,
    is_muted: AtomicBool,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            calls: Mutex::new(Waker::noop().clone()),
            has_rung: AtomicBool::default(),
            is_muted: AtomicBool::default(),
        }
    }
}

impl Bell {
    /// Somebody is about to look for himself.
    fn is_heard(&self) {
        self.has_rung.store(false, Ordering::Relaxed);
    }

    /// From here on it wakes `waker`.
    fn calls(&self, waker: &Waker) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if !calls.will_wake(waker) {
            calls.clone_from(waker);
        }
    }

    /// Whether something has happened since anybody looked.
    fn has_rung(&self) -> bool {
        self.has_rung.load(Ordering::Relaxed)
    }

    /// Does what would only wake the task that does it.
    fn muted<T>(&self, quietly: impl FnOnce() -> T) -> T {
        self.is_muted.store(true, Ordering::Relaxed);
        let done = quietly();
        self.is_muted.store(false, Ordering::Relaxed);
        done
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // All that wakes a worker's connections happens on its own thread, so that nothing else
        // can be missed meanwhile.
        if self.is_muted.load(Ordering::Relaxed) {
            return;
        }
        self.has_rung.store(true, Ordering::Relaxed);
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

/// A stream whose failing writes go nowhere, so that what the endpoint said before it hung up is
/// read all the same. hyper stops reading when a write fails, and an endpoint that answers early
/// (413, say) and closes while a body is on its way to it makes writes fail. If it said nothing,
/// the end of the stream tells.
#[derive(Debug)]
struct StillReadable {
    stream: Stream,
    is_refusing: bool,
}

impl StillReadable {
    fn forgive(&mut self, written: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "an endpoint takes no more of a request");
                self.is_refusing = true;
                Poll::Ready(Ok(len))
            }
            other => other,
        }
    }
}

impl AsyncRead for StillReadable {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for StillReadable {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_refusing {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.forgive(written, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let len = slices.iter().map(|slice| slice.len()).sum();
        if this.is_refusing {
            return Poll::Ready(Ok(len));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.forgive(written, len)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_refusing {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;
    use crate::transport::Socket;

    /// Of what a task may do at once (tokio's `coop`).
    const BUDGET: usize = 128;

    /// However little of its turn is left to a task when the answer comes, it does not wait for it
    /// any longer.
    #[tokio::test]
    async fn an_answer_that_comes_with_the_last_of_a_turn_is_not_left_lying() {
        LocalSet::new().run_until(answers_with_little_left()).await;
    }

    async fn answers_with_little_left() {
        for left in 0..8 {
            let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
            let stream = Stream::Plain(Socket::Unix(ours));
            let mut connection = Connection::over(stream).await.expect("nothing is said yet");
            let mut asked = Box::pin(connection.ask(Request::new(RequestBody::empty())));
            let to_use_up = Rc::new(Cell::new(0));
            let to_be_used_up = to_use_up.clone();
            let answering = spawn_local(poll_fn(move |cx| {
                for _ in 0..to_be_used_up.take() {
                    let _ = coop::poll_proceed(cx).map(|share| share.made_progress());
                }
                connection.poll_answer(asked.as_mut(), cx).map_ok(|answer| answer.status())
            }));
            for _ in 0..10 {
                yield_now().await;
            }
            to_use_up.set(BUDGET - left);
            let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbeg";
            theirs.write_all(begun).await.expect("room");
            for _ in 0..100 {
                yield_now().await;
            }
            assert!(answering.is_finished(), "it was left lying with {left} left");
            assert!(answering.await.expect("no panic").is_ok());
        }
    }
}
