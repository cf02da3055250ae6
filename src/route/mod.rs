//! Which route a request takes: by host and path, the most specific one, whatever its place in
//! the file. No I/O.

pub mod pattern;

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

    fn find(&self, path: &str) -> Option<&T> {
        self.0.iter().find(|(pattern, _)| pattern.matches(path)).map(|(_, route)| route)
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

    /// The most specific route for `host` (lower case, without a port) and `path`.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let own = self.exact.get(host).and_then(|paths| paths.find(path));
        own.or_else(|| {
            self.wildcards
                .iter()
                .filter(|(suffix, _)| pattern::is_below(host, suffix))
                .find_map(|(_, paths)| paths.find(path))
        })
        .or_else(|| self.any.find(path))
    }
}

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
            assert_eq!(table.find(host, path).map(String::as_str), Some(expected), "{host}{path}");
        }
    }

    #[test]
    fn a_host_without_a_fitting_path_falls_to_the_wider_one() {
        let table = table(&[("chat.example.org", "/ws"), ("*", "/")]);
        assert_eq!(table.find("chat.example.org", "/").map(String::as_str), Some("*/"));
        let narrow = super::tests::table(&[("chat.example.org", "/ws")]);
        assert_eq!(narrow.find("chat.example.org", "/"), None);
        assert_eq!(narrow.find("other", "/ws"), None);
    }
}
