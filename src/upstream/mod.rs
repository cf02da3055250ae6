//! The upstream side: endpoints and their state (`endpoint`), which one is chosen (`balance`),
//! how it is reached (`dial`) and from which address (`source`), and the echo that is built in
//! (`echo`).

pub mod balance;
pub mod dial;
pub mod echo;
pub mod endpoint;
pub mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use balance::Load;
use endpoint::Endpoint;
use source::Sources;

use crate::config;
use crate::lifecycle::standing::State;
use crate::random::random;

/// A named group of endpoints, shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    /// As configured.
    pub config: config::Upstream,
    /// Its name, for the log.
    pub name: Arc<str>,
    /// The addresses that it is dialled from.
    pub sources: Sources,
    endpoints: Vec<Arc<Endpoint>>,
    turn: AtomicUsize,
}

impl Upstream {
    /// The upstream of a configuration. What is known of endpoints that `known` has already is
    /// kept: their health, what they serve, where their names lead. Each is taken out of it.
    pub fn new(config: config::Upstream, known: &mut Vec<Arc<Endpoint>>) -> Self {
        let endpoints = config
            .endpoints
            .iter()
            .map(|address| {
                let at = known.iter().position(|endpoint| endpoint.address == *address);
                match at {
                    Some(at) => known.remove(at),
                    None => Arc::new(Endpoint::new(address)),
                }
            })
            .collect();
        let name = config.name.as_str().into();
        let sources = Sources::new(config.source_addresses.clone());
        Self { config, name, sources, endpoints, turn: AtomicUsize::new(0) }
    }

    /// Its endpoints.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Chooses an endpoint that takes new sessions and is not among `tried`; `None` when there is
    /// no other.
    ///
    /// Where only endpoints are left that a reload has taken away, this was looked up before it: one
    /// of those is still right, as it was a moment ago. What is looked up after it knows of none.
    pub fn choose(&self, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        self.choose_of(State::Up, tried).or_else(|| self.choose_of(State::Removed, tried))
    }

    fn choose_of(&self, state: State, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        if let ([only], []) = (self.endpoints.as_slice(), tried)
            && only.standing.state() == state
        {
            return Some(only.clone());
        }
        let loads: Vec<Load> = self
            .endpoints
            .iter()
            .map(|endpoint| Load {
                in_flight: endpoint.in_flight(),
                is_resting: endpoint.is_resting(),
                is_out: endpoint.standing.state() != state
                    || tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint)),
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
