//! Owns a client's connection from its first byte until it is closed or upgraded.
//!
//! hyper reads and writes HTTP; what it leaves to others is here: how long a head may take and an
//! idle connection is kept, the drain, an answer with a reason where hyper's own would be bare,
//! and a close that does not run over the last answer. After a 101 the connection is taken out of
//! hyper's hands, together with what it had read beyond the handshake.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::{sleep_until, timeout};

use super::activity::{Activity, Overdue, soonest};
use super::body::ResponseBody;
use super::respond::{self, Refusal};
use crate::config;
use crate::lifecycle::phases::Drain;
use crate::telemetry::record::Record;
use crate::transport::Stream;

/// hyper reads heads and bodies into one buffer; bodies are better off with a large one. The
/// limit on heads is a setting of its own.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long a client may go on sending after our last answer, without a pause of more than
/// `LINGER_PAUSE`: closing before it has stopped would reset the connection, and the answer with it.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// What remains of a connection when hyper has let go of it.
#[derive(Debug)]
pub struct LetGo {
    /// The connection.
    pub stream: Stream,
    /// What the client sent behind its last request.
    pub early: Bytes,
}

/// Serves requests until the connection is over; `answer` gives the answer to each. Returns the
/// connection if it may have been upgraded, which whoever answered knows: it has neither been
/// closed nor has anything gone wrong with it.
pub async fn serve<A, F>(
    stream: Stream,
    limits: &config::Limits,
    drain: &Drain,
    record: impl Fn() -> Record,
    answer: A,
) -> Option<LetGo>
where
    A: Fn(Request<Incoming>, Rc<Activity>) -> F,
    F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
{
    let activity = Rc::new(Activity::new());
    let watched = Watched { stream, activity: activity.clone() };
    let service = service_fn(|request| {
        activity.asked();
        // hyper wants to move it while it is polled.
        Box::pin(answer(request, activity.clone()))
    });
    let head_bytes = usize::try_from(limits.header_bytes.bytes()).unwrap_or(BUFFER_BYTES);
    let mut connection = http1::Builder::new()
        .preserve_header_case(true)
        .title_case_headers(true)
        .max_buf_size(BUFFER_BYTES.max(head_bytes))
        .max_header_size(head_bytes)
        .serve_connection(TokioIo::new(watched), service);

    let mut due = pin!(sleep_until(soonest(limits)));
    let mut leaving = pin!(drain.leaving_after(|| activity.is_new()));
    let mut is_leaving = false;
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(Ended::Http(ended));
            }
            // Not over a 101: what is asked on it from then on is none of hyper's business.
            if !is_leaving && !activity.is_switched() && leaving.as_mut().poll(cx).is_ready() {
                is_leaving = true;
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            if let Some(at) = activity.reminder().filter(|at| *at < due.deadline()) {
                due.as_mut().reset(at);
            }
            // Whatever the connection has left of the task's budget: one that is always busy, as with
            // an endpoint that says nothing but `103 (Early Hints)`, would never find itself late.
            if pin!(unconstrained(due.as_mut())).poll(cx).is_ready() {
                match activity.next_deadline(limits) {
                    Ok(later) => due.as_mut().reset(later),
                    Err(overdue) => return Poll::Ready(Ended::Late(overdue)),
                }
                continue;
            }
            return Poll::Pending;
        }
    })
    .await;

    let refusal = match ended {
        Ended::Http(Ok(())) if activity.is_switched() => {
            let parts = connection.into_parts();
            let stream = parts.io.into_inner().stream;
            return Some(LetGo { stream, early: parts.read_buf });
        }
        Ended::Http(Ok(())) => {
            // What hyper has still to write is written only now; a reader may take its time.
            let flushed = poll_fn(|cx| Pin::new(&mut connection).poll(cx));
            let _ = timeout(limits.send_timeout, flushed).await;
            None
        }
        Ended::Http(Err(error)) => match refusal_for(&error, &activity) {
            Some(refusal) => Some(refusal),
            None => {
                let stream = connection.into_parts().io.into_inner().stream;
                if error.is_user() {
                    // An answer that broke off must not look as if it were complete.
                    stream.socket().reset_on_close();
                }
                return None;
            }
        },
        Ended::Late(Overdue::Head) => Some(Refusal::SlowHead),
        Ended::Late(Overdue::NextRequest) => None,
        Ended::Late(overdue @ (Overdue::Reader | Overdue::Body)) => {
            activity.given_up(overdue);
            // What the kernel holds for it would be held for as long again; and an answer that
            // breaks off must not look as if it were complete.
            connection.into_parts().io.into_inner().stream.socket().reset_on_close();
            return None;
        }
    };
    let last_words = refusal.map(|refusal| respond::in_bytes(&refusal, &record()));
    close(connection.into_parts().io.into_inner().stream, last_words).await;
    None
}

/// Why serving is over.
enum Ended {
    /// hyper says so.
    Http(Result<(), hyper::Error>),
    /// Something took too long.
    Late(Overdue),
}

/// What to tell a client whose connection hyper gave up with `error`, in the place of hyper's own
/// bare answer, where it gave one.
fn refusal_for(error: &hyper::Error, activity: &Activity) -> Option<Refusal> {
    match activity.kept_back()? {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Some(Refusal::LargeHead),
        StatusCode::URI_TOO_LONG => Some(Refusal::LongTarget),
        _ => Some(Refusal::Malformed(error.to_string())),
    }
}

/// Says what is left to say, and closes so that the client can read it.
pub async fn close(mut stream: Stream, last_words: Option<Vec<u8>>) {
    let closing = async {
        if let Some(bytes) = last_words {
            stream.write_all(&bytes).await?;
        }
        stream.shutdown().await?;
        let mut rest = [0; 2048];
        while let Ok(read) = timeout(LINGER_PAUSE, stream.read(&mut rest)).await {
            if read? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Whatever happens to a connection that is being closed, it is closed.
    let _ = timeout(LINGER, closing).await;
}

/// A client's stream that tells [`Activity`] what goes on.
struct Watched {
    stream: Stream,
    activity: Rc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.activity.received();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(status) = this.activity.is_bare_refusal(bytes) {
            this.activity.keep_back(status);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.activity.written(written.is_ready());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [only] => self.poll_write(cx, only),
            _ => {
                let this = self.get_mut();
                let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
                this.activity.written(written.is_ready());
                written
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.activity.written(flushed.is_ready());
        if flushed.is_ready() {
            this.activity.flushed();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
