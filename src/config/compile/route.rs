//! `[[route]]`.

use std::collections::HashMap;
use std::time::Duration;

use toml::Spanned;

use super::positive;
use crate::config::Route;
use crate::config::fault::{Faults, did_you_mean};
use crate::config::file;
use crate::route::pattern::{HostPattern, PathPattern};

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn routes(
    file: &file::File,
    upstreams: &[&str],
    faults: &mut Faults,
) -> Option<Vec<Route>> {
    if file.route.is_empty() {
        return match upstreams {
            [_] => Some(vec![route(&file::Route::default(), upstreams, faults)?]),
            [] => {
                faults.error(
                    None,
                    "there is nothing to forward to",
                    "add `[upstream.app]` with `endpoints = [\"http://127.0.0.1:3000\"]`",
                );
                None
            }
            _ => {
                faults.error(
                    None,
                    "there are several upstreams and no route to choose between them",
                    "add a `[[route]]` with `path` and `upstream` for each",
                );
                None
            }
        };
    }
    let mut seen: HashMap<(HostPattern, PathPattern), usize> = HashMap::new();
    let compiled: Vec<Option<Route>> = file
        .route
        .iter()
        .enumerate()
        .map(|(number, written)| {
            let route = route(written, upstreams, faults)?;
            if let Some(first) = seen.insert((route.host.clone(), route.path.clone()), number) {
                let place = written.path.as_ref().or(written.host.as_ref()).map(Spanned::span);
                faults.error(
                    place.or_else(|| written.place.clone()),
                    format_args!("a second route for `{}{}`", route.host, route.path),
                    format_args!(
                        "remove it or [[route]] number {}, or give it another host or path",
                        first + 1
                    ),
                );
            }
            Some(route)
        })
        .collect();
    compiled.into_iter().collect()
}

fn route(written: &file::Route, upstreams: &[&str], faults: &mut Faults) -> Option<Route> {
    let host = faults.keep_or(HostPattern::Any, written.host.as_ref(), HostPattern::parse);
    let root = PathPattern::parse("/").ok()?;
    let path = faults.keep_or(root, written.path.as_ref(), PathPattern::parse);
    let upstream = upstream(written, upstreams, faults);
    let idle_timeout = faults.keep_or(IDLE_TIMEOUT, written.idle_timeout.as_ref(), positive);
    let close_timeout = faults.keep_or(CLOSE_TIMEOUT, written.close_timeout.as_ref(), positive);
    let half_close_timeout =
        faults.keep_or(HALF_CLOSE_TIMEOUT, written.half_close_timeout.as_ref(), positive);
    Some(Route {
        host: host?,
        path: path?,
        upstream: upstream?,
        strict_handshake: written.strict_handshake.unwrap_or(false),
        idle_timeout: idle_timeout?,
        close_timeout: close_timeout?,
        half_close_timeout: half_close_timeout?,
    })
}

/// The index of the upstream that was named, or of the only one.
fn upstream(written: &file::Route, upstreams: &[&str], faults: &mut Faults) -> Option<usize> {
    match (&written.upstream, upstreams) {
        (Some(name), _) => {
            let found = upstreams.iter().position(|known| known == name.get_ref());
            if found.is_none() {
                faults.error(
                    Some(name.span()),
                    format_args!("no upstream is named `{}`", name.get_ref()),
                    way_to_upstream(name.get_ref(), upstreams),
                );
            }
            found
        }
        (None, [_]) => Some(0),
        (None, _) if !written.is_whole => None,
        (None, _) => {
            faults.error(
                written.place.clone(),
                "this route does not say where to",
                "add `upstream = \"…\"`, the name of an [upstream.NAME]",
            );
            None
        }
    }
}

fn way_to_upstream(name: &str, upstreams: &[&str]) -> String {
    let near = did_you_mean(name, upstreams.iter().copied());
    match (near.is_empty(), upstreams) {
        (false, _) => near,
        (true, []) => format!("add `[upstream.{name}]`"),
        (true, known) => format!("there is {}", known.join(", ")),
    }
}
