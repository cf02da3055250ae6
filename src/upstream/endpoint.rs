//! One address of an upstream and what is known of it, shared by all workers: how much it serves,
//! whether it rests after a failure, and where its name leads.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::config::EndpointAddr;
use crate::lifecycle::standing::Standing;

/// One address of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    /// As configured.
    pub address: EndpointAddr,
    /// The same as text, for the log.
    pub name: Arc<str>,
    /// Whether it takes new sessions.
    pub standing: Arc<Standing>,
    in_flight: AtomicUsize,
    failures: AtomicU64,
    failures_in_a_row: AtomicU32,
    /// Milliseconds on [`CLOCK`].
    rests_until: AtomicU64,
    resolved: ArcSwapOption<Resolved>,
    is_resolving: AtomicBool,
}

/// The right to ask where an endpoint's name leads, held by one at a time.
#[derive(Debug)]
pub struct Resolving(Arc<Endpoint>);

impl Drop for Resolving {
    fn drop(&mut self) {
        self.0.is_resolving.store(false, Ordering::Release);
    }
}

/// Where a name led, and when that was asked.
#[derive(Debug)]
pub struct Resolved {
    /// The addresses, in the resolver's order.
    pub addresses: Vec<SocketAddr>,
    /// When.
    pub at: Instant,
}

/// How long an endpoint rests after its first failure; doubled with each further one.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);

static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the process first asked.
fn millis_now() -> u64 {
    u64::try_from(CLOCK.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Endpoint {
    /// An endpoint of which nothing is known yet.
    pub fn new(address: &EndpointAddr) -> Self {
        let endpoint = Self {
            address: address.clone(),
            name: address.to_string().into(),
            standing: Arc::default(),
            in_flight: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            failures_in_a_row: AtomicU32::new(0),
            rests_until: AtomicU64::new(0),
            resolved: ArcSwapOption::empty(),
            is_resolving: AtomicBool::new(false),
        };
        if let Some(fixed) = endpoint.fixed_address() {
            endpoint.learn(vec![fixed]);
        }
        endpoint
    }

    /// Its address where that is written in digits and needs no resolver.
    pub fn fixed_address(&self) -> Option<SocketAddr> {
        match &self.address {
            EndpointAddr::Tcp { host, port, .. } => {
                host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, *port))
            }
            EndpointAddr::Unix(_) | EndpointAddr::Echo => None,
        }
    }

    /// Where its name led when it was last asked for.
    pub fn resolved(&self) -> Option<Arc<Resolved>> {
        self.resolved.load_full()
    }

    /// Remembers where its name leads.
    pub fn learn(&self, addresses: Vec<SocketAddr>) {
        self.resolved.store(Some(Arc::new(Resolved { addresses, at: Instant::now() })));
    }

    /// The right to ask where its name leads, unless somebody is asking.
    pub fn begin_to_resolve(self: &Arc<Self>) -> Option<Resolving> {
        let was_resolving = self.is_resolving.swap(true, Ordering::Acquire);
        (!was_resolving).then(|| Resolving(self.clone()))
    }

    /// Sessions and requests that it serves now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it failed a moment ago.
    pub fn is_resting(&self) -> bool {
        self.rests_until.load(Ordering::Relaxed) > millis_now()
    }

    /// It could not be reached: it rests for a moment.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let failures = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed).min(16);
        let rest = FIRST_REST.saturating_mul(1 << failures).min(LONGEST_REST);
        let millis = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        self.rests_until.store(millis_now().saturating_add(millis), Ordering::Relaxed);
    }

    /// How often it could not be reached.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// It answered.
    pub fn succeeded(&self) {
        // Nearly always true already: read before writing, so that workers share the cache line.
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
            self.rests_until.store(0, Ordering::Relaxed);
        }
    }

    /// Counts one more session or request until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }
}

/// One session or request that an endpoint serves.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// The endpoint that serves it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_rests_after_a_failure_and_is_back_after_a_success() {
        let endpoint =
            Endpoint::new(&EndpointAddr::Tcp { host: "::1".into(), port: 1, tls: false });
        assert!(!endpoint.is_resting());
        for _ in 0..100 {
            endpoint.failed();
        }
        assert!(endpoint.is_resting());
        endpoint.succeeded();
        assert!(!endpoint.is_resting());
    }

    #[test]
    fn what_is_in_flight_is_counted_until_it_is_dropped() {
        let endpoint = Arc::new(Endpoint::new(&EndpointAddr::Echo));
        let guards = [endpoint.begin(), endpoint.begin()];
        assert_eq!(endpoint.in_flight(), 2);
        drop(guards);
        assert_eq!(endpoint.in_flight(), 0);
    }
}
