//! The page of `tidegate top`: two looks at a process and the size of a screen in, lines out.
//! Nothing is wider than the screen, and there are no more lines than it has.

use std::collections::BTreeMap;

use super::table::{self, Column};
use super::{escape, figures};
use crate::admin::snapshot::{EndpointStatus, RouteStatus, SessionInfo, SessionList, Status};

/// How large a screen is, in characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// What there is to show.
#[derive(Debug)]
pub(super) struct Look<'a> {
    /// What the process told before; `None` at the first look.
    pub(super) before: Option<&'a Status>,
    /// What it told last.
    pub(super) now: &'a Status,
    /// How long there was between the two.
    pub(super) seconds: f64,
    /// The busiest sessions, and how many there are.
    pub(super) sessions: &'a SessionList,
    /// Why there is nothing newer, if there should be.
    pub(super) trouble: Option<&'a str>,
}

/// A line of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// One that eyes should find.
    Head(String),
    /// One below it.
    Plain(String),
}

impl Line {
    /// What is on it.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Head(text) | Self::Plain(text) => text,
        }
    }
}

/// So many of the busiest sessions are shown before routes and endpoints get more lines.
const SESSIONS_FIRST: usize = 5;

/// The page.
pub(super) fn page(look: &Look<'_>, size: Size) -> Vec<Line> {
    let rates = Rates::new(look);
    let mut page = header(look, &rates);
    page.extend(closes(look.now).into_iter().map(Line::Plain));
    let mut lines: Vec<Line> = page.into_iter().map(|line| fit(line, size.columns)).collect();

    let endpoints: Vec<Endpoint<'_>> = endpoints(look.now);
    // What is left is for the rows of three tables, each with a head.
    let room = size.rows.saturating_sub(lines.len()).saturating_sub(3);
    let wanted = [look.now.routes.len(), endpoints.len(), look.sessions.sessions.len()];
    let [for_routes, for_endpoints, for_sessions] = share(room, wanted);

    lines.extend(section(
        table::fitted(&route_columns(&busiest(&look.now.routes, for_routes), &rates), size.columns),
        hidden(wanted[0], for_routes, "route"),
        size,
    ));
    lines.extend(section(
        table::fitted(&endpoint_columns(&worst(endpoints, for_endpoints)), size.columns),
        hidden(wanted[1], for_endpoints, "endpoint"),
        size,
    ));
    let shown = look.sessions.sessions.iter().take(for_sessions);
    lines.extend(section(
        table::fitted(&session_columns(shown), size.columns),
        // The others are counted above, and `tidegate sessions` has them.
        None,
        size,
    ));
    lines.truncate(size.rows);
    lines
}

/// Fits a line that is no part of a table.
fn fit(line: Line, columns: usize) -> Line {
    let fit = |text: String| table::cut(&escape::field(&text), columns);
    match line {
        Line::Head(text) => Line::Head(fit(text)),
        Line::Plain(text) => Line::Plain(fit(text)),
    }
}

/// A table, and how many rows it should have had besides.
fn section(table: Vec<String>, hidden: Option<String>, size: Size) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (number, line) in table.into_iter().enumerate() {
        lines.push(if number == 0 { Line::Head(line) } else { Line::Plain(line) });
    }
    lines.extend(hidden.map(|text| Line::Plain(table::cut(&text, size.columns))));
    lines
}

/// How many rows each of three tables gets. One that is cut gets one row less, for the line that
/// says so; sessions are never said to be cut.
fn share(room: usize, [routes, endpoints, sessions]: [usize; 3]) -> [usize; 3] {
    let kept = sessions.min(SESSIONS_FIRST).min(room / 3);
    let rest = room - kept;
    let half = rest / 2;
    // Whoever needs less than half leaves it to the other.
    let for_routes = routes.min(half.max(rest.saturating_sub(endpoints)));
    let for_endpoints = endpoints.min(rest - for_routes);
    [for_routes, for_endpoints, sessions.min(room - for_routes - for_endpoints)]
}

/// How many rows are shown of a table that may have to say how many are not.
fn shown(all: usize, room: usize) -> usize {
    if all > room { room.saturating_sub(1) } else { all }
}

