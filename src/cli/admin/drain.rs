//! `tidegate drain` and `undrain`: the whole process, a route or an endpoint gets no new sessions,
//! or gets them again; with `--wait` until the old ones are gone.

use std::time::Duration;

use super::act::say;
use super::ask::{AskError, Query, Socket};
use super::{CommandError, figures};
use crate::admin::snapshot::{EndpointStatus, Status};

/// How often a drain that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is drained.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// Everything; then the process leaves.
    Process,
    /// A route, by host and path or by its path alone.
    Route(String),
    /// An endpoint of an upstream.
    Endpoint {
        /// The upstream's name.
        upstream: String,
        /// The endpoint's address, with its scheme.
        endpoint: String,
    },
}

impl Part {
    fn query(&self) -> Query {
        let query = Query::default();
        match self {
            Self::Process => query,
            Self::Route(route) => query.with("route", Some(route)),
            Self::Endpoint { upstream, endpoint } => {
                query.with("upstream", Some(upstream)).with("endpoint", Some(endpoint))
            }
        }
    }
}

/// How far a drain has come.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// So many sessions, or sessions and requests, are left.
    Left(u64),
    /// All of them are gone.
    Gone,
    /// Somebody has ended it.
    Undrained,
}

/// Why waiting for a drain was in vain.
#[derive(Debug, thiserror::Error)]
pub(super) enum DrainError {
    /// By an `undrain` of somebody else's.
    #[error("it is no longer drained: it was undrained meanwhile")]
    Undrained,
    /// What is drained is a matter of one process.
    #[error("another process (pid {0}) has taken over, and does not drain this")]
    TakenOver(u32),
}

/// Begins a drain.
pub(super) async fn drain(socket: &Socket, part: &Part) -> Result<(), CommandError> {
    say(&socket.act("/drain", &part.query()).await?)
}

/// Begins a drain, and waits for its end.
pub(super) async fn drain_and_wait(socket: &Socket, part: &Part) -> Result<(), CommandError> {
    // Asked before: a process without sessions may be gone as soon as it drains.
    let pid = socket.status().await?.pid;
    drain(socket, part).await?;
    let mut said = None;
    loop {
        let progress = match socket.status().await {
            Ok(status) if status.pid == pid => progress(&status, part),
            // The socket is that of the process which replaced it.
            Ok(status) => match part {
                Part::Process => Progress::Gone,
                _ => return Err(DrainError::TakenOver(status.pid).into()),
            },
            // A process that is gone has no sessions either.
            Err(AskError::Nobody(_) | AskError::WentAway(_)) => Progress::Gone,
            // It is busy; that is no news of its sessions.
            Err(AskError::Late { .. }) => Progress::Left(said.unwrap_or_default()),
            Err(error) => return Err(error.into()),
        };
        match progress {
            Progress::Gone => {
                eprintln!("all gone");
                return Ok(());
            }
            Progress::Undrained => return Err(DrainError::Undrained.into()),
            Progress::Left(left) if said != Some(left) => {
                eprintln!("{}", waiting(part, left));
                said = Some(left);
            }
            Progress::Left(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Ends a drain.
pub(super) async fn undrain(socket: &Socket, part: &Part) -> Result<(), CommandError> {
    say(&socket.act("/undrain", &part.query()).await?)
}

/// What `status` says of the drain.
fn progress(status: &Status, part: &Part) -> Progress {
    match part {
        // The process itself may outlive its last session by a moment.
        Part::Process => Progress::Left(status.sessions),
        Part::Route(name) => {
            // A route that was removed may have a successor of the same name.
            let routes = status.routes.iter().filter(|route| is_named(&route.route, name));
            if routes.clone().any(|route| route.state == "up") {
                return Progress::Undrained;
            }
            left(routes.map(|route| route.sessions).sum())
        }
        Part::Endpoint { upstream, endpoint } => match find(status, upstream, endpoint) {
            None => Progress::Gone,
            Some(found) if !matches!(found.state.as_str(), "draining" | "removed") => {
                Progress::Undrained
            }
            Some(found) => left(found.in_flight),
        },
    }
}

/// Whether a route, of which host and path are known, is meant by `name`.
fn is_named(route: &str, name: &str) -> bool {
    route == name || route.find('/').is_some_and(|at| &route[at..] == name)
}

fn left(number: u64) -> Progress {
    if number == 0 { Progress::Gone } else { Progress::Left(number) }
}

fn find<'a>(status: &'a Status, upstream: &str, endpoint: &str) -> Option<&'a EndpointStatus> {
    let upstream = status.upstreams.iter().find(|one| one.upstream == upstream)?;
    upstream.endpoints.iter().find(|one| one.endpoint == endpoint)
}

fn waiting(part: &Part, left: u64) -> String {
    match part {
        Part::Process if left == 0 => "no session is left; waiting for the process".to_owned(),
        Part::Process | Part::Route(_) => {
            format!("{} left", figures::counted(left, "session"))
        }
        Part::Endpoint { .. } => format!("{left} in flight, requests included"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_route_is_drained_when_its_sessions_are_gone() {
        let part = Part::Route("/chat".into());
        let mut status = samples::status();
        assert_eq!(progress(&status, &part), Progress::Undrained);
        status.routes[0].state = "draining".into();
        assert_eq!(progress(&status, &part), Progress::Left(2));
        status.routes[0].sessions = 0;
        assert_eq!(progress(&status, &part), Progress::Gone);
        status.routes.clear();
        assert_eq!(progress(&status, &part), Progress::Gone);
    }

    #[test]
    fn an_endpoint_is_drained_when_nothing_is_in_flight() {
        let part =
            Part::Endpoint { upstream: "chat".into(), endpoint: "http://127.0.0.1:3000".into() };
        let mut status = samples::status();
        assert_eq!(progress(&status, &part), Progress::Undrained);
        status.upstreams[0].endpoints[0].state = "draining".into();
        assert_eq!(progress(&status, &part), Progress::Left(2));
        status.upstreams[0].endpoints[0].in_flight = 0;
        assert_eq!(progress(&status, &part), Progress::Gone);
    }

    #[test]
    fn a_process_is_drained_when_it_is_gone() {
        let mut status = samples::status();
        status.sessions = 0;
        assert_eq!(progress(&status, &Part::Process), Progress::Left(0));
    }
}
