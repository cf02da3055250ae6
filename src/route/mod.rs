//! Which route a request takes: by host and path, the most specific one, whatever its place in
//! the file. No I/O.

pub mod pattern;
pub mod reading;

use std::collections::HashMap;
use std::sync::Arc;

use pattern::{HostPattern, PathPattern};

use crate::config;
use crate::lifecycle::standing::Standing;
use crate::telemetry::metrics::RouteCounters;
use crate::upstream::Upstream;

/// A route as it runs.
#[derive(Debug)]
pub struct Route {
    /// As configured.
    pub config: Arc<config::Route>,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// What is counted for it, under its name; outlives a reload.
    pub counters: Arc<RouteCounters>,
    /// Whether it takes new sessions; outlives a reload too.
    pub standing: Arc<Standing>,
}

impl Route {
    /// Host and path, as the log has them.
    pub fn name(&self) -> &Arc<str> {
        &self.counters.name
    }
}

/// Finds the most specific route for a host and a path.
///
/// A host's own routes come before those of a wildcard, a longer wildcard before a shorter one,
/// and `*` last; among routes of one host the longest path wins.
#[derive(Debug)]
pub struct Table<T> {
    exact: HashMap<String, Paths<T>>,
    /// Suffixes with their leading dot, the longest first.
    wildcards: Vec<(String, Paths<T>)>,
    any: Paths<T>,
}

/// Routes of one host, the longest path first.
#[derive(Debug)]
struct Paths<T>(Vec<(PathPattern, T)>);

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Paths<T> {
    fn insert(&mut self, path: PathPattern, route: T) {
        let at = self.0.partition_point(|(other, _)| other.depth() >= path.depth());
        self.0.insert(at, (path, route));
    }

    fn find(&self, is_for: impl Fn(&PathPattern) -> bool) -> Option<&T> {
        self.0.iter().find(|(pattern, _)| is_for(pattern)).map(|(_, route)| route)
    }

    /// Whether every path takes the same route.
    fn is_for_all(&self) -> bool {
        matches!(self.0.as_slice(), [(only, _)] if only.is_root())
    }
}

impl<T> Table<T> {
    /// A table of these routes.
    pub fn new(routes: impl IntoIterator<Item = (HostPattern, PathPattern, T)>) -> Self {
        let mut table =
            Self { exact: HashMap::new(), wildcards: Vec::new(), any: Paths::default() };
        for (host, path, route) in routes {
            table.paths_of(host).insert(path, route);
        }
        table
    }

    fn paths_of(&mut self, host: HostPattern) -> &mut Paths<T> {
        match host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(host) => self.exact.entry(host).or_default(),
            HostPattern::Wildcard(suffix) => {
                let found = self.wildcards.iter().position(|(other, _)| *other == suffix);
                let at = found.unwrap_or_else(|| {
                    let at =
                        self.wildcards.partition_point(|(other, _)| other.len() >= suffix.len());
                    self.wildcards.insert(at, (suffix, Paths::default()));
                    at
                });
                &mut self.wildcards[at].1
            }
        }
    }

    /// The most specific route for `host` (lower case, without a port) and `path`, as it is
    /// written.
    ///
    /// # Errors
    ///
    /// [`Ambiguous`] where a server could take the path for one that is not this route's
    /// ([`reading::others`]): the route that it is meant to take cannot be told then.
    pub fn find(&self, host: &str, path: &str) -> Result<Option<&T>, Ambiguous> {
        let Some(found) = self.find_where(host, |pattern| pattern.matches(path)) else {
            return Ok(None);
        };
        if self.paths_for(host).next().is_some_and(Paths::is_for_all) {
            return Ok(Some(found));
        }
        let others = reading::others(path.as_bytes()).map_err(|reading::TooMany| Ambiguous)?;
        let is_same = |reading: &Vec<u8>| {
            self.find_where(host, |pattern| pattern.may_match(reading))
                .is_some_and(|other| std::ptr::eq(other, found))
        };
        if others.iter().all(is_same) { Ok(Some(found)) } else { Err(Ambiguous) }
    }

    fn find_where(&self, host: &str, is_for: impl Fn(&PathPattern) -> bool) -> Option<&T> {
        self.paths_for(host).find_map(|paths| paths.find(&is_for))
    }

    /// The paths that a host may take, those of the most specific pattern first.
    fn paths_for(&self, host: &str) -> impl Iterator<Item = &Paths<T>> {
        let wildcards =
            self.wildcards.iter().filter(move |(suffix, _)| pattern::is_below(host, suffix));
        let own = self.exact.get(host).into_iter();
        own.chain(wildcards.map(|(_, paths)| paths)).chain([&self.any])
    }
}

