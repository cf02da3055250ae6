//! What a client's connection is doing: which deadline holds, and whose words are being written.

use std::cell::{Cell, RefCell};
use std::fmt;

use http::StatusCode;
use tokio::time::Instant;

use super::body::Progress;
use crate::config;

/// What a connection is doing, as its deadlines see it.
#[derive(Debug)]
pub struct Activity {
    doing: Cell<Doing>,
    /// hyper's own bare answer to what is no HTTP, which we kept back to say it better.
    kept_back: Cell<Option<StatusCode>>,
    is_switched: Cell<bool>,
    /// Since when the client has taken nothing of what is to be written.
    stalled: Cell<Option<Instant>>,
    /// The request's body, where the answer has begun before its end.
    upload: RefCell<Option<Progress>>,
    given_up: Cell<Option<Overdue>>,
    /// When the request being answered is to be looked at again, if nothing happens before.
    reminder: Cell<Option<Instant>>,
    /// That time has come, and nobody has looked yet.
    is_reminded: Cell<bool>,
}

#[derive(Debug, Clone, Copy)]
enum Doing {
    /// Nothing has been asked on it yet.
    New(Instant),
    /// A head has begun to come.
    Head(Instant),
    /// A request is being answered.
    Answering,
    /// The answer is in hyper's hands, and not yet all in the kernel's.
    Flushing,
    /// The last answer has been given.
    Idle(Instant),
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            doing: Cell::new(Doing::New(Instant::now())),
            kept_back: Cell::new(None),
            is_switched: Cell::new(false),
            stalled: Cell::new(None),
            upload: RefCell::new(None),
            given_up: Cell::new(None),
            reminder: Cell::new(None),
            is_reminded: Cell::new(false),
        }
    }

    /// Whether nothing has come on it yet.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.doing.get(), Doing::New(_))
    }

    /// A request is being answered.
    pub(super) fn asked(&self) {
        self.doing.set(Doing::Answering);
    }

    /// The answer begins; the request's body may still be coming.
    pub(super) fn answers_upload(&self, progress: Progress) {
        *self.upload.borrow_mut() = Some(progress);
    }

    /// The connection is closed in the middle of its answer, for this reason.
    pub(super) fn given_up(&self, overdue: Overdue) {
        self.given_up.set(Some(overdue));
    }

    /// Why it is, if it is.
    pub(super) fn why_given_up(&self) -> Option<Overdue> {
        self.given_up.get()
    }

    /// The request is to be polled again at this time at the latest, and to find itself reminded
    /// then; `None` takes that back. It is the connection's own timer that looks after it, which is
    /// hardly ever set anew: a timer for each request would be.
    pub(super) fn remind(&self, at: Option<Instant>) {
        self.reminder.set(at);
        self.is_reminded.set(false);
    }

    /// When the request wants to be reminded, if it does.
    pub(super) fn reminder(&self) -> Option<Instant> {
        self.reminder.get()
    }

    /// Whether the time for which the request wanted to be reminded has come.
    pub(super) fn is_reminded(&self) -> bool {
        self.is_reminded.get()
    }

    /// The answer has been handed to hyper to its last byte, or will never be.
    pub(super) fn answered(&self) {
        self.upload.take();
        self.doing.set(Doing::Flushing);
    }

    /// Nothing is left to be written.
    pub(super) fn flushed(&self) {
        if let Doing::Flushing = self.doing.get() {
            self.doing.set(Doing::Idle(Instant::now()));
        }
    }

    /// A write has come to something, or could not.
    pub(super) fn written(&self, has_moved: bool) {
        if has_moved {
            self.stalled.set(None);
        } else if self.stalled.get().is_none() {
            self.stalled.set(Some(Instant::now()));
        }
    }

    /// The answer being given is a 101 that we mean: hyper takes any `Upgrade` for a wish and any
    /// 101 for consent, we do not.
    pub fn switch(&self) {
        self.is_switched.set(true);
    }

    /// Whether the connection is ours from here on.
    pub fn is_switched(&self) -> bool {
        self.is_switched.get()
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        if let Doing::New(_) | Doing::Idle(_) = self.doing.get() {
            self.doing.set(Doing::Head(Instant::now()));
        }
    }

    /// When to look again, or what has taken too long.
    pub(super) fn next_deadline(&self, limits: &config::Limits) -> Result<Instant, Overdue> {
        let now = Instant::now();
        if self.reminder.get().is_some_and(|at| at <= now) {
            self.reminder.set(None);
            self.is_reminded.set(true);
        }
        let (until, overdue) = match self.doing.get() {
            Doing::New(since) => (since + limits.header_timeout, Overdue::NextRequest),
            Doing::Head(since) => (since + limits.header_timeout, Overdue::Head),
            Doing::Idle(since) => (since + limits.keep_alive, Overdue::NextRequest),
            Doing::Answering | Doing::Flushing => match self.stalled.get() {
                Some(since) => (since + limits.send_timeout, Overdue::Reader),
                None => match self.upload.borrow().as_ref().and_then(Progress::awaited_since) {
                    Some(since) => (since + limits.body_timeout, Overdue::Body),
                    None => return Ok(soonest(limits)),
                },
            },
        };
        if until > now { Ok(until.min(soonest(limits))) } else { Err(overdue) }
    }

    /// Whether `bytes` are hyper's own answer to what is no HTTP: a bare error, written while
    /// nobody is being answered. Ours all have a `Via`.
    pub(super) fn is_bare_refusal(&self, bytes: &[u8]) -> Option<StatusCode> {
        if matches!(self.doing.get(), Doing::Answering | Doing::Flushing) || bytes.len() > 256 {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?.to_ascii_lowercase();
        let is_bare = text.ends_with("\r\n\r\n")
            && text.contains("\r\ncontent-length: 0\r\n")
            && !text.contains("\r\nvia:");
        let status = text.strip_prefix("http/1.1 4").filter(|_| is_bare)?.get(..2)?;
        StatusCode::from_bytes(format!("4{status}").as_bytes()).ok()
    }

    /// hyper's bare answer was kept back.
    pub(super) fn keep_back(&self, status: StatusCode) {
        self.kept_back.set(Some(status));
    }

    /// The status of what was kept back.
    pub(super) fn kept_back(&self) -> Option<StatusCode> {
        self.kept_back.get()
    }
}

/// When to look again, so that whatever comes next is found late in time.
pub(super) fn soonest(limits: &config::Limits) -> Instant {
    Instant::now()
        + limits
            .header_timeout
            .min(limits.keep_alive)
            .min(limits.send_timeout)
            .min(limits.body_timeout)
}

/// What has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A head that has begun.
    Head,
    /// The first, or the next, request.
    NextRequest,
    /// The client's reading of an answer.
    Reader,
    /// The rest of a request whose answer has begun.
    Body,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head | Self::NextRequest => "no request came in time",
            Self::Reader => "the client took nothing of it within `send_timeout`",
            Self::Body => "the rest of the request did not come within `body_timeout`",
        })
    }
}