fn hidden(all: usize, room: usize, what: &str) -> Option<String> {
    let hidden = all - shown(all, room);
    // Without any room there is none to say so either.
    (hidden > 0 && room > 0).then(|| format!("and {} more", figures::counted(hidden as u64, what)))
}

/// The process, in two or three lines.
fn header(look: &Look<'_>, rates: &Rates<'_>) -> Vec<Line> {
    let now = look.now;
    let mut lines = vec![
        Line::Head(format!(
            "Tidegate {}  pid {}  {}  up {}",
            now.version,
            now.pid,
            now.phase,
            figures::span(now.uptime_s),
        )),
        Line::Plain(format!(
            "{}  {}  {} handshakes/s ({} failed)",
            short("session", now.sessions),
            short("connection", now.connections),
            figures::rate(rates.of(|status| status.tls_handshakes_total)),
            figures::rate(rates.of(|status| status.tls_handshake_failures_total)),
        )),
        Line::Plain(format!(
            "memory {}  cpu {}  descriptors {} of {}",
            figures::bytes(now.memory_bytes),
            rates.cpu().map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0)),
            figures::count(now.descriptors),
            figures::count(now.descriptors_max),
        )),
    ];
    if let Some(trouble) = look.trouble {
        lines.insert(0, Line::Head(trouble.to_owned()));
    }
    if now.config.last_failure.is_some() {
        lines.push(Line::Head("the last reload failed: `tidegate status` says why".to_owned()));
    }
    lines
}

fn short(what: &str, number: u64) -> String {
    format!("{} {what}{}", figures::count(number), if number == 1 { "" } else { "s" })
}

/// The close codes of all routes, the most frequent first.
fn closes(now: &Status) -> [String; 2] {
    [
        codes("closed by clients", now.routes.iter().map(|one| &one.client_close_codes_total)),
        codes("closed by upstreams", now.routes.iter().map(|one| &one.upstream_close_codes_total)),
    ]
}

fn codes<'a>(what: &str, of_routes: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> String {
    let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
    for (code, number) in of_routes.flatten() {
        let sum = codes.entry(code).or_default();
        *sum = sum.saturating_add(*number);
    }
    let mut codes: Vec<_> = codes.into_iter().filter(|(_, number)| *number > 0).collect();
    codes.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let codes: Vec<String> = codes
        .into_iter()
        .map(|(code, number)| format!("{code} x {}", figures::count(number)))
        .collect();
    let codes = if codes.is_empty() { "none yet".to_owned() } else { codes.join(", ") };
    format!("{what}: {codes}")
}

/// The routes in the order of the file; where they are too many, the busiest.
fn busiest(routes: &[RouteStatus], room: usize) -> Vec<&RouteStatus> {
    let mut shown_routes: Vec<&RouteStatus> = routes.iter().collect();
    if routes.len() > room {
        shown_routes.sort_by_key(|route| std::cmp::Reverse(route.sessions));
        shown_routes.truncate(shown(routes.len(), room));
    }
    shown_routes
}

fn route_columns(routes: &[&RouteStatus], rates: &Rates<'_>) -> Vec<Column> {
    let per_second = |of: fn(&RouteStatus) -> u64| {
        routes.iter().map(move |route| figures::rate(rates.of_route(route, of)))
    };
    let bytes_per_second = |of: fn(&RouteStatus) -> u64| {
        routes.iter().map(move |route| figures::byte_rate(rates.of_route(route, of)))
    };
    let sessions = routes.iter().map(|route| figures::count(route.sessions));
    let mut columns =
        vec![Column::text("ROUTE", 12, routes.iter().map(|route| route.route.clone()))];
    columns.push(
        Column::text("UPSTREAM", 8, routes.iter().map(|route| route.upstream.clone()))
            .dispensable(5),
    );
    if routes.iter().any(|route| route.state != "up") {
        columns.push(Column::text("STATE", 8, routes.iter().map(|route| route.state.clone())));
    }
    columns.extend([
        Column::figures("SESSIONS", sessions),
        Column::figures("OPEN/S", per_second(|route| route.sessions_opened_total)).dispensable(2),
        Column::figures("END/S", per_second(|route| route.sessions_ended_total)).dispensable(2),
        Column::figures("MSG/S UP", per_second(|route| route.client_to_upstream_messages_total))
            .dispensable(1),
        Column::figures("DOWN", per_second(|route| route.upstream_to_client_messages_total))
            .dispensable(1),
        Column::figures("BYTES/S UP", bytes_per_second(|one| one.client_to_upstream_bytes_total)),
        Column::figures("DOWN", bytes_per_second(|one| one.upstream_to_client_bytes_total)),
        Column::figures("REFUSED/S", per_second(|route| route.handshakes_refused_total))
            .dispensable(3),
        Column::figures("REQ/S", per_second(|route| route.requests_total)).dispensable(4),
        Column::figures("5XX/S", per_second(|route| route.requests_5xx_total)).dispensable(4),
    ]);
    columns
}

