//! Connections to endpoints that are kept for the next ordinary request. One pool per worker, so
//! there is no lock; a WebSocket owns its connection and never comes here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::upstream::endpoint::Endpoint;

/// How long a connection is kept. An endpoint that closes sooner is noticed, or forgiven by a
/// second try.
const IDLE: Duration = Duration::from_secs(60);
/// More idle connections to one endpoint than this are not kept.
const MOST_IDLE: usize = 128;

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Pool {
    /// By the address of the endpoint's [`Arc`], which the connections keep alive.
    idle: RefCell<BTreeMap<usize, Vec<Idle>>>,
    /// What was opened before this was opened under another configuration.
    cleared: Cell<Option<Instant>>,
    /// When it was last swept, which is as exact as the age of what is idle need be.
    swept: Cell<Instant>,
}

impl Default for Pool {
    fn default() -> Self {
        let swept = Cell::new(Instant::now());
        Self { idle: RefCell::default(), cleared: Cell::default(), swept }
    }
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
    _endpoint: Arc<Endpoint>,
}

impl Pool {
    /// A connection to `endpoint` that is ready for a request, the one used last.
    pub fn take(&self, endpoint: &Arc<Endpoint>) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&key(endpoint))?;
        while let Some(at) = kept.iter().rposition(|idle| idle.connection.is_idle()) {
            let mut connection = kept.remove(at).connection;
            if connection.is_still_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn keep(&self, endpoint: &Arc<Endpoint>, mut connection: Connection) {
        if connection.is_over() {
            return;
        }
        if connection.is_outdated(self.cleared.get()) {
            return connection.close_in_order();
        }
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(key(endpoint)).or_default();
        if kept.len() == MOST_IDLE {
            kept.retain_mut(|idle| idle.connection.is_still_open());
        }
        if kept.len() == MOST_IDLE {
            return connection.close_in_order();
        }
        connection.rest();
        let since = self.swept.get();
        kept.push(Idle { connection, since, _endpoint: endpoint.clone() });
    }

    /// Lets go of what has been idle for too long or was closed by the endpoint.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.swept.set(now);
        self.idle.borrow_mut().retain(|_, kept| {
            let is_over = |idle: &mut Idle| {
                !idle.connection.is_still_open() || now.duration_since(idle.since) >= IDLE
            };
            for idle in kept.extract_if(.., is_over) {
                idle.connection.close_in_order();
            }
            !kept.is_empty()
        });
    }

    /// Lets go of everything, and of what is in use as soon as it is no longer.
    pub fn clear(&self) {
        self.cleared.set(Some(Instant::now()));
        for idle in self.idle.take().into_values().flatten() {
            idle.connection.close_in_order();
        }
    }
}

fn key(endpoint: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(endpoint).addr()
}
