//! Looking at the sessions of one worker from outside, without being in their way: lists are made
//! in portions, with the traffic's turn in between, and whoever watches and does not keep up
//! misses events instead of holding anybody up.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::mpsc;

use super::sessions::{Session, Sessions};
use crate::admin::snapshot::{SessionInfo, Watched};

/// Which sessions; what is `None` or empty does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these, by the ids under which the log speaks of them.
    pub ids: Vec<u64>,
    /// The route's host and path.
    pub route: Option<String>,
    /// The upstream's name.
    pub upstream: Option<String>,
    /// The endpoint's address.
    pub endpoint: Option<String>,
    /// Where the client is.
    pub client: Option<IpNet>,
    /// Open for at least so long.
    pub older: Option<Duration>,
    /// Silent for at least so long.
    pub idle: Option<Duration>,
}

/// Which sessions to list, and in which order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Which.
    pub filter: Filter,
    /// Which come first.
    pub order: Option<Sort>,
    /// How many are shown at the most.
    pub limit: Option<usize>,
}

/// What sessions are sorted by, the most of it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// How long they have been open.
    Age,
    /// Bytes in a second, as of late.
    Rate,
    /// How long nothing went through them.
    Idle,
    /// Bytes in all.
    Bytes,
}

impl Sort {
    /// How much a session has of it.
    fn of(self, session: &Session, now: Instant) -> f64 {
        match self {
            Self::Age => session.age(now).as_secs_f64(),
            Self::Rate => session.bytes_per_second(),
            Self::Idle => session.idle(now).as_secs_f64(),
            Self::Bytes => session.record().bytes() as f64,
        }
    }

    /// The same of one that was described.
    fn of_info(self, info: &SessionInfo) -> f64 {
        match self {
            Self::Age => info.age_s,
            Self::Rate => info.bytes_per_s,
            Self::Idle => info.idle_s,
            Self::Bytes => (info.client_to_upstream_bytes + info.upstream_to_client_bytes) as f64,
        }
    }
}

impl Filter {
    /// Whether it leaves anything out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn matches(&self, session: &Session, now: Instant) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == name)
        };
        let at_least = |wanted: Option<Duration>, is: Duration| wanted.is_none_or(|w| is >= w);
        (self.ids.is_empty() || self.ids.contains(&session.record().id()))
            && is(&self.route, session.route().name())
            && is(&self.upstream, &session.route().upstream.name)
            && is(&self.endpoint, &session.endpoint().name)
            && self.client.is_none_or(|net| net.contains(&session.record().client().ip()))
            && at_least(self.older, session.age(now))
            && at_least(self.idle, session.idle(now))
    }
}

/// Sessions that are looked at before the traffic has its turn again.
const PORTION: usize = 64;

impl Sessions {
    /// The sessions that match, as many as are wanted, and how many there are in all. Only those
    /// are described that are shown.
    pub async fn list(&self, query: &Query) -> (usize, Vec<SessionInfo>) {
        let mut matching = Vec::new();
        for portion in self.all().chunks(PORTION) {
            let now = Instant::now();
            for weak in portion {
                if let Some(session) = weak.upgrade()
                    && query.filter.matches(&session, now)
                {
                    let key = query.order.map_or(0.0, |order| order.of(&session, now));
                    matching.push((key, weak.clone()));
                }
            }
            tokio::task::yield_now().await;
        }
        let total = matching.len();
        if query.order.is_some() {
            matching.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        }
        matching.truncate(query.limit.unwrap_or(total));
        let mut found = Vec::with_capacity(matching.len());
        for portion in matching.chunks(PORTION) {
            let now = Instant::now();
            let open = portion.iter().filter_map(|(_, session)| session.upgrade());
            found.extend(open.map(|session| session.info(now)));
            tokio::task::yield_now().await;
        }
        (total, found)
    }

    /// Tells `to` of every session that matches when it opens and when it ends, until it is
    /// closed; those that are open are told first.
    pub async fn watch(&self, filter: Filter, to: mpsc::Sender<Watched>) {
        let watcher = Rc::new(Watcher { filter, to, missed: Cell::new(0) });
        let all = self.all();
        self.add_watcher(watcher.clone());
        for portion in all.chunks(PORTION) {
            let now = Instant::now();
            for session in portion.iter().filter_map(Weak::upgrade) {
                watcher.tell("listed", &session, now);
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Query {
    /// Puts what several workers have found into one order, and leaves out what is beyond the limit.
    pub fn merge(&self, found: &mut Vec<SessionInfo>) {
        if let Some(order) = self.order {
            found.sort_by(|a, b| order.of_info(b).total_cmp(&order.of_info(a)));
        }
        found.truncate(self.limit.unwrap_or(usize::MAX));
    }
}

/// Somebody who watches sessions come and go.
#[derive(Debug)]
pub(super) struct Watcher {
    filter: Filter,
    to: mpsc::Sender<Watched>,
    missed: Cell<u64>,
}

impl Watcher {
    /// Whether anybody still listens.
    pub(super) fn is_there(&self) -> bool {
        !self.to.is_closed()
    }

    pub(super) fn tell(&self, event: &str, session: &Rc<Session>, now: Instant) {
        if !self.filter.matches(session, now) {
            return;
        }
        let missed = self.missed.get();
        if missed > 0
            && let Ok(place) = self.to.try_reserve()
        {
            self.missed.set(0);
            place.send(Watched {
                event: "missed".into(),
                session: None,
                missed: Some(missed),
                ended_by: None,
                why: None,
            });
        }
        // Nothing is described for whom there is no place.
        let Ok(place) = self.to.try_reserve() else {
            self.missed.set(self.missed.get() + 1);
            return;
        };
        let end = session.record().end().filter(|_| event == "end");
        let (ended_by, why) = end.unzip();
        place.send(Watched {
            event: event.into(),
            session: Some(session.info(now)),
            missed: None,
            ended_by: ended_by.map(|by| by.name().into()),
            why,
        });
    }
}
