//! Tidegate beside its peers: what each message, byte, handshake and idle session costs them.
//!
//! ```text
//! cargo bench --bench side_by_side                      everything, a few minutes
//! cargo bench --bench side_by_side -- --quick           the same, shorter and coarser
//! cargo bench --bench side_by_side -- 'wss echo' get    only scenarios with these words
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
mod client;
mod cost;
mod frame;
mod peer;
mod proxy;
mod report;
mod scenario;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::Backend;
use crate::client::Door;
use crate::peer::Peer;
use crate::proxy::{CertificateFiles, Cores, Proxy};
use crate::report::{Cell, Row};
use crate::scenario::{Bounds, Scenario, Work};

/// Measures Tidegate and its peers side by side.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench side_by_side --")]
struct Arguments {
    /// Only scenarios whose name contains one of these, whatever the case.
    scenarios: Vec<String>,
    /// How often each peer is measured in each scenario.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Few short rounds and few idle sessions: under a minute, and coarser.
    #[arg(long)]
    quick: bool,
    /// Who takes part: tidegate, tidegate-off, nginx, nginx-16k, haproxy, haproxy-64k, baseline.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Whom the ratios are taken to.
    #[arg(long, default_value = peer::REFERENCE)]
    reference: String,
    /// How many idle sessions are weighed [default: 4000; with --quick 1000].
    #[arg(long)]
    sessions: Option<usize>,
    /// The tidegate to measure, if not the one that cargo has just built.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tidegate"), hide_default_value = true)]
    tidegate: PathBuf,
    /// Another build of tidegate to measure beside it, as the peer `baseline`.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// What `cargo bench` says and `cargo test` does not.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
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
    let cores = Cores::choose()?;
    proxy::stay_on(cores.load)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            rows = measure_all(arguments, &peers, &scenarios, cores) => rows,
            // Leaving in order stops the proxies.
            _ = interrupt.recv() => Err(io::Error::other("interrupted")),
            _ = terminate.recv() => Err(io::Error::other("terminated")),
        }
    })?;

    println!("{}", report::costs(&peers, &rows, &arguments.reference));
    println!("{}", report::circumstances(&peers, &rows));
    println!(
        "Median (least–greatest) of the rounds; ratios of the medians (least–greatest of a round). \
         One core for the proxy, one for clients and backend, loopback; TLS 1.3, AES-128-GCM, \
         X25519, ECDSA P-256. Echo and GET: 64 clients, bulk: 4, connects: 16 at a time.\n"
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
    let all = peer::all(&arguments.tidegate, arguments.baseline.as_deref());
    if arguments.peers.is_empty() {
        let usual = |peer: &Peer| peer.name == "baseline" || peer::USUAL.contains(&peer.name);
        return Ok(all.into_iter().filter(usual).collect());
    }
    let unknown = arguments.peers.iter().find(|name| !all.iter().any(|peer| peer.name == **name));
    if let Some(unknown) = unknown {
        return Err(io::Error::other(format!("there is no peer `{unknown}`; see --help")));
    }
    Ok(all
        .into_iter()
        .filter(|peer| arguments.peers.iter().any(|name| name == peer.name))
        .collect())
}

fn chosen_scenarios(arguments: &Arguments) -> io::Result<Vec<&'static Scenario>> {
    let wanted = |scenario: &&Scenario| {
        let name = scenario.name.to_lowercase();
        arguments.scenarios.is_empty()
            || arguments.scenarios.iter().any(|part| name.contains(&part.to_lowercase()))
    };
    let chosen: Vec<_> = scenario::ALL.iter().filter(wanted).collect();
    if chosen.is_empty() {
        let names: Vec<_> = scenario::ALL.iter().map(|scenario| scenario.name).collect();
        return Err(io::Error::other(format!("none of: {}", names.join("; "))));
    }
    Ok(chosen)
}

/// Everything that the proxies of one run have in common.
struct Stage<'a> {
    peers: &'a [Peer],
    cores: Cores,
    folder: tempfile::TempDir,
    certificate: CertificateFiles,
    tls: Arc<rustls::ClientConfig>,
    backend: Arc<Backend>,
    rounds: u32,
    bounds: Bounds,
}

async fn measure_all<'a>(
    arguments: &Arguments,
    peers: &[Peer],
    scenarios: &[&'a Scenario],
    cores: Cores,
) -> io::Result<Vec<Row<'a>>> {
    let stage = Stage::set(arguments, peers, cores)?;
    let mut proxies = Vec::new();
    for peer in peers {
        proxies.push(stage.start(peer).await?);
    }
    let mut rows = Vec::new();
    for &scenario in scenarios {
        rows.push(stage.measure(scenario, &mut proxies).await);
    }
    Ok(rows)
}