/// An endpoint and the name of its upstream.
#[derive(Debug, Clone, Copy)]
struct Endpoint<'a> {
    upstream: &'a str,
    status: &'a EndpointStatus,
}

fn endpoints(now: &Status) -> Vec<Endpoint<'_>> {
    let mut all = Vec::new();
    for upstream in &now.upstreams {
        for status in &upstream.endpoints {
            all.push(Endpoint { upstream: &upstream.upstream, status });
        }
    }
    all
}

/// The endpoints in the order of the file; where they are too many, those that are not up and then
/// the busiest.
fn worst(mut endpoints: Vec<Endpoint<'_>>, room: usize) -> Vec<Endpoint<'_>> {
    if endpoints.len() > room {
        endpoints
            .sort_by_key(|one| (one.status.state == "up", std::cmp::Reverse(one.status.in_flight)));
        endpoints.truncate(shown(endpoints.len(), room));
    }
    endpoints
}

fn endpoint_columns(endpoints: &[Endpoint<'_>]) -> [Column; 5] {
    let all = endpoints.iter();
    [
        Column::text("ENDPOINT", 12, all.clone().map(|one| one.status.endpoint.clone())),
        Column::text("UPSTREAM", 8, all.clone().map(|one| one.upstream.to_owned())),
        Column::text("STATE", 8, all.clone().map(|one| one.status.state.clone())),
        Column::figures("IN FLIGHT", all.clone().map(|one| figures::count(one.status.in_flight))),
        Column::figures("FAILURES", all.map(|one| figures::count(one.status.failures_total)))
            .dispensable(1),
    ]
}

fn session_columns<'a>(sessions: impl Iterator<Item = &'a SessionInfo> + Clone) -> [Column; 12] {
    let all = sessions;
    // Half an id closes no session, and an IPv4 address with its port has 21 characters.
    [
        Column::text("SESSION", 16, all.clone().map(|one| one.id.clone())),
        Column::text("CLIENT", 21, all.clone().map(|one| one.client.clone())),
        Column::text("ROUTE", 8, all.clone().map(|one| one.route.clone())),
        Column::text("PATH", 10, all.clone().map(|one| one.path.clone())).dispensable(5),
        Column::text("ENDPOINT", 10, all.clone().map(|one| one.endpoint.clone())).dispensable(3),
        Column::figures("AGE", all.clone().map(|one| figures::span(one.age_s))),
        Column::figures("IDLE", all.clone().map(|one| figures::span(one.idle_s))).dispensable(1),
        Column::figures("RTT", all.clone().map(|one| figures::round_trip(one.client_rtt_ms)))
            .dispensable(2),
        Column::figures(
            "MSG UP",
            all.clone().map(|one| figures::count(one.client_to_upstream_messages)),
        )
        .dispensable(4),
        Column::figures(
            "DOWN",
            all.clone().map(|one| figures::count(one.upstream_to_client_messages)),
        )
        .dispensable(4),
        Column::figures(
            "BYTES",
            all.clone().map(|one| {
                let up = one.client_to_upstream_bytes;
                figures::bytes(up.saturating_add(one.upstream_to_client_bytes))
            }),
        )
        .dispensable(4),
        Column::figures("BYTES/S", all.map(|one| figures::byte_rate(Some(one.bytes_per_s)))),
    ]
}

/// What went on between two looks at the same process.
#[derive(Debug)]
struct Rates<'a> {
    before: Option<&'a Status>,
    now: &'a Status,
    seconds: f64,
}

