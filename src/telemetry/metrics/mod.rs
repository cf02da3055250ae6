//! What is counted, and how Prometheus hears of it. Every worker counts for itself (`counters`);
//! the sums are taken when somebody looks (`expose`). Labels are routes, listeners, upstreams and
//! endpoints of the configuration, and words from short lists of our own.

mod counters;
mod expose;

pub use counters::{
    Carried, Counter, Histogram, ListenerCounters, ListenerShard, RouteCounters, Shard, Sums,
    TlsVersion,
};
pub use expose::{EndpointGauges, Gauges, ProcessGauges, close_code_label, expose};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that is counted in the process.
#[derive(Debug)]
pub struct Metrics {
    workers: usize,
    routes: Mutex<Vec<Arc<RouteCounters>>>,
    listeners: Mutex<Vec<Arc<ListenerCounters>>>,
    /// Refusals by reason, one map per worker, which nobody but it and whoever looks locks.
    refusals: Vec<Mutex<BTreeMap<&'static str, u64>>>,
    /// Reloads that succeeded, and that failed.
    pub reloads: Counter,
    /// See above.
    pub reload_failures: Counter,
    /// Lines that the access log could not keep up with.
    pub dropped_lines: Arc<AtomicU64>,
}

impl Metrics {
    /// Nothing is counted yet, for so many workers.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers,
            routes: Mutex::default(),
            listeners: Mutex::default(),
            refusals: (0..workers).map(|_| Mutex::default()).collect(),
            reloads: Counter::default(),
            reload_failures: Counter::default(),
            dropped_lines: Arc::default(),
        })
    }

    /// The counters of the route `name`: those it had before a reload, if it was there.
    pub fn route(&self, name: &str) -> Arc<RouteCounters> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routes.iter().find(|known| *known.name == *name) {
            return known.clone();
        }
        let counters = Arc::new(RouteCounters::new(name, self.workers));
        routes.push(counters.clone());
        counters
    }

    /// The counters of the listener at `address`.
    pub fn listener(&self, address: std::net::SocketAddr) -> Arc<ListenerCounters> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = listeners.iter().find(|known| known.address == address) {
            return known.clone();
        }
        let counters = Arc::new(ListenerCounters::new(address, self.workers));
        listeners.push(counters.clone());
        counters
    }

    /// Forgets what only this holds: routes and listeners that are gone, once their last session
    /// and connection is.
    pub fn forget_the_gone(&self) {
        fn forget<T>(all: &Mutex<Vec<Arc<T>>>) {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|one| Arc::strong_count(one) > 1);
        }
        forget(&self.routes);
        forget(&self.listeners);
    }

    /// The routes, those that are gone but still have sessions included.
    pub fn routes(&self) -> Vec<Arc<RouteCounters>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The listeners, likewise.
    pub fn listeners(&self) -> Vec<Arc<ListenerCounters>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `worker` refused a request, for a reason from the list of `http::respond`.
    pub fn refused(&self, worker: usize, reason: &'static str) {
        if let Some(refusals) = self.refusals.get(worker) {
            let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            *refusals.entry(reason).or_default() += 1;
        }
    }

    /// Refusals by reason.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for of_one in &self.refusals {
            let of_one = of_one.lock().unwrap_or_else(PoisonError::into_inner);
            for (reason, count) in &*of_one {
                *sums.entry(*reason).or_default() += count;
            }
        }
        sums
    }

    /// Lines of the access log that were dropped.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped_lines.load(Ordering::Relaxed)
    }
}