impl<'a> Stage<'a> {
    fn set(arguments: &Arguments, peers: &'a [Peer], cores: Cores) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("side-by-side-").tempdir()?;
        let made = rcgen::generate_simple_self_signed([client::HOST.to_owned()]); // ECDSA P-256
        let made = made.map_err(io::Error::other)?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = CertificateFiles {
            chain: folder.path().join("server.crt"),
            key: folder.path().join("server.key"),
            chain_and_key: folder.path().join("server.pem"),
        };
        std::fs::write(&certificate.chain, &chain)?;
        std::fs::write(&certificate.key, &key)?;
        std::fs::write(&certificate.chain_and_key, chain + &key)?;
        let tls = client::tls_settings(made.cert.der().clone()).map_err(io::Error::other)?;

        let quick = arguments.quick;
        let bounds = Bounds {
            warm_up: Duration::from_millis(if quick { 100 } else { 300 }),
            window: Duration::from_millis(if quick { 300 } else { 1000 }),
            idle_sessions: sessions(arguments)?,
        };
        Ok(Self {
            peers,
            cores,
            folder,
            certificate,
            tls,
            backend: Backend::new(),
            rounds: arguments.rounds.unwrap_or(if quick { 3 } else { 5 }),
            bounds,
        })
    }

    async fn start(&self, peer: &Peer) -> io::Result<Proxy> {
        let backend = self.backend.listen().await?;
        Proxy::start(peer, self.folder.path(), &self.certificate, backend, self.cores.proxy)
    }

    /// One row: the peers take turns, round by round. A peer that fails is left out from there on
    /// and the others go on.
    async fn measure<'s>(&self, scenario: &'s Scenario, proxies: &mut [Proxy]) -> Row<'s> {
        let mut row = Row { scenario, cells: Vec::new() };
        row.cells.resize_with(proxies.len(), Cell::default);
        let rounds = match scenario.work {
            Work::Idle => self.rounds.div_ceil(3), // memory varies less than time, and takes longer
            _ => self.rounds,
        };
        for round in 1..=rounds {
            eprintln!("{}: round {round} of {rounds}", scenario.name);
            for (at, cell) in row.cells.iter_mut().enumerate() {
                if cell.failure.is_some() {
                    continue;
                }
                let (peer, proxy) = (&self.peers[at], &mut proxies[at]);
                if let Err(failure) = self.round(scenario, peer, proxy, cell).await {
                    eprintln!("{} failed: {failure}", peer.name);
                    cell.failure = Some(failure.to_string());
                }
            }
        }
        row
    }

    async fn round(
        &self,
        scenario: &Scenario,
        peer: &Peer,
        proxy: &mut Proxy,
        cell: &mut Cell,
    ) -> io::Result<()> {
        if let Work::Idle = scenario.work {
            // A fresh one: in that of the other rows, memory that was used before would be used
            // again, and seem to cost nothing.
            let mut fresh = self.start(peer).await?;
            let weighed = scenario::weigh(&fresh, &self.door(scenario, &fresh), self.bounds).await;
            let memory = weighed.map_err(|error| fresh.explain(error))?;
            cell.figures.push(memory.open);
            cell.after.push(memory.after);
        } else {
            let door = self.door(scenario, proxy);
            let measured =
                scenario::measure(scenario, proxy, &door, &self.backend, self.bounds).await;
            let sample = measured.map_err(|error| proxy.explain(error))?;
            cell.figures.push(sample.figure);
            cell.samples.push(sample);
            // The connections that were just dropped are cleared away at nobody's expense.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn door(&self, scenario: &Scenario, proxy: &Proxy) -> Door {
        match scenario.over_tls {
            true => Door { address: proxy.wss, tls: Some(Arc::clone(&self.tls)) },
            false => Door { address: proxy.ws, tls: None },
        }
    }
}

/// How many idle sessions to weigh. Each takes two descriptors of the proxy and, as clients and
/// backend are one process, two of ours.
fn sessions(arguments: &Arguments) -> io::Result<usize> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let wanted = arguments.sessions.unwrap_or(if arguments.quick { 1000 } else { 4000 });
    let possible = limit.current.map_or(usize::MAX, |most| (most as usize).saturating_sub(500) / 2);
    if wanted > possible && arguments.sessions.is_some() {
        return Err(io::Error::other(format!("descriptors suffice for {possible} sessions only")));
    }
    Ok(wanted.min(possible))
}
