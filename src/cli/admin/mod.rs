//! The commands that ask a running process, over its admin socket. What may be asked is here, and
//! `ask` carries it; what a person sees of the answer is in the file of each command, built of
//! `table`, `figures` and `escape`.

mod act;
mod ask;
mod drain;
mod escape;
mod figures;
mod page;
#[cfg(test)]
mod samples;
mod sessions;
mod status;
mod table;
mod terminal;
mod top;

use std::error::Error;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use tokio::runtime::Builder;

use self::ask::{AskError, Query, Socket};
use self::drain::{DrainError, Part};
use super::Failure;
use crate::config::{self, units};
use crate::ws::close::MAX_CONTROL_BYTES;

/// What can be asked of a running process.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Tell how a running Tidegate is: configuration, certificates, routes, endpoints
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the sessions of a running Tidegate
    Sessions(Sessions),
    /// Close sessions, by id or by what they have in common
    Close(Close),
    /// Read the configuration again; if it has faults, nothing changes
    Reload,
    /// Take no new sessions: the whole process (which then leaves), a route or an endpoint
    Drain(Drain),
    /// Take new sessions again
    Undrain(Undrain),
    /// Watch a running Tidegate: rates, close codes, endpoints and the busiest sessions
    Top(Top),
}

/// Which sessions; those that match all of it.
#[derive(Debug, Clone, Args)]
pub(super) struct Filters {
    /// Sessions on this route: HOST/PATH, as `status` shows it
    #[arg(long)]
    route: Option<String>,

    /// Sessions with this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,

    /// Sessions with this endpoint: HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(long, value_parser = endpoint)]
    endpoint: Option<String>,

    /// Sessions of clients in this network: 203.0.113.7 or 203.0.113.0/24
    #[arg(long, value_name = "NET", value_parser = network)]
    client: Option<String>,

    /// Sessions that are older than this: 30s, 5m, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older: Option<String>,

    /// Sessions on which nothing went for this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    idle: Option<String>,
}

impl Filters {
    fn query(&self) -> Query {
        Query::default()
            .with("route", self.route.as_deref())
            .with("upstream", self.upstream.as_deref())
            .with("endpoint", self.endpoint.as_deref())
            .with("client", self.client.as_deref())
            .with("older", self.older.as_deref())
            .with("idle", self.idle.as_deref())
    }
}

/// `tidegate sessions`.
#[derive(Debug, Clone, Args)]
pub(super) struct Sessions {
    #[command(flatten)]
    filters: Filters,

    /// Which come first: the oldest, the busiest, the most idle, those with the most bytes
    #[arg(long)]
    sort: Option<Sort>,

    /// How many are shown at the most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// As JSON; with --watch, one document on a line
    #[arg(long)]
    json: bool,

    /// Go on: a line for every session that opens or ends
    #[arg(long)]
    watch: bool,
}

/// What sessions are sorted by.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sort {
    Age,
    Rate,
    Idle,
    Bytes,
}

impl Sort {
    fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Rate => "rate",
            Self::Idle => "idle",
            Self::Bytes => "bytes",
        }
    }
}

/// `tidegate close`. All sessions are closed only if that is what was said.
#[derive(Debug, Clone, Args)]
#[command(group(
    ArgGroup::new("which")
        .args(["ids", "all", "route", "upstream", "endpoint", "client", "older", "idle"])
        .required(true)
        .multiple(true)
))]
pub(super) struct Close {
    /// Sessions by their ids, as `sessions` and the log show them
    #[arg(value_name = "ID", conflicts_with_all = ["all", "Filters"])]
    ids: Vec<String>,

    #[command(flatten)]
    filters: Filters,

    /// Every session there is
    #[arg(long, conflicts_with = "Filters")]
    all: bool,

    /// The close code that both sides get: 1000 to 1014 or 3000 to 4999 [default: 1001]
    #[arg(long, value_name = "NUMBER", value_parser = close_code)]
    code: Option<u16>,

    /// The reason that both sides get
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,

    /// How many are closed in a time, so that they do not all come back at once: 100/s
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<String>,
}

