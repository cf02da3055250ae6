//! How many connections and sessions there may be at once, over all workers. What is admitted
//! holds a permit, which follows the connection into its relay and is given back when dropped.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::turnstile::{TooMany, Turn, Turnstile};
use crate::config;

/// Connections over the limit that may wait for their refusal at once; beyond that they are
/// closed without a word, so that a flood costs no memory.
const REFUSALS_AT_ONCE: usize = 256;

/// The counts, shared by all workers. They are touched once per connection and session.
#[derive(Debug)]
pub struct Limits {
    sessions: Counter,
    no_sessions: Notify,
    connections: Counter,
    refusals: Counter,
    per_address: PerAddress,
    handshakes: Turnstile,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `limits.connections`
    Connections,
    /// `limits.connections_per_ip`
    Address,
    /// `limits.sessions`
    Sessions,
    /// `limits.handshake_rate`
    Handshakes,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub enum Admission {
    /// It is served.
    Admitted(Permit),
    /// It is told that it is one too many.
    Refused(Full, Permit),
    /// It is closed.
    Dropped,
}

/// One place within a limit, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<Limits>,
    of: Of,
}

/// A turn at `limits.handshake_rate`.
#[derive(Debug)]
pub struct HandshakeTurn {
    turn: Option<Turn>,
    limits: Arc<Limits>,
}

impl HandshakeTurn {
    /// How long to wait for it.
    pub fn wait(&self) -> Duration {
        self.turn.map_or(Duration::ZERO, |turn| turn.wait)
    }

    /// It has come, and is used.
    pub fn used(mut self) {
        self.turn = None;
    }
}

