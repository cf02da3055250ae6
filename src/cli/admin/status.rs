//! `tidegate status`: the process on one page, for a person or as JSON.

use std::fmt::Write as _;

use super::ask::Socket;
use super::table::{self, Column};
use super::{CommandError, escape, figures, print};
use crate::admin::snapshot::{ConfigStatus, Status};

/// Prints what the process tells about itself.
pub(super) async fn status(socket: &Socket, as_json: bool) -> Result<(), CommandError> {
    if as_json {
        return print_json(&socket.status_text().await?);
    }
    let status = socket.status().await?;
    print(&page(&status))
}

/// Prints a JSON document as it came, on one line of its own.
pub(super) fn print_json(text: &[u8]) -> Result<(), CommandError> {
    let text = String::from_utf8_lossy(text);
    print(&format!("{}\n", escape::json(text.trim_end())))
}

/// The page.
fn page(status: &Status) -> String {
    let mut page = process(status);
    page.push_str(&configuration(&status.config));
    let listeners = status.listeners.iter();
    section(
        &mut page,
        &[
            Column::text("LISTENER", 0, listeners.clone().map(|one| one.address.clone())),
            Column::text("TLS", 0, listeners.map(|one| yes_or_no(one.tls).to_owned())),
        ],
    );
    let certificates = status.certificates.iter();
    section(
        &mut page,
        &[
            Column::text("CERTIFICATE", 0, certificates.clone().map(|one| one.chain.clone())),
            Column::text("NAMES", 0, certificates.clone().map(|one| one.names.join(", "))),
            Column::text("UNTIL", 0, certificates.clone().map(|one| one.not_after.clone())),
            Column::figures("DAYS LEFT", certificates.map(|one| one.days_left.to_string())),
        ],
    );
    section(&mut page, &routes(status));
    section(&mut page, &endpoints(status));
    page
}

fn process(status: &Status) -> String {
    format!(
        "Tidegate {}, pid {}, {} for {}, since {}\n  \
         {}, {} ({} since the start), TLS handshakes: {}, and {} failed\n  \
         memory {}, CPU time {}, descriptors {} of {}, {}\n",
        escape::field(&status.version),
        status.pid,
        escape::field(&status.phase),
        figures::span(status.uptime_s),
        escape::field(&status.started),
        figures::counted(status.sessions, "session"),
        figures::counted(status.connections, "connection"),
        status.connections_total,
        status.tls_handshakes_total,
        status.tls_handshake_failures_total,
        figures::bytes(status.memory_bytes),
        figures::span(status.cpu_s),
        status.descriptors,
        status.descriptors_max,
        figures::counted(status.workers as u64, "worker"),
    )
}

fn configuration(config: &ConfigStatus) -> String {
    let mut text = format!(
        "\nConfiguration {}, loaded {}; {}, and {} failed\n",
        escape::field(&config.path),
        escape::field(&config.loaded),
        figures::counted(config.reloads_total, "reload"),
        config.reload_failures_total,
    );
    if let Some(failure) = &config.last_failure {
        text.push_str("The last reload failed; what ran before it goes on:\n");
        for line in escape::prose(failure).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn routes(status: &Status) -> [Column; 9] {
    let routes = status.routes.iter();
    let both = |up: u64, down: u64| figures::bytes(up.saturating_add(down));
    [
        Column::text("ROUTE", 0, routes.clone().map(|one| one.route.clone())),
        Column::text("UPSTREAM", 0, routes.clone().map(|one| one.upstream.clone())),
        Column::text("STATE", 0, routes.clone().map(|one| one.state.clone())),
        Column::figures("SESSIONS", routes.clone().map(|one| one.sessions.to_string())),
        Column::figures("OPENED", routes.clone().map(|one| one.sessions_opened_total.to_string())),
        Column::figures(
            "REFUSED",
            routes.clone().map(|one| one.handshakes_refused_total.to_string()),
        ),
        Column::figures("REQUESTS", routes.clone().map(|one| one.requests_total.to_string())),
        Column::figures("5XX", routes.clone().map(|one| one.requests_5xx_total.to_string())),
        Column::figures(
            "BYTES",
            routes.map(|one| {
                both(one.client_to_upstream_bytes_total, one.upstream_to_client_bytes_total)
            }),
        ),
    ]
}

fn endpoints(status: &Status) -> [Column; 5] {
    let endpoints = status
        .upstreams
        .iter()
        .flat_map(|upstream| upstream.endpoints.iter().map(move |one| (upstream, one)));
    [
        Column::text("UPSTREAM", 0, endpoints.clone().map(|(of, _)| of.upstream.clone())),
        Column::text("ENDPOINT", 0, endpoints.clone().map(|(_, one)| one.endpoint.clone())),
        Column::text("STATE", 0, endpoints.clone().map(|(_, one)| one.state.clone())),
        Column::figures("IN FLIGHT", endpoints.clone().map(|(_, one)| one.in_flight.to_string())),
        Column::figures("FAILURES", endpoints.map(|(_, one)| one.failures_total.to_string())),
    ]
}

/// A table below an empty line, or nothing where it has no rows.
fn section(page: &mut String, columns: &[Column]) {
    let lines = table::whole(columns);
    if lines.len() > 1 {
        let _ = write!(page, "\n{}\n", lines.join("\n"));
    }
}

fn yes_or_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_page_has_what_a_person_asks_first() {
        let mut status = samples::status();
        status.config.last_failure = Some("error: no upstream\n  --> proxy.toml:1:1\x1b".into());
        let page = page(&status);
        for part in [
            "Tidegate 0.1.0, pid 4711, running for 5m12s",
            "2 sessions, 3 connections",
            "The last reload failed; what ran before it goes on:\n  error: no upstream\n    --> proxy",
            "certs/server.crt",
            "90\n",
            "chat.example/chat",
            "http://127.0.0.1:3000",
            "resting",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(!page.contains('\x1b'), "{page}");
    }
}