impl Close {
    fn query(&self) -> Query {
        let query =
            self.ids.iter().fold(self.filters.query(), |query, id| query.with("id", Some(id)));
        query
            .with("all", self.all.then_some("true"))
            .with("code", self.code.map(|code| code.to_string()).as_deref())
            .with("reason", self.reason.as_deref())
            .with("rate", self.rate.as_deref())
    }
}

/// `tidegate drain`.
#[derive(Debug, Clone, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    place: Place,

    /// Wait until its sessions are gone
    #[arg(long)]
    wait: bool,
}

/// `tidegate undrain`. A process that drains cannot be kept.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("which").args(["route", "upstream"]).required(true)))]
pub(super) struct Undrain {
    #[command(flatten)]
    place: Place,
}

/// A part of the process.
#[derive(Debug, Clone, Args)]
pub(super) struct Place {
    /// This route: HOST/PATH, as `status` shows it
    #[arg(long, conflicts_with = "upstream")]
    route: Option<String>,

    /// An endpoint of this upstream
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    upstream: Option<String>,

    /// This endpoint: HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(long, value_parser = endpoint, requires = "upstream")]
    endpoint: Option<String>,
}

impl Place {
    fn part(&self) -> Part {
        match (&self.route, &self.upstream, &self.endpoint) {
            (Some(route), _, _) => Part::Route(route.clone()),
            (None, Some(upstream), Some(endpoint)) => {
                Part::Endpoint { upstream: upstream.clone(), endpoint: endpoint.clone() }
            }
            // clap has seen to it that there is no upstream without an endpoint.
            (None, _, _) => Part::Process,
        }
    }
}

/// `tidegate top`.
#[derive(Debug, Clone, Args)]
pub(super) struct Top {
    /// Print one page and leave, as it does where the output is no terminal
    #[arg(long)]
    once: bool,

    /// How long there is between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Drain(#[from] DrainError),
    #[error("writing to the standard output")]
    Output { source: io::Error },
    #[error("using the terminal")]
    Terminal { source: io::Error },
}

/// Asks the process on `socket`, and prints what it says.
pub(super) fn run(command: &Command, socket: &Path) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(answer(command, &Socket::new(socket))) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever read the output has had enough of it, as `head` does.
        Err(CommandError::Output { source }) if source.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(failure(&error)),
    }
}

async fn answer(command: &Command, socket: &Socket) -> Result<(), CommandError> {
    match command {
        Command::Status { json } => status::status(socket, *json).await,
        Command::Sessions(asked) => {
            let limit = asked.limit.map(|limit| limit.to_string());
            let query = asked
                .filters
                .query()
                .with("sort", asked.sort.map(Sort::name))
                .with("limit", limit.as_deref());
            if asked.watch {
                sessions::watch(socket, query, asked.json).await
            } else {
                sessions::sessions(socket, &query, asked.json).await
            }
        }
        Command::Close(asked) => act::close(socket, &asked.query()).await,
        Command::Reload => act::reload(socket).await,
        Command::Drain(asked) if asked.wait => {
            drain::drain_and_wait(socket, &asked.place.part()).await
        }
        Command::Drain(asked) => drain::drain(socket, &asked.place.part()).await,
        Command::Undrain(asked) => drain::undrain(socket, &asked.place.part()).await,
        Command::Top(asked) => top::top(socket, asked.once, asked.interval).await,
    }
}

/// The chain of an error on one line; faults of a configuration are lines of their own.
fn failure(error: &CommandError) -> Failure {
    if let CommandError::Ask(AskError::Faults(faults)) = error {
        let faults = escape::prose(faults);
        return Failure(format!("{faults}\nthe reload failed, and nothing was changed\n"));
    }
    let mut text = format!("error: {error}");
    let mut source = error.source();
    while let Some(why) = source {
        text.push_str(&format!(": {why}"));
        source = why.source();
    }
    Failure(format!("{}\n", escape::prose(&text)))
}

/// Writes to the standard output, at once: `--watch` has readers that wait for every line.
fn print(text: &str) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|source| CommandError::Output { source })
}

