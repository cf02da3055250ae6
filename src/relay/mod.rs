//! The relay: two open legs joined until both directions are closed (RFC 6455 is `ws`'s business,
//! HTTP nobody's here).
//!
//! One task polls both directions of a session. Nobody owns a buffer while nothing is stuck in
//! it: a leg is read into the worker's scratch buffers and written to the other one at once; only
//! what the kernel does not take stays behind, with the leg it is for, and until that is gone its
//! source is not read. FIN is half-close and goes through; RST ends the other side at once.

mod direction;
mod legs;
pub mod sessions;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use crate::telemetry::record::{EndedBy, Record};
use crate::transport::Stream;
use direction::{Broken, Direction, Flow};
use legs::Leg;
use sessions::{Entry, Order, Sessions, Timeouts};

pub use legs::Scratch;

thread_local! {
    /// A worker's scratch buffers. They are lent to one poll of one session at a time.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// How often a side that is to be reset is asked whether it has received everything.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Joins two legs until both are closed, and notes in the record who ended it and why. `early`
/// bytes were read before the relay began, and go first.
pub async fn run(
    (client, early_from_client): (Stream, Bytes),
    (upstream, early_from_upstream): (Stream, Bytes),
    record: Record,
    timeouts: Timeouts,
    sessions: &Rc<Sessions>,
) {
    let session = sessions.open(record, timeouts);
    let relay = Relay {
        client: Leg::new(client, early_from_client),
        upstream: Leg::new(upstream, early_from_upstream),
        to_upstream: Direction::default(),
        to_client: Direction::default(),
        first_end: None,
        has_lost_one: false,
        lost: None,
        is_closing: false,
        session,
    };
    relay.await;
}

struct Relay {
    client: Leg,
    upstream: Leg,
    to_upstream: Direction,
    to_client: Direction,
    /// Who ended its direction first and how; the other may go on for long, and end worse.
    first_end: Option<(EndedBy, &'static str)>,
    /// A side takes nothing any more while the other has not ended.
    has_lost_one: bool,
    /// A side is gone, and the other has not received everything yet: when to look again.
    lost: Option<(EndedBy, Pin<Box<Sleep>>)>,
    /// Nothing more is relayed: both sides get their end behind what is stuck, and are waited for.
    is_closing: bool,
    session: Entry,
}

impl Future for Relay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.session.remember(cx.waker());
        if let Some(order) = this.session.take_order()
            && this.obey(order).is_ready()
        {
            return Poll::Ready(());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            if this.is_closing {
                this.poll_close(cx, scratch)
            } else if this.lost.is_some() {
                this.poll_lost(cx)
            } else {
                this.poll_relay(cx, scratch)
            }
        })
    }
}

impl Relay {
    fn poll_relay(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let session = &self.session;
        let up =
            self.to_upstream.poll(&mut self.client, &mut self.upstream, cx, scratch, |bytes| {
                session.active();
                session.record().add_to_upstream(bytes);
            });
        if let Poll::Ready(Flow::Broken(broken)) = up {
            if self.broken(broken, EndedBy::Client, EndedBy::Upstream).is_ready() {
                return Poll::Ready(());
            }
            if self.is_closing {
                return self.poll_close(cx, scratch);
            }
            if self.lost.is_some() {
                return self.poll_lost(cx);
            }
        }
        let session = &self.session;
        let down =
            self.to_client.poll(&mut self.upstream, &mut self.client, cx, scratch, |bytes| {
                session.active();
                session.record().add_to_client(bytes);
            });
        if let Poll::Ready(Flow::Broken(broken)) = down {
            if self.broken(broken, EndedBy::Upstream, EndedBy::Client).is_ready() {
                return Poll::Ready(());
            }
            if self.is_closing {
                return self.poll_close(cx, scratch);
            }
            if self.lost.is_some() {
                return self.poll_lost(cx);
            }
        }
        for (direction, from) in
            [(&self.to_upstream, EndedBy::Client), (&self.to_client, EndedBy::Upstream)]
        {
            if direction.is_closed() {
                let why = if direction.is_truncated() { "truncated" } else { "closed" };
                self.first_end.get_or_insert((from, why));
                self.session.half_closed();
            }
        }
        self.session.stuck(self.client.is_stuck() || self.upstream.is_stuck());
        if !(self.to_upstream.is_closed() && self.to_client.is_closed()) {
            return Poll::Pending;
        }
        if let Some((by, why)) = self.first_end {
            self.session.record().ended(by, why);
        }
        if self.has_lost_one {
            // The other may still be sending to it. Closing on unread input would be a reset, and
            // take with it what that one has not received yet.
            self.is_closing = true;
            return self.poll_close(cx, scratch);
        }
        Poll::Ready(())
    }