impl Drop for HandshakeTurn {
    fn drop(&mut self) {
        if let Some(turn) = &self.turn {
            self.limits.handshakes.take_back(turn);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Of {
    Sessions,
    Connections(Option<IpAddr>),
    Refusals,
}

impl Limits {
    /// Nothing is counted yet.
    pub fn new(limits: &config::Limits) -> Arc<Self> {
        Arc::new(Self {
            sessions: Counter::new(limits.sessions),
            no_sessions: Notify::new(),
            connections: Counter::new(limits.connections),
            refusals: Counter::new(Some(REFUSALS_AT_ONCE)),
            per_address: PerAddress {
                most: AtomicUsize::new(most(limits.connections_per_ip)),
                counts: Mutex::default(),
            },
            handshakes: Turnstile::new(limits.handshakes, Instant::now()),
        })
    }

    /// Holds to other limits from now on. What is within the old ones stays; it is counted, but
    /// for the connections of an address that were not while there was no limit on them.
    pub fn change(&self, limits: &config::Limits) {
        self.sessions.most.store(most(limits.sessions), Ordering::Relaxed);
        self.connections.most.store(most(limits.connections), Ordering::Relaxed);
        self.per_address.most.store(most(limits.connections_per_ip), Ordering::Relaxed);
        self.handshakes.change(limits.handshakes, Instant::now());
    }

    /// A handshake's turn, which is given back if it is dropped before it was used.
    ///
    /// # Errors
    ///
    /// [`Full::Handshakes`] where it would be too long until then.
    pub fn handshake_turn(self: &Arc<Self>) -> Result<HandshakeTurn, Full> {
        let turn = self.handshakes.turn(Instant::now()).map_err(|TooMany| Full::Handshakes)?;
        Ok(HandshakeTurn { turn: Some(turn), limits: self.clone() })
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.sessions.count.load(Ordering::Relaxed)
    }

    /// Resolves when there is no session, and no handshake that may become one. For one waiter;
    /// may be dropped at any time.
    pub async fn no_sessions(&self) {
        while self.sessions() > 0 {
            self.no_sessions.notified().await;
        }
    }

    /// Client connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.count.load(Ordering::Relaxed)
    }

    /// How many of them there were at the most since this was last asked.
    pub fn most_connections(&self) -> usize {
        self.connections.highest.swap(self.connections(), Ordering::Relaxed)
    }

    /// Decides on a new connection from `address`; `None` for one that stands for many clients, a
    /// trusted proxy, which only the overall limit holds.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Admission {
        let address = address.filter(|_| self.per_address.is_counting());
        if let Some(ip) = address
            && !self.per_address.enter(ip)
        {
            return self.refuse(Full::Address);
        }
        if !self.connections.enter() {
            self.leave_address(address);
            return self.refuse(Full::Connections);
        }
        Admission::Admitted(self.permit(Of::Connections(address)))
    }

    fn refuse(self: &Arc<Self>, full: Full) -> Admission {
        if self.refusals.enter() {
            Admission::Refused(full, self.permit(Of::Refusals))
        } else {
            Admission::Dropped
        }
    }

    /// Decides anew on a connection that was counted for nobody in particular, now that it is known
    /// to be from `address`. One that is refused already stays so.
    pub fn attribute(self: &Arc<Self>, mut permit: Permit, address: IpAddr) -> Admission {
        if let Of::Connections(None) = permit.of
            && self.per_address.is_counting()
        {
            if !self.per_address.enter(address) {
                return self.refuse(Full::Address);
            }
            permit.of = Of::Connections(Some(address));
        }
        Admission::Admitted(permit)
    }

    /// A place for one more session.
    ///
    /// # Errors
    ///
    /// [`Full::Sessions`] where there is none.
    pub fn open_session(self: &Arc<Self>) -> Result<Permit, Full> {
        if self.sessions.enter() { Ok(self.permit(Of::Sessions)) } else { Err(Full::Sessions) }
    }

    fn permit(self: &Arc<Self>, of: Of) -> Permit {
        Permit { limits: self.clone(), of }
    }

    fn leave_address(&self, address: Option<IpAddr>) {
        if let Some(ip) = address {
            self.per_address.leave(ip);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.of {
            Of::Sessions => {
                if self.limits.sessions.leave() == 0 {
                    self.limits.no_sessions.notify_one();
                }
            }
            Of::Refusals => {
                self.limits.refusals.leave();
            }
            Of::Connections(address) => {
                self.limits.connections.leave();
                self.limits.leave_address(address);
            }
        }
    }
}

fn most(limit: Option<usize>) -> usize {
    limit.unwrap_or(usize::MAX)
}

#[derive(Debug)]
struct Counter {
    most: AtomicUsize,
    count: AtomicUsize,
    /// The greatest count as of late.
    highest: AtomicUsize,
}

impl Counter {
    fn new(limit: Option<usize>) -> Self {
        let most = AtomicUsize::new(most(limit));
        Self { most, count: AtomicUsize::new(0), highest: AtomicUsize::new(0) }
    }

    fn enter(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let one_more = |count| (count < most).then_some(count + 1);
        let entered = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if let Ok(before) = entered {
            self.highest.fetch_max(before + 1, Ordering::Relaxed);
        }
        entered.is_ok()
    }

    /// How many are left.
    fn leave(&self) -> usize {
        self.count.fetch_sub(1, Ordering::Relaxed) - 1
    }
}

/// What one client has of addresses: of IPv6, a whole /64 (RFC 6177 §2), any of which it may use.
fn household(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[derive(Debug)]
struct PerAddress {
    most: AtomicUsize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl PerAddress {
    /// Without a limit nobody is counted.
    fn is_counting(&self) -> bool {
        self.most.load(Ordering::Relaxed) != usize::MAX
    }

    fn enter(&self, ip: IpAddr) -> bool {
        let ip = household(ip);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        let fits = *count < self.most.load(Ordering::Relaxed);
        *count += usize::from(fits);
        fits
    }

    fn leave(&self, ip: IpAddr) {
        let ip = household(ip);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::ByteSize;

    fn limits(connections: Option<usize>, per_ip: Option<usize>) -> Arc<Limits> {
        Limits::new(&config::Limits {
            sessions: Some(1),
            connections,
            connections_per_ip: per_ip,
            header_timeout: Duration::ZERO,
            header_bytes: ByteSize::kib(32),
            keep_alive: Duration::ZERO,
            body_timeout: Duration::ZERO,
            send_timeout: Duration::ZERO,
            handshakes: None,
        })
    }

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, last]))
    }

    #[test]
    fn a_place_is_given_back_with_its_permit() {
        let limits = limits(Some(2), None);
        let first = limits.admit(ip(1));
        let _second = limits.admit(ip(1));
        assert!(matches!(limits.admit(ip(1)), Admission::Refused(Full::Connections, _)));
        drop(first);
        assert!(matches!(limits.admit(ip(1)), Admission::Admitted(_)));
    }

    /// The runtime drops the task, and with it what it holds; nobody else notices.
    #[tokio::test]
    async fn a_place_is_given_back_by_a_task_that_panics() {
        let limits = limits(Some(1), Some(1));
        let admission = limits.admit(ip(1));
        assert!(matches!(admission, Admission::Admitted(_)));
        let session = limits.open_session().expect("the first session");
        let tasks = tokio::task::LocalSet::new();
        let task = tasks.run_until(async move {
            tokio::task::spawn_local(async move {
                let _held = (admission, session);
                panic!("as a task that went wrong");
            })
            .await
        });
        assert!(task.await.is_err_and(|error| error.is_panic()));
        assert!(matches!(limits.admit(ip(1)), Admission::Admitted(_)));
        assert_eq!(limits.sessions(), 0);
    }

    #[test]
    fn one_address_does_not_use_up_the_places_of_others() {
        let limits = limits(Some(2), Some(1));
        let first = limits.admit(ip(1));
        assert!(matches!(limits.admit(ip(1)), Admission::Refused(Full::Address, _)));
        let _other = limits.admit(ip(2));
        assert!(matches!(limits.admit(ip(3)), Admission::Refused(Full::Connections, _)));
        drop(first);
        assert!(matches!(limits.admit(ip(3)), Admission::Admitted(_)));
    }

    #[test]
    fn a_connection_is_counted_for_whom_it_turns_out_to_be_from() {
        let limits = limits(Some(2), Some(1));
        let Admission::Admitted(permit) = limits.admit(None) else { panic!("there is room") };
        let Admission::Admitted(first) = limits.attribute(permit, ip(1).expect("one")) else {
            panic!("it is the first from there")
        };
        assert!(matches!(limits.admit(ip(1)), Admission::Refused(Full::Address, _)));
        let Admission::Admitted(permit) = limits.admit(None) else { panic!("there is room") };
        let second = limits.attribute(permit, ip(1).expect("one"));
        assert!(matches!(second, Admission::Refused(Full::Address, _)));
        assert_eq!(limits.connections(), 1);
        drop(first);
        assert_eq!(limits.connections(), 0);
        assert!(matches!(limits.admit(ip(1)), Admission::Admitted(_)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let limits = limits(None, Some(1));
        let address = |text: &str| Some(text.parse().expect("an address"));
        let _first = limits.admit(address("2001:db8:0:7::1"));
        let second = limits.admit(address("2001:db8:0:7:ffff::9"));
        assert!(matches!(second, Admission::Refused(Full::Address, _)));
        assert!(matches!(limits.admit(address("2001:db8:0:8::1")), Admission::Admitted(_)));
        drop(second);
    }

    #[test]
    fn a_flood_of_refusals_is_bounded() {
        let limits = limits(Some(1), None);
        let _only = limits.admit(ip(1));
        let refused: Vec<_> = (0..REFUSALS_AT_ONCE).map(|_| limits.admit(ip(1))).collect();
        assert!(refused.iter().all(|admission| matches!(admission, Admission::Refused(..))));
        assert!(matches!(limits.admit(ip(1)), Admission::Dropped));
    }

    #[test]
    fn sessions_are_counted_apart() {
        let limits = limits(None, None);
        let only = limits.open_session().expect("the first session");
        assert_eq!(limits.open_session().expect_err("the second session"), Full::Sessions);
        drop(only);
        assert!(limits.open_session().is_ok());
    }
}