/// An endpoint the way the process writes it, whichever way it was typed.
fn endpoint(text: &str) -> Result<String, String> {
    if text == config::EndpointAddr::Echo.to_string() {
        return Ok(text.to_owned());
    }
    config::parse_endpoint(text).map(|endpoint| endpoint.to_string())
}

fn network(text: &str) -> Result<String, String> {
    units::network(text).map(|_| text.to_owned())
}

fn duration(text: &str) -> Result<String, units::UnitError> {
    units::duration(text).map(|_| text.to_owned())
}

/// Faster than this there is more looking than working.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = units::duration(text).map_err(|error| error.to_string())?;
    if interval < SHORTEST_INTERVAL {
        return Err(format!("write {SHORTEST_INTERVAL:?} or more"));
    }
    Ok(interval)
}

fn rate(text: &str) -> Result<String, units::UnitError> {
    units::Rate::parse_count(text).map(|_| text.to_owned())
}

/// The codes that may stand in a Close: 1004 has no meaning, and 1005, 1006 and 1015 say that there
/// was none (RFC 6455 §7.4).
fn close_code(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(code @ (1000..=1003 | 1007..=1014 | 3000..=4999)) => Ok(code),
        _ => Err("write 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 §7.4)".to_owned()),
    }
}

/// A reason that is too long would arrive cut.
fn reason(text: &str) -> Result<String, String> {
    let room = MAX_CONTROL_BYTES - 2;
    if text.len() > room {
        return Err(format!("it has {} bytes, and a Close has room for {room}", text.len()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use clap::error::ErrorKind;

    use super::super::{Arguments, Command as AnyCommand};
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let arguments = Arguments::try_parse_from(line.split(' '))?;
        match arguments.command {
            Some(AnyCommand::Admin(command)) => Ok(*command),
            other => panic!("{line} is {other:?}"),
        }
    }

    fn refusal(line: &str) -> ErrorKind {
        parse(line).expect_err(line).kind()
    }

    #[test]
    fn close_wants_to_know_which() {
        for line in ["tidegate close", "tidegate close --code 1001 --reason bye --rate 5/s"] {
            assert_eq!(refusal(line), ErrorKind::MissingRequiredArgument, "{line}");
        }
        for line in [
            "tidegate close --all --route x",
            "tidegate close b1 --all",
            "tidegate close b1 --idle 5m",
        ] {
            assert_eq!(refusal(line), ErrorKind::ArgumentConflict, "{line}");
        }
        for line in [
            "tidegate close b1 b2 --code 4000",
            "tidegate close --all --rate 100/s",
            "tidegate close --route a/b --client 10.0.0.0/8 --older 5m",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_close_says_only_what_a_close_can() {
        let long = format!("tidegate close --all --reason {}", "x".repeat(124));
        for line in ["tidegate close --all --code 1005", "tidegate close --all --code 2000", &long]
        {
            assert_eq!(refusal(line), ErrorKind::ValueValidation, "{line}");
        }
    }

    #[test]
    fn an_endpoint_is_drained_with_its_upstream() {
        for line in [
            "tidegate drain --upstream chat",
            "tidegate drain --endpoint a:1",
            "tidegate undrain",
            "tidegate undrain --upstream chat",
        ] {
            assert_eq!(refusal(line), ErrorKind::MissingRequiredArgument, "{line}");
        }
        let both = "tidegate drain --route a/b --upstream chat --endpoint a:1";
        assert_eq!(refusal(both), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn an_endpoint_may_be_written_without_its_scheme() {
        for (typed, meant) in [
            ("127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("ws://127.0.0.1:3000/", "http://127.0.0.1:3000"),
            ("https://a", "https://a:443"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("builtin:echo", "builtin:echo"),
        ] {
            assert_eq!(endpoint(typed).as_deref(), Ok(meant), "{typed}");
        }
    }

    #[test]
    fn options_have_their_units() {
        for line in [
            "tidegate sessions --older 5",
            "tidegate sessions --client chat.example",
            "tidegate close --all --rate 100",
            "tidegate top --interval 10ms",
        ] {
            assert_eq!(refusal(line), ErrorKind::ValueValidation, "{line}");
        }
    }
}