impl<'a> Rates<'a> {
    fn new(look: &Look<'a>) -> Self {
        let now = look.now;
        // What another process counted says nothing of this one.
        let before = look
            .before
            .filter(|before| before.pid == now.pid && before.started == now.started)
            .filter(|_| look.seconds > 0.0);
        Self { before, now, seconds: look.seconds }
    }

    fn of(&self, count: impl Fn(&Status) -> u64) -> Option<f64> {
        self.per_second(count(self.before?), count(self.now))
    }

    fn of_route(&self, now: &RouteStatus, count: fn(&RouteStatus) -> u64) -> Option<f64> {
        let before = self.before?.routes.iter().filter(|route| route.route == now.route);
        let is_removed = |route: &RouteStatus| route.state == "removed";
        // A route that was removed may have a successor of the same name; of a route that is new,
        // everything is.
        let was = before
            .clone()
            .find(|route| is_removed(route) == is_removed(now))
            .or_else(|| before.clone().next());
        self.per_second(was.map_or(0, count), count(now))
    }

    /// `None` where a counter went backwards: then it is not the one that it was.
    fn per_second(&self, before: u64, now: u64) -> Option<f64> {
        now.checked_sub(before).map(|more| more as f64 / self.seconds)
    }

    /// How much of one CPU the process used.
    fn cpu(&self) -> Option<f64> {
        let used = self.now.cpu_s - self.before?.cpu_s;
        (used >= 0.0).then_some(used / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    const SMALL: Size = Size { columns: 80, rows: 24 };
    const LARGE: Size = Size { columns: 200, rows: 50 };

    /// The page after one second in which `grow` happened.
    fn after(grow: impl Fn(&mut Status), size: Size) -> String {
        let before = samples::status();
        let mut now = samples::status();
        grow(&mut now);
        let sessions = SessionList { total: 2, sessions: vec![samples::session(); 2] };
        shown(&look(&before, &now, &sessions), size)
    }

    fn look<'a>(before: &'a Status, now: &'a Status, sessions: &'a SessionList) -> Look<'a> {
        Look { before: Some(before), now, seconds: 2.0, sessions, trouble: None }
    }

