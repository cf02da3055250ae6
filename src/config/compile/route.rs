//! `[[route]]`.

use std::collections::HashMap;
use std::time::Duration;

use toml::Spanned;

use super::{at_least_a_byte, one_of, positive};
use crate::config::fault::{Faults, did_you_mean};
use crate::config::file;
use crate::config::units::Rate;
use crate::config::{Frames, OverRate, Ping, Route, Trace};
use crate::http::origin::{OriginPattern, Origins};
use crate::route::pattern::{HostPattern, PathPattern};

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

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
    let origins = origins(written, faults);
    let idle_timeout = faults.keep_or(IDLE_TIMEOUT, written.idle_timeout.as_ref(), positive);
    let close_timeout = faults.keep_or(CLOSE_TIMEOUT, written.close_timeout.as_ref(), positive);
    let half_close_timeout =
        faults.keep_or(HALF_CLOSE_TIMEOUT, written.half_close_timeout.as_ref(), positive);
    let frames = frames(written, faults);
    let ping = ping(written, faults);
    let max_frame =
        faults.keep_or(None, written.max_frame.as_ref(), |text| at_least_a_byte(text).map(Some));
    let max_message =
        faults.keep_or(None, written.max_message.as_ref(), |text| at_least_a_byte(text).map(Some));
    let message_rate = faults
        .keep_or(None, written.message_rate.as_ref(), |text| Rate::parse_count(text).map(Some));
    let byte_rate =
        faults.keep_or(None, written.byte_rate.as_ref(), |text| Rate::parse_size(text).map(Some));
    let known = [("throttle", OverRate::Throttle), ("close", OverRate::Close)];
    let over_rate = faults.keep_or(OverRate::Throttle, written.over_rate.as_ref(), |text| {
        one_of("treatment of a client over its rate", &known, text)
    });
    let max_age = faults.keep_or(None, written.max_age.as_ref(), |text| positive(text).map(Some));
    Some(Route {
        host: host?,
        path: path?,
        upstream: upstream?,
        strict_handshake: written.strict_handshake.unwrap_or(false),
        origins: origins?,
        idle_timeout: idle_timeout?,
        close_timeout: close_timeout?,
        half_close_timeout: half_close_timeout?,
        frames: frames?,
        ping: ping?,
        max_frame: max_frame?,
        max_message: max_message?,
        message_rate: message_rate?,
        byte_rate: byte_rate?,
        over_rate: over_rate?,
        max_age: max_age?,
        trace: Trace::Off,
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

/// Which pages may open a WebSocket; `None` inside is all.
fn origins(written: &file::Route, faults: &mut Faults) -> Option<Option<Origins>> {
    let known = [("allow", true), ("refuse", false)];
    let allows_missing = faults.keep_or(true, written.missing_origin.as_ref(), |text| {
        one_of("treatment of a missing Origin", &known, text)
    });
    let Some(origins) = &written.origins else {
        if let Some(missing) = &written.missing_origin {
            faults.error(
                Some(missing.span()),
                "this route has no `origins`, so that none is missing",
                "add `origins = [\"same\"]`, or remove this",
            );
        }
        return allows_missing.map(|_| None);
    };
    if origins.get_ref().is_empty() {
        faults.error(
            Some(origins.span()),
            "no origin at all may open a WebSocket here",
            "write `origins = [\"same\"]` for pages of this host, or remove this for all",
        );
        return None;
    }
    let parsed: Vec<Option<OriginPattern>> =
        origins.get_ref().iter().map(|text| faults.keep(text, OriginPattern::parse)).collect();
    let allowed = parsed.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Some(Origins { allowed, allows_missing: allows_missing? }))
}

/// How frames are followed, and that no other key needs them where they are not.
fn frames(written: &file::Route, faults: &mut Faults) -> Option<Frames> {
    let known = [("track", Frames::Track), ("enforce", Frames::Enforce), ("off", Frames::Off)];
    let frames = faults.keep_or(Frames::Track, written.frames.as_ref(), |text| {
        one_of("treatment of frames", &known, text)
    })?;
    match frames {
        Frames::Track | Frames::Enforce => {}
        Frames::Off => refuse_frame_keys(written, faults),
    }
    Some(frames)
}

/// A limit that cannot be kept is worse than none.
fn refuse_frame_keys(written: &file::Route, faults: &mut Faults) {
    let keys = [
        ("ping_after", &written.ping_after),
        ("max_frame", &written.max_frame),
        ("max_message", &written.max_message),
        ("message_rate", &written.message_rate),
    ];
    let keys = keys.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?)));
    // Whoever is to be told why needs a Close.
    let closing = written.over_rate.as_ref().filter(|text| text.get_ref() == "close");
    for (key, text) in keys.chain(closing.map(|text| ("over_rate = \"close\"", text))) {
        faults.error(
            Some(text.span()),
            format_args!("`{key}` needs frames, which `frames = \"off\"` does not follow"),
            "remove one of the two",
        );
    }
}