    /// One direction cannot go on. Ready if that is the end of the session.
    fn broken(&mut self, broken: Broken, from: EndedBy, to: EndedBy) -> Poll<()> {
        match broken {
            Broken::Source(error) => self.lost(from, &why(&error)),
            // Nothing more can be said to this side, but what it said before it went, its Close
            // perhaps, may still wait to be read: the other direction runs to its end.
            Broken::Destination(error) => {
                if error.kind() == io::ErrorKind::QuotaExceeded {
                    self.session.record().ended(EndedBy::Tidegate, error);
                    self.is_closing = true;
                    self.session.closing();
                    return Poll::Pending;
                }
                self.session.record().ended(to, why(&error));
                self.session.half_closed();
                self.has_lost_one = true;
                Poll::Pending
            }
        }
    }

    /// One side is gone, and the other is to learn it by a reset: at once, unless something of
    /// what the lost one said is still on its way to it, which a reset would take back.
    fn lost(&mut self, who: EndedBy, why: &str) -> Poll<()> {
        self.session.record().ended(who, why);
        let other = if who == EndedBy::Client { &self.upstream } else { &self.client };
        if other.is_delivered() {
            other.reset();
            return Poll::Ready(());
        }
        self.session.half_closed();
        self.lost = Some((who, Box::pin(sleep(LOOK_AGAIN))));
        Poll::Pending
    }

    /// Waits until the side that is left has everything, and resets it.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((who, look)) = &mut self.lost else { return Poll::Ready(()) };
        let other = if *who == EndedBy::Client { &mut self.upstream } else { &mut self.client };
        loop {
            if let Poll::Ready(Err(_)) = other.poll_flush(cx) {
                return Poll::Ready(());
            }
            if other.is_delivered() {
                other.reset();
                return Poll::Ready(());
            }
            // The kernel has no word for "everything has arrived".
            ready!(look.as_mut().poll(cx));
            look.as_mut().reset(Instant::now() + LOOK_AGAIN);
        }
    }

    fn obey(&mut self, order: Order) -> Poll<()> {
        match order {
            Order::End(why) => {
                self.session.record().ended(EndedBy::Tidegate, why);
                self.is_closing = true;
                self.session.closing();
                Poll::Pending
            }
            // It is known already.
            Order::Look if self.lost.is_some() || self.is_closing => Poll::Pending,
            Order::Look if self.client.is_reset() => self.lost(EndedBy::Client, "reset"),
            Order::Look if self.upstream.is_reset() => self.lost(EndedBy::Upstream, "reset"),
            Order::Look => Poll::Pending,
            // What the kernels have not delivered yet, they still may.
            Order::Cut(why) => {
                self.session.record().ended(EndedBy::Tidegate, why);
                Poll::Ready(())
            }
        }
    }

    /// Gives both sides their FIN behind what is stuck, and waits for theirs.
    fn poll_close(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let client = self.client.poll_close(cx, scratch);
        let upstream = self.upstream.poll_close(cx, scratch);
        if client.is_ready() && upstream.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// How the log names the end of a connection.
fn why(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted => "reset".into(),
        Kind::TimedOut => "lost: the network is silent".into(),
        // What TLS says of a record that cannot be opened, for one.
        _ => format!("lost: {error}"),
    }
}
