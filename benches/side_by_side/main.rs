//! Tidegate beside its peers: what each message, byte, handshake and idle session costs them.
//!
//! ```text
//! cargo bench --bench side_by_side                      the rows of the design, five minutes
//! cargo bench --bench side_by_side -- --all             every scenario and every peer there is
//! cargo bench --bench side_by_side -- --quick           shorter and coarser, alone or with --all
//! cargo bench --bench side_by_side -- 'wss echo' get    scenarios with these words
//! cargo bench --bench side_by_side -- --peers tidegate,nginx,haproxy-64k --rounds 9
//! cargo bench --bench side_by_side -- --baseline OTHER  against another build of tidegate
//! cargo bench --bench side_by_side -- echo --peers tidegate,tidegate-off --reference tidegate-off
//! ```
//!
//! The proxies run on one core, the clients and the backend ([`client`], [`backend`]) on another,
//! and what is compared is the CPU time of the proxies' processes ([`cost`]): how fast the load
//! is, or what else the machine does, matters much less to that than to throughput. Peers take
//! turns within each round, so that all of them see the same minutes of the machine.
//!
//! A new scenario is a line in [`scenario::ALL`], a new peer an entry in [`peer::all`].

mod backend;
mod bare_hyper;
mod client;
mod configuration;
mod cost;
mod floor;
mod frame;
mod idle;
mod load;
mod pace;
mod payload;
mod peer;
mod proxy;
mod report;
mod scenario;
mod stage;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::peer::{Part, Peer};
use crate::proxy::Cores;
use crate::scenario::Scenario;
use crate::stage::Stage;

