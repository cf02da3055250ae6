//! `tidegate sessions`: which there are, and with `--watch` what becomes of them.

use super::ask::{Query, Socket};
use super::status::print_json;
use super::table::{self, Column};
use super::{CommandError, escape, figures, print};
use crate::admin::snapshot::{SessionInfo, SessionList, Watched};

/// Prints the sessions that `query` asks for.
pub(super) async fn sessions(
    socket: &Socket,
    query: &Query,
    as_json: bool,
) -> Result<(), CommandError> {
    if as_json {
        return print_json(&socket.sessions_text(query).await?);
    }
    let list = socket.sessions(query).await?;
    print(&shown(&list))
}

/// Prints an event on a line as it comes, until the process leaves.
pub(super) async fn watch(
    socket: &Socket,
    query: Query,
    as_json: bool,
) -> Result<(), CommandError> {
    let mut lines = socket.watch(query).await?;
    while let Some(line) = lines.next().await? {
        if as_json {
            print_json(line.as_bytes())?;
        } else if !line.is_empty() {
            print(&format!("{}\n", event(&socket.read(line.as_bytes())?)))?;
        }
    }
    eprintln!("Tidegate has left");
    Ok(())
}

fn shown(list: &SessionList) -> String {
    let count = match list.sessions.len() {
        shown if shown < list.total => {
            format!("{shown} of {}", figures::counted(list.total as u64, "session"))
        }
        _ => figures::counted(list.total as u64, "session"),
    };
    if list.sessions.is_empty() {
        return format!("{count}\n");
    }
    format!("{}\n{count}\n", table::whole(&columns(&list.sessions)).join("\n"))
}

fn columns(sessions: &[SessionInfo]) -> [Column; 11] {
    let all = sessions.iter();
    [
        Column::text("ID", 0, all.clone().map(|one| one.id.clone())),
        Column::text("CLIENT", 0, all.clone().map(|one| one.client.clone())),
        Column::text("ROUTE", 0, all.clone().map(|one| one.route.clone())),
        Column::text("ENDPOINT", 0, all.clone().map(|one| one.endpoint.clone())),
        Column::figures("AGE", all.clone().map(|one| figures::span(one.age_s))),
        Column::figures("IDLE", all.clone().map(|one| figures::span(one.idle_s))),
        Column::figures(
            "MSG UP",
            all.clone().map(|one| figures::count(one.client_to_upstream_messages)),
        ),
        Column::figures(
            "MSG DOWN",
            all.clone().map(|one| figures::count(one.upstream_to_client_messages)),
        ),
        Column::figures(
            "BYTES UP",
            all.clone().map(|one| figures::bytes(one.client_to_upstream_bytes)),
        ),
        Column::figures(
            "BYTES DOWN",
            all.clone().map(|one| figures::bytes(one.upstream_to_client_bytes)),
        ),
        Column::figures("RTT", all.map(|one| figures::round_trip(one.client_rtt_ms))),
    ]
}

/// One line for one event. There is no table to align it with: the next one may be hours away.
fn event(watched: &Watched) -> String {
    let name = escape::field(&watched.event);
    let Some(session) = &watched.session else {
        return match watched.missed {
            Some(missed) => format!("{name:<6}  {}", figures::counted(missed, "event")),
            None => name,
        };
    };
    let mut line = format!(
        "{name:<6}  {}  {:<21}  {}{} -> {}  {}, idle {}, up {} in {}, down {} in {}",
        session.id,
        session.client,
        session.host,
        session.path,
        session.endpoint,
        figures::span(session.age_s),
        figures::span(session.idle_s),
        figures::bytes(session.client_to_upstream_bytes),
        messages(session.client_to_upstream_messages),
        figures::bytes(session.upstream_to_client_bytes),
        messages(session.upstream_to_client_messages),
    );
    match (&watched.ended_by, &watched.why) {
        (Some(by), Some(why)) => line.push_str(&format!("  ended by {by}: {why}")),
        (Some(by), None) => line.push_str(&format!("  ended by {by}")),
        (None, Some(why)) => line.push_str(&format!("  ended: {why}")),
        (None, None) => {}
    }
    escape::field(&line)
}

fn messages(number: u64) -> String {
    format!("{} message{}", figures::count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_limited_list_says_how_many_there_are() {
        let list = SessionList { total: 345, sessions: vec![samples::session()] };
        let shown = shown(&list);
        assert!(shown.starts_with("ID "), "{shown}");
        assert!(shown.contains("203.0.113.7:51234"), "{shown}");
        assert!(shown.ends_with("\n1 of 345 sessions\n"), "{shown}");
    }

    #[test]
    fn a_list_of_none_has_no_head() {
        assert_eq!(shown(&SessionList { total: 0, sessions: Vec::new() }), "0 sessions\n");
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let mut session = samples::session();
        session.path = "/chat\n\x1b[2J".into();
        let end = Watched {
            event: "end".into(),
            session: Some(session),
            missed: None,
            ended_by: Some("client".into()),
            why: Some("closed\r".into()),
        };
        assert_eq!(
            event(&end),
            "end     b1f00d  203.0.113.7:51234      chat.example/chat\\u{a}\\u{1b}[2J -> \
             http://127.0.0.1:3000  5m12s, idle 3s, up 12 KiB in 120 messages, down 3.4 MiB in \
             1 message  ended by client: closed\\u{d}"
        );
    }

    #[test]
    fn missed_events_are_counted() {
        let line = r#"{"event":"missed","missed":12}"#;
        let watched: Watched = serde_json::from_str(line).expect("JSON");
        assert_eq!(event(&watched), "missed  12 events");
    }
}
