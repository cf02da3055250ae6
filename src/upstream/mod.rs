//! The upstream side: endpoints and their state (`endpoint`), which one is chosen (`balance`),
//! how it is reached (`dial`), and the echo that is built in (`echo`).

pub mod balance;
pub mod dial;
pub mod echo;
pub mod endpoint;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use balance::Load;
use endpoint::Endpoint;

use crate::config;
use crate::random::random;

/// A named group of endpoints, shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    /// As configured.
    pub config: config::Upstream,
    /// Its name, for the log.
    pub name: Arc<str>,
    endpoints: Vec<Arc<Endpoint>>,
    turn: AtomicUsize,
}

impl Upstream {
    /// The upstream of a configuration, all endpoints fresh.
    pub fn new(config: config::Upstream) -> Self {
        let endpoints =
            config.endpoints.iter().map(|address| Arc::new(Endpoint::new(address))).collect();
        let name = config.name.as_str().into();
        Self { config, name, endpoints, turn: AtomicUsize::new(0) }
    }

    /// Chooses an endpoint that is not among `tried`; `None` when all are.
    pub fn choose(&self, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        if let ([only], []) = (self.endpoints.as_slice(), tried) {
            return Some(only.clone());
        }
        let loads: Vec<Load> = self
            .endpoints
            .iter()
            .map(|endpoint| Load {
                in_flight: endpoint.in_flight(),
                is_resting: endpoint.is_resting(),
                is_tried: tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint)),
            })
            .collect();
        let turn = match self.config.balance {
            config::Balance::Random => usize::try_from(random() >> 1).unwrap_or(0),
            config::Balance::LeastSessions | config::Balance::RoundRobin => {
                self.turn.fetch_add(1, Ordering::Relaxed)
            }
        };
        let chosen = balance::choose(self.config.balance, &loads, turn)?;
        self.endpoints.get(chosen).cloned()
    }
}