/// Measures Tidegate and its peers side by side.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench side_by_side --")]
struct Arguments {
    /// Only scenarios whose name contains one of these, whatever the case. A whole name means
    /// just that one.
    scenarios: Vec<String>,
    /// Every scenario, unless some are named, and every peer that is installed, unless --peers
    /// names them.
    #[arg(long)]
    all: bool,
    /// How often each peer is measured in each scenario.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Few short rounds and few idle sessions: coarser.
    #[arg(long)]
    quick: bool,
    /// Who takes part: tidegate, tidegate-off, tidegate-nolog, tidegate-2, tidegate-twice, nginx,
    /// nginx-16k, haproxy, haproxy-64k, sozu, floor, hyper, baseline.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Whom the ratios are taken to.
    #[arg(long, default_value = peer::REFERENCE)]
    reference: String,
    /// How many idle sessions are weighed [default: 9500; with --quick 1000].
    #[arg(long)]
    sessions: Option<usize>,
    /// The tidegate to measure, if not the one that cargo has just built.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tidegate"), hide_default_value = true)]
    tidegate: PathBuf,
    /// The sozu to measure, if not the one on the PATH.
    #[arg(long, default_value = "sozu", hide_default_value = true)]
    sozu: PathBuf,
    /// Another build of tidegate to measure beside it, as the peer `baseline`.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// What `cargo bench` says and `cargo test` does not.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let given: Vec<_> = std::env::args().skip(1).collect();
    let played = match given.split_first().map(|(first, rest)| (&**first, rest)) {
        Some((floor::FLAG, rest)) => Some(floor::run(rest)),
        Some((bare_hyper::FLAG, rest)) => Some(bare_hyper::run(rest)),
        _ => None,
    };
    if let Some(played) = played {
        return match played {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("nothing is measured here: `cargo bench --bench side_by_side` does");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let peers = chosen_peers(arguments)?;
    let scenarios = chosen_scenarios(arguments)?;
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 5 });
    let bounds = stage::bounds(arguments.quick, sessions(arguments)?);
    let cores = Cores::choose()?;
    proxy::stay_on(&[cores.load])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stage = Stage::set(&peers, cores, rounds, bounds)?;
        tokio::select! {
            rows = stage.measure_all(&scenarios) => rows,
            // Leaving in order stops the proxies.
            _ = interrupt.recv() => Err(io::Error::other("interrupted")),
            _ = terminate.recv() => Err(io::Error::other("terminated")),
        }
    })?;

    println!("{}", report::costs(&peers, &rows, &arguments.reference));
    println!("{}", report::latencies(&peers, &rows));
    println!("{}", report::circumstances(&peers, &rows));
    println!(
        "Median (least–greatest) of the rounds; ratios of the medians (least–greatest of a round). \
         One core for the proxy, one for clients and backend, loopback; TLS 1.3, AES-128-GCM, \
         X25519, ECDSA P-256. Echo and GET: 64 clients unless it says so, bulk: 4, connects: 16 at \
         a time. {} idle sessions.\n",
        bounds.idle_sessions
    );
    for peer in &peers {
        println!("- {}: {}", peer.name, peer.settings);
    }
    let mut code = ExitCode::SUCCESS;
    for row in &rows {
        for (peer, cell) in peers.iter().zip(&row.cells) {
            if let Some(failure) = &cell.failure {
                println!("- failed: {} at {}: {failure}", peer.name, row.scenario.name);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn chosen_peers(arguments: &Arguments) -> io::Result<Vec<Peer>> {
    let ourselves = std::env::current_exe()?;
    let baseline = arguments.baseline.as_deref();
    let all = peer::all(&arguments.tidegate, baseline, &arguments.sozu, &ourselves);
    let named = &arguments.peers;
    let unknown = named.iter().find(|name| !all.iter().any(|peer| peer.name == **name));
    if let Some(unknown) = unknown {
        return Err(io::Error::other(format!("there is no peer `{unknown}`; see --help")));
    }
    let takes_part = |peer: &Peer| match (named.is_empty(), peer.part) {
        (false, _) => named.iter().any(|name| name == peer.name),
        (true, Part::Usual) => true,
        (true, Part::InAll) if arguments.all => {
            let is_installed = proxy::find(&peer.program).is_some();
            if !is_installed {
                eprintln!("{} is left out: there is no {}", peer.name, peer.program.display());
            }
            is_installed
        }
        (true, Part::InAll | Part::IfNamed) => false,
    };
    Ok(all.into_iter().filter(takes_part).collect())
}

fn chosen_scenarios(arguments: &Arguments) -> io::Result<Vec<&'static Scenario>> {
    let names: Vec<_> = scenario::ALL.iter().map(|scenario| scenario.name.to_lowercase()).collect();
    let words: Vec<_> = arguments.scenarios.iter().map(|word| word.to_lowercase()).collect();
    let means = |word: &String, name: &String| match names.contains(word) {
        true => name == word,
        false => name.contains(word),
    };
    let wanted = |(scenario, name): &(&Scenario, &String)| match words.is_empty() {
        true => arguments.all || scenario.is_usual,
        false => words.iter().any(|word| means(word, name)),
    };
    let chosen: Vec<_> =
        scenario::ALL.iter().zip(&names).filter(wanted).map(|(scenario, _)| scenario).collect();
    if chosen.is_empty() {
        let names: Vec<_> = scenario::ALL.iter().map(|scenario| scenario.name).collect();
        return Err(io::Error::other(format!("none of: {}", names.join("; "))));
    }
    Ok(chosen)
}

/// How many idle sessions to weigh. Each takes two descriptors of the proxy and, as clients and
/// backend are one process, two of ours.
fn sessions(arguments: &Arguments) -> io::Result<usize> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let wanted = arguments.sessions.unwrap_or(if arguments.quick { 1000 } else { 9500 });
    let possible = limit.current.map_or(usize::MAX, |most| (most as usize).saturating_sub(500) / 2);
    if wanted > possible && arguments.sessions.is_some() {
        return Err(io::Error::other(format!("descriptors suffice for {possible} sessions only")));
    }
    Ok(wanted.min(possible))
}
