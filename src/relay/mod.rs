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
        deaf: None,
        stage: Stage::Relaying,
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
    first_end: Option<(Side, &'static str)>,
    /// The side that takes nothing any more while the other has not ended.
    deaf: Option<Side>,
    stage: Stage,
    session: Entry,
}

/// Where a relay stands. It only ever moves forward.
enum Stage {
    /// Both directions go on as long as they can.
    Relaying,
    /// One side is gone, and the other has not received everything yet: when to look again.
    Losing { gone: Side, look: Pin<Box<Sleep>> },
    /// Nothing more is relayed: both sides get their end behind what is stuck, and are waited for.
    Closing,
}

/// A side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

impl From<Side> for EndedBy {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Upstream => Self::Upstream,
        }
    }
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
            if let Stage::Relaying = this.stage
                && this.poll_relay(cx, scratch).is_ready()
            {
                return Poll::Ready(());
            }
            // Relaying may just have come to one of the others.
            match this.stage {
                Stage::Relaying => Poll::Pending,
                Stage::Losing { .. } => this.poll_lose(cx),
                Stage::Closing => this.poll_close(cx, scratch),
            }
        })
    }
}

impl Relay {
    /// Relays both ways. Pending also when that has led to another stage.
    fn poll_relay(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        for from in [Side::Client, Side::Upstream] {
            match self.poll_direction(from, cx, scratch) {
                Poll::Ready(Flow::Broken(Broken::Source(error))) => {
                    return self.lose(from, &why(&error));
                }
                Poll::Ready(Flow::Broken(Broken::Destination(error))) => {
                    self.deafened(from.other(), &error);
                }
                Poll::Ready(Flow::Closed(why)) => {
                    self.first_end.get_or_insert((from, why));
                    self.session.half_closed();
                }
                Poll::Pending => {}
            }
        }
        self.session.stuck(self.client.is_stuck() || self.upstream.is_stuck());
        if !matches!(self.stage, Stage::Relaying) {
            return Poll::Pending;
        }
        if !(self.to_upstream.is_closed() && self.to_client.is_closed()) {
            return Poll::Pending;
        }
        if let Some((by, why)) = self.first_end {
            self.session.record().ended(by.into(), why);
        }
        // The other may still be sending to a side that is gone. Closing on unread input would be a
        // reset, and take with it what that one has not received yet.
        self.deaf.map_or(Poll::Ready(()), |gone| self.lose(gone, "reset"))
    }

    fn poll_direction(
        &mut self,
        from: Side,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<Flow> {
        let (session, record) = (&self.session, self.session.record());
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        match from {
            Side::Client => self.to_upstream.poll(client, upstream, cx, scratch, |bytes| {
                session.active();
                record.add_to_upstream(bytes);
            }),
            Side::Upstream => self.to_client.poll(upstream, client, cx, scratch, |bytes| {
                session.active();
                record.add_to_client(bytes);
            }),
        }
    }

    /// Nothing more can be said to one side; but what it said before it went, its Close perhaps,
    /// may still wait to be read, so the other direction runs to its end.
    fn deafened(&mut self, side: Side, error: &io::Error) {
        if error.kind() == io::ErrorKind::QuotaExceeded {
            self.session.record().ended(EndedBy::Tidegate, error);
            self.close();
            return;
        }
        self.session.record().ended(side.into(), why(error));
        self.session.half_closed();
        self.deaf = Some(side);
    }

    /// One side is gone, and the other is to learn it by a reset: at once, unless something of
    /// what the lost one said is still on its way to it, which a reset would take back.
    fn lose(&mut self, gone: Side, why: &str) -> Poll<()> {
        self.session.record().ended(gone.into(), why);
        let left = self.leg(gone.other());
        if left.is_delivered() {
            left.reset();
            return Poll::Ready(());
        }
        self.session.half_closed();
        self.stage = Stage::Losing { gone, look: Box::pin(sleep(LOOK_AGAIN)) };
        Poll::Pending
    }

    /// Waits until the side that is left has everything, and resets it.
    fn poll_lose(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Losing { gone, look } = &mut self.stage else { return Poll::Pending };
        let left = match gone {
            Side::Client => &mut self.upstream,
            Side::Upstream => &mut self.client,
        };
        loop {
            if let Poll::Ready(Err(_)) = left.poll_flush(cx) {
                return Poll::Ready(());
            }
            if left.is_delivered() {
                left.reset();
                return Poll::Ready(());
            }
            // The kernel has no word for "everything has arrived".
            ready!(look.as_mut().poll(cx));
            look.as_mut().reset(Instant::now() + LOOK_AGAIN);
        }
    }

    fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    fn obey(&mut self, order: Order) -> Poll<()> {
        match order {
            Order::End(why) => {
                self.session.record().ended(EndedBy::Tidegate, why);
                self.close();
            }
            Order::Look => {
                if let Stage::Relaying = self.stage {
                    let is_reset = |side: &Side| self.leg(*side).is_reset();
                    match [Side::Client, Side::Upstream].into_iter().find(is_reset) {
                        // What it said before can still be read, at the pace of the other.
                        Some(gone) if self.leg(gone).has_unread() => self.session.half_closed(),
                        Some(gone) => return self.lose(gone, "reset"),
                        None => {}
                    }
                }
            }
            // What the kernels have not delivered yet, they still may.
            Order::Cut(why) => {
                self.session.record().ended(EndedBy::Tidegate, why);
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn close(&mut self) {
        self.stage = Stage::Closing;
        self.session.closing();
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
