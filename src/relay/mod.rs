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
use std::task::{Context, Poll};

use bytes::Bytes;

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
    /// We are ending the session: both sides have been or are being told, and nothing more is
    /// relayed.
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
        if let Poll::Ready(Flow::Broken(broken)) = up
            && self.broken(broken, EndedBy::Client, EndedBy::Upstream).is_ready()
        {
            return Poll::Ready(());
        }
        let session = &self.session;
        let down =
            self.to_client.poll(&mut self.upstream, &mut self.client, cx, scratch, |bytes| {
                session.active();
                session.record().add_to_client(bytes);
            });
        if let Poll::Ready(Flow::Broken(broken)) = down
            && self.broken(broken, EndedBy::Upstream, EndedBy::Client).is_ready()
        {
            return Poll::Ready(());
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
        Poll::Ready(())
    }

    /// One direction cannot go on. Ready if that is the end of the session.
    fn broken(&mut self, broken: Broken, from: EndedBy, to: EndedBy) -> Poll<()> {
        let record = self.session.record();
        match broken {
            // What the source sent before is with the other side already, or stuck on the way to
            // it, which a reset is not going to wait for.
            Broken::Source(error) => {
                record.ended(from, why(&error));
                self.client.reset();
                self.upstream.reset();
                Poll::Ready(())
            }
            // Nothing more can be said to this side, but what it said before it went, its Close
            // perhaps, may still wait to be read: the other direction runs to its end.
            Broken::Destination(error) => {
                record.ended(to, why(&error));
                self.session.half_closed();
                if self.to_upstream.is_closed() && self.to_client.is_closed() {
                    return Poll::Ready(());
                }
                Poll::Pending
            }
        }
    }

    fn obey(&mut self, order: Order) -> Poll<()> {
        let record = self.session.record();
        match order {
            Order::End(why) => {
                record.ended(EndedBy::Tidegate, why);
                self.is_closing = true;
                self.session.closing();
                Poll::Pending
            }
            Order::Look => {
                let lost = match (self.client.is_reset(), self.upstream.is_reset()) {
                    (false, false) => return Poll::Pending,
                    (true, _) => EndedBy::Client,
                    (false, true) => EndedBy::Upstream,
                };
                record.ended(lost, "reset");
                self.client.reset();
                self.upstream.reset();
                Poll::Ready(())
            }
            Order::Cut(why) => {
                record.ended(EndedBy::Tidegate, why);
                self.client.reset();
                self.upstream.reset();
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