/// Both keys are read even where only one was written, so that its faults are told.
fn ping(written: &file::Route, faults: &mut Faults) -> Option<Option<Ping>> {
    let after = faults.keep_or(None, written.ping_after.as_ref(), |text| positive(text).map(Some));
    let timeout = faults.keep_or(PING_TIMEOUT, written.ping_timeout.as_ref(), positive);
    let (after, timeout) = (after?, timeout?);
    Some(after.map(|after| Ping { after, timeout }))
}

fn way_to_upstream(name: &str, upstreams: &[&str]) -> String {
    let near = did_you_mean(name, upstreams.iter().copied());
    match (near.is_empty(), upstreams) {
        (false, _) => near,
        (true, []) => format!("add `[upstream.{name}]`"),
        (true, known) => format!("there is {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    /// The one route of a file in which `keys` stand for it.
    fn compiled(keys: &str) -> Route {
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[upstream.app]\nbuiltin = \"echo\"\n{keys}"
        );
        let (config, report) = config::compile(Path::new("proxy.toml"), &text);
        config.unwrap_or_else(|| panic!("{}", report.errors())).routes.remove(0)
    }

    #[test]
    fn a_route_that_is_not_written_has_the_defaults_of_an_empty_one() {
        let (unwritten, empty) = (compiled(""), compiled("[[route]]"));
        assert_eq!(format!("{unwritten:?}"), format!("{empty:?}"));
        assert_eq!((unwritten.frames, unwritten.ping), (Frames::Track, None));
        assert_eq!((unwritten.max_frame, unwritten.max_message), (None, None));
        assert_eq!((unwritten.message_rate, unwritten.byte_rate), (None, None));
        assert_eq!((unwritten.over_rate, unwritten.max_age), (OverRate::Throttle, None));
    }

    #[test]
    fn a_session_is_followed_as_its_route_says() {
        let route = compiled(
            "[[route]]\nframes = \"enforce\"\nping_after = \"30s\"\nmax_frame = \"64KiB\"\n\
             max_message = \"1B\"\nmessage_rate = \"100/s\"\nbyte_rate = \"1KiB/min\"\n\
             over_rate = \"close\"\nmax_age = \"1d\"",
        );
        let seconds = Duration::from_secs;
        assert_eq!(route.frames, Frames::Enforce);
        assert_eq!(route.ping, Some(Ping { after: seconds(30), timeout: seconds(20) }));
        assert_eq!(route.max_frame.map(|size| size.bytes()), Some(65_536));
        assert_eq!(route.max_message.map(|size| size.bytes()), Some(1));
        assert_eq!(route.message_rate, Some(Rate { amount: 100, per: seconds(1) }));
        assert_eq!(route.byte_rate, Some(Rate { amount: 1_024, per: seconds(60) }));
        assert_eq!((route.over_rate, route.max_age), (OverRate::Close, Some(seconds(86_400))));
    }

    #[test]
    fn what_counts_bytes_and_time_needs_no_frames() {
        let route = compiled(
            "[[route]]\nframes = \"off\"\nbyte_rate = \"1MiB/s\"\nover_rate = \"throttle\"\n\
             max_age = \"1h\"\nping_timeout = \"5s\"",
        );
        assert_eq!((route.frames, route.ping), (Frames::Off, None));
        assert!(route.byte_rate.is_some() && route.max_age.is_some());
    }
}