/// A path that is one route's as it is written, and another's, or none's, as servers may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path can be read as one of another route: write it without dots, encodings and `;`")]
pub struct Ambiguous;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &str)]) -> Table<String> {
        Table::new(routes.iter().map(|(host, path)| {
            (
                HostPattern::parse(host).expect("a host pattern"),
                PathPattern::parse(path).expect("a path pattern"),
                format!("{host}{path}"),
            )
        }))
    }

    fn found<'t>(
        table: &'t Table<String>,
        host: &str,
        path: &str,
    ) -> Result<Option<&'t str>, Ambiguous> {
        table.find(host, path).map(|route| route.map(String::as_str))
    }

    #[test]
    fn the_most_specific_route_wins_whatever_its_place() {
        let table = table(&[
            ("*", "/"),
            ("*.example.org", "/"),
            ("*.eu.example.org", "/"),
            ("chat.example.org", "/"),
            ("chat.example.org", "/rooms/vip"),
            ("chat.example.org", "/rooms"),
            ("*", "/health"),
        ]);
        for (host, path, expected) in [
            ("chat.example.org", "/rooms/vip/7", "chat.example.org/rooms/vip"),
            ("chat.example.org", "/rooms", "chat.example.org/rooms"),
            ("chat.example.org", "/roomsy", "chat.example.org/"),
            ("a.example.org", "/rooms", "*.example.org/"),
            ("a.eu.example.org", "/", "*.eu.example.org/"),
            ("example.org", "/", "*/"),
            ("elsewhere", "/health/live", "*/health"),
        ] {
            assert_eq!(found(&table, host, path), Ok(Some(expected)), "{host}{path}");
        }
    }

    #[test]
    fn a_host_without_a_fitting_path_falls_to_the_wider_one() {
        let table = table(&[("chat.example.org", "/ws"), ("*", "/")]);
        assert_eq!(found(&table, "chat.example.org", "/"), Ok(Some("*/")));
        let narrow = super::tests::table(&[("chat.example.org", "/ws")]);
        assert_eq!(found(&narrow, "chat.example.org", "/"), Ok(None));
        assert_eq!(found(&narrow, "other", "/ws"), Ok(None));
    }

    /// Only where it matters: the same path is nobody else's in the second table.
    #[test]
    fn a_path_that_may_be_another_routes_is_no_routes() {
        let guarded = table(&[("*", "/"), ("*", "/admin"), ("a.example", "/caf%C3%A9")]);
        for path in
            ["/x/../admin", "//admin", "/%61dmin", "/admin/../x", "/admin;v=1", "/caf%c3%a9"]
        {
            assert_eq!(found(&guarded, "a.example", path), Err(Ambiguous), "{path}");
        }
        for (path, expected) in [
            ("/a/../b", "*/"),
            ("/a%20b", "*/"),
            ("/admin/%2e/x", "*/admin"),
            ("/caf%C3%A9/%C3%A9", "a.example/caf%C3%A9"),
        ] {
            assert_eq!(found(&guarded, "a.example", path), Ok(Some(expected)), "{path}");
        }
        let open = table(&[("*", "/"), ("a.example", "/admin")]);
        assert_eq!(found(&open, "b.example", "/x/../admin"), Ok(Some("*/")));
        let tricks = "/%25252e;x/..;y//%255c/".repeat(2_900);
        assert_eq!(found(&open, "b.example", &tricks), Ok(Some("*/")));
        assert_eq!(found(&open, "a.example", &tricks), Err(Ambiguous));
        let below = table(&[("*", "/open")]);
        assert_eq!(found(&below, "x", "/open/../secret"), Err(Ambiguous));
        assert_eq!(found(&below, "x", "/secret/../open"), Ok(None));
    }
}