    /// The page as text; that it fits is checked on the way.
    fn shown(look: &Look<'_>, size: Size) -> String {
        let page = page(look, size);
        assert!(page.len() <= size.rows, "{} lines", page.len());
        for line in &page {
            let line = line.text();
            assert!(line.chars().count() <= size.columns, "too wide for {size:?}: {line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        page.iter().map(|line| format!("{}\n", line.text())).collect()
    }

    fn crowd(status: &mut Status) {
        let long = "very-long-name.".repeat(20);
        status.routes =
            (0..40).map(|n| samples::route(&format!("{n}.{long}/宽\x1b[2J\n"))).collect();
        status.upstreams[0].upstream = long.clone();
        status.upstreams[0].endpoints =
            (0..40).map(|n| samples::endpoint(&format!("http://{n}.{long}"), "up")).collect();
        status.upstreams[0].endpoints[39].state = "resting".into();
    }

    #[test]
    fn a_small_screen_has_the_whole_story() {
        let page = after(
            |now| {
                now.cpu_s += 0.5;
                now.tls_handshakes_total += 70;
                now.routes[0].sessions_opened_total += 6;
                now.routes[0].client_to_upstream_messages_total += 2_468;
                now.routes[0].upstream_to_client_bytes_total += 7_130_317;
            },
            SMALL,
        );
        assert_eq!(
            page,
            "\
Tidegate 0.1.0  pid 4711  running  up 5m12s
2 sessions  3 connections  35 handshakes/s (0 failed)
memory 34 MiB  cpu 25%  descriptors 40 of 1.0M
closed by clients: 1000 x 90, 1006 x 3
closed by upstreams: 1001 x 7
ROUTE              SESSIONS  OPEN/S  END/S  MSG/S UP  DOWN  BYTES/S UP     DOWN
chat.example/chat         2     3.0      0      1.2k     0         0 B  3.4 MiB
ENDPOINT               UPSTREAM  STATE    IN FLIGHT  FAILURES
http://127.0.0.1:3000  chat      up               2         1
http://127.0.0.1:3001  chat      resting          2         1
SESSION  CLIENT             ROUTE        ENDPOINT       AGE  IDLE   RTT  BYTES/S
b1f00d   203.0.113.7:51234  chat.examp~  http://127~  5m12s    3s  23ms  2.0 KiB
b1f00d   203.0.113.7:51234  chat.examp~  http://127~  5m12s    3s  23ms  2.0 KiB
"
        );
    }

    #[test]
    fn a_large_screen_has_more_columns() {
        let page = after(|_| {}, LARGE);
        for head in ["REQ/S", "5XX/S", "PATH", "ENDPOINT", "FAILURES", "RTT", "BYTES  BYTES/S"] {
            assert!(page.contains(head), "{head} is not in\n{page}");
        }
    }

    #[test]
    fn everything_fits_whatever_there_is() {
        let mut session = samples::session();
        session.path = format!("/宽\u{202e}\x1b[31m\r\n{}", "x".repeat(5_000));
        session.client = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".into();
        session.bytes_per_s = f64::MAX;
        let mut now = samples::status();
        crowd(&mut now);
        now.routes[0].state = "draining".into();
        now.config.last_failure = Some("error\nof several lines".into());
        now.phase = "draining\x1b".into();
        let sessions = SessionList { total: 345, sessions: vec![session; 60] };
        let before = samples::status();
        let mut look = look(&before, &now, &sessions);
        look.trouble = Some("no Tidegate answers on run/tidegate.sock\n");
        for columns in [0, 1, 7, 20, 40, 80, 132, 200] {
            for rows in [0, 1, 5, 8, 24, 50, 200, usize::MAX] {
                shown(&look, Size { columns, rows });
            }
        }
        let page = shown(&look, SMALL);
        assert_eq!(page.lines().count(), 24, "{page}");
        for part in [
            "and 36 routes more",
            "and 36 endpoints more",
            "resting",
            "SESSION ",
            "no Tidegate answers",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }

    #[test]
    fn a_counter_that_went_backwards_has_no_rate() {
        let page = after(|now| now.routes[0].sessions_opened_total = 0, SMALL);
        let route = page.lines().find(|line| line.starts_with("chat.example")).expect("a route");
        let figures: Vec<&str> = route.split_whitespace().collect();
        assert_eq!(figures[1..4], ["2", "-", "0"], "{page}");
    }

    #[test]
    fn another_process_has_no_rates_yet() {
        let page = after(
            |now| {
                now.pid += 1;
                now.cpu_s = 0.1;
                now.tls_handshakes_total += 1_000_000;
            },
            SMALL,
        );
        assert!(page.contains("- handshakes/s (- failed)"), "{page}");
        assert!(page.contains("cpu -"), "{page}");
    }

    #[test]
    fn the_first_look_has_no_rates() {
        let now = samples::status();
        let sessions = SessionList { total: 0, sessions: Vec::new() };
        let look =
            Look { before: None, now: &now, seconds: 0.0, sessions: &sessions, trouble: None };
        assert!(shown(&look, SMALL).contains("- handshakes/s"));
    }

    #[test]
    fn a_process_may_have_no_routes() {
        let page = after(
            |now| {
                now.routes.clear();
                now.upstreams.clear();
            },
            SMALL,
        );
        assert!(page.contains("closed by clients: none yet"), "{page}");
        assert!(page.contains("\nROUTE "), "{page}");
    }

    #[test]
    fn a_route_that_is_new_counts_from_nothing() {
        let page = after(|now| now.routes.push(samples::route("new.example/")), SMALL);
        let route = page.lines().find(|line| line.starts_with("new.example/")).expect("a route");
        assert!(route.contains(" 51 "), "{page}");
    }

    #[test]
    fn lines_are_shared_out() {
        for (room, wanted, given) in [
            (16, [2, 3, 100], [2, 3, 11]),
            (16, [40, 40, 100], [5, 6, 5]),
            (16, [40, 1, 100], [10, 1, 5]),
            (16, [1, 40, 100], [1, 10, 5]),
            (16, [40, 40, 0], [8, 8, 0]),
            (2, [5, 5, 5], [1, 1, 0]),
            (0, [5, 5, 5], [0, 0, 0]),
        ] {
            assert_eq!(share(room, wanted), given, "{room} {wanted:?}");
        }
    }
}
