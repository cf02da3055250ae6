//! The command line: what can be asked for, and the exit codes.

mod admin;
mod banner;
mod check;
mod init;
mod run;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config;
use crate::lifecycle::source::{ALL_ROUTES, Source, Tracing};

/// Puts TLS in front of WebSocket and HTTP backends: listens on 80 and 443, terminates TLS,
/// forwards, and relays for as long as both sides like.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    after_help = "\
Examples:
  tidegate                              run with ./proxy.toml
  tidegate --to ws://127.0.0.1:3000     run in front of one backend, without a file
  tidegate init                         write a commented ./proxy.toml
  tidegate check                        say everything that is wrong with ./proxy.toml
  tidegate top                          watch the process that runs with ./proxy.toml
  tidegate reload                       have it read ./proxy.toml again

Exit codes: 0 all well, 1 configuration, start or no answer, 2 usage, 3 a drain had to cut."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// The configuration file
    #[arg(long, short, global = true, value_name = "PATH", default_value = "proxy.toml")]
    config: PathBuf,

    /// The admin socket of a running process, where it is not the one of the configuration file
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Run without a file, in front of this backend: ws://HOST:PORT, http://…, https://… or unix:/PATH
    #[arg(long, value_name = "URL", value_parser = endpoint, conflicts_with = "config")]
    to: Option<String>,

    /// Print the header of every frame on all routes, or on one: --trace-frames=/chat
    #[arg(
        long,
        global = true,
        value_name = "ROUTE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ALL_ROUTES
    )]
    trace_frames: Vec<String>,

    /// Print the beginning of their payload too. It may hold secrets
    #[arg(long, global = true, requires = "trace_frames")]
    trace_payload: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy (the default)
    Run,
    /// Check the configuration and say everything that is wrong with it
    Check,
    /// Write a commented proxy.toml that works as it is
    Init,
    #[command(flatten)]
    Admin(Box<admin::Command>),
}

/// A configuration or start that failed; its text is already what a person should read.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("error: {error}\n"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const DRAIN_CUT: u8 = 3;

/// Does what the arguments of the process say. Wrong usage ends in clap's words with exit code 2.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(complaint) = misplaced(&arguments) {
        eprintln!("error: {complaint}");
        return ExitCode::from(USAGE);
    }
    let tracing = Tracing { routes: arguments.trace_frames, with_payload: arguments.trace_payload };
    let done = match arguments.command.unwrap_or(Command::Run) {
        Command::Run => run::run(match &arguments.to {
            Some(endpoint) => Source::endpoint(endpoint, tracing),
            None => Source::file(&arguments.config, tracing),
        }),
        Command::Check => check::check(&arguments.config),
        Command::Init => init::init(&arguments.config),
        Command::Admin(command) => socket(arguments.socket, &arguments.config)
            .and_then(|socket| admin::run(&command, &socket)),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(FAILED)
        }
    }
}

/// What is said of an option that is for other commands than the one that was given.
fn misplaced(arguments: &Arguments) -> Option<String> {
    let is_run = matches!(arguments.command, None | Some(Command::Run));
    let is_admin = matches!(arguments.command, Some(Command::Admin(_)));
    let for_running =
        [("--to", arguments.to.is_some()), ("--trace-frames", !arguments.trace_frames.is_empty())];
    let given = for_running.into_iter().find(|(_, is_given)| *is_given);
    if let (Some((option, _)), false) = (given, is_run) {
        return Some(format!(
            "{option} is for running: `check` and `init` are about a file, the others about a \
             process that runs already"
        ));
    }
    (arguments.socket.is_some() && !is_admin).then(|| {
        "--socket is for asking a process that runs already, as `tidegate status` does".to_owned()
    })
}

/// The socket that was named, or the one that goes with the configuration. A file that is not there
/// or cannot be read says nothing, and is no error here: the process may be asked all the same.
fn socket(named: Option<PathBuf>, config: &Path) -> Result<PathBuf, Failure> {
    let configured = || {
        let text = std::fs::read_to_string(config).unwrap_or_default();
        config::admin_socket(config, &text)
    };
    named.or_else(configured).ok_or_else(|| {
        Failure(format!(
            "error: {} has no admin socket: change `socket` in [admin], or name one with \
             `--socket PATH`\n",
            config.display()
        ))
    })
}

fn endpoint(text: &str) -> Result<String, String> {
    config::parse_endpoint(text).map(|_| text.to_owned())
}
