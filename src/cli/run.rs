//! `tidegate run`: from the configuration to a process that serves, and to its end.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

use super::{ALL_ROUTES, DRAIN_CUT, Failure, Tracing, banner, check};
use crate::config::{self, CertificateSource, Config, Frames, Trace};
use crate::lifecycle::phases::Phase;
use crate::lifecycle::signals::Signals;
use crate::lifecycle::worker;
use crate::listener::Entrance;
use crate::listener::bind::{self, Bound};
use crate::listener::limits::Limits;
use crate::proxy::{Route, Running};
use crate::random::random;
use crate::relay::sessions;
use crate::route;
use crate::telemetry::{access_log, log, record};
use crate::tls::certificate::Certificate;
use crate::tls::self_signed::{self, Outcome};
use crate::tls::server;
use crate::tls::store::Store;
use crate::upstream::Upstream;

/// Runs until a signal ends it.
pub(super) fn run(path: &Path, to: Option<&str>, tracing: &Tracing) -> Result<ExitCode, Failure> {
    let (path, text) = match to {
        Some(endpoint) => without_file(endpoint),
        None => (path.to_owned(), check::read(path)?),
    };
    let (config, report) = config::compile(&path, &text);
    eprint!("{}{}", report.warnings(), report.errors());
    let Some(mut config) = config else {
        return Err(Failure("nothing was started: see above\n".into()));
    };
    trace(&mut config.routes, tracing)?;
    log::start();
    raise_descriptor_limit();
    record::seed_ids(random());

    let workers = thread::available_parallelism().map_or(1, usize::from);
    let bound: Vec<Bound> = config
        .listeners
        .iter()
        .map(|listener| bind::bind(listener, workers))
        .collect::<Result<_, _>>()?;
    let certificates = certificates(&config)?;
    let shown_certificates = certificates.clone();
    let running = Arc::new(running(&config, certificates)?);
    let (access_log, writer) = access_log::start(&config.log)?;

    // Signals are listened for before anybody can be told that we are ready.
    let control = Builder::new_current_thread().enable_all().build()?;
    let signals = control.block_on(async { Signals::listen() })?;
    let (phases, _) = watch::channel(Phase::Running);
    let summary = banner::Summary::new(&path, &config, &bound, &shown_certificates);
    for bound in &bound {
        if let Some(warning) = &bound.warning {
            tracing::warn!("{warning}");
        }
        tracing::info!(address = %bound.address, tls = bound.config.tls, "listening");
    }
    let threads = share_out(bound, workers)
        .into_iter()
        .enumerate()
        .map(|(number, sockets)| {
            let log = access_log.clone();
            worker::start(number, running.clone(), sockets, log, phases.subscribe())
        })
        .collect::<Result<Vec<_>, _>>()?;
    drop(access_log);
    summary.show();
    tracing::info!(workers, "ready");

    let (gone, all_gone) = oneshot::channel();
    let waiting = thread::spawn(move || {
        let cut = join(threads);
        // The receiver waits below; if it does not, the process is leaving anyway.
        let _ = gone.send(());
        cut
    });
    control.block_on(async {
        tokio::select! {
            () = signals.steer(&phases, config.drain.timeout) => {}
            _ = all_gone => {}
        }
    });
    let cut = waiting.join().unwrap_or(0);
    writer.finish();
    if cut > 0 {
        tracing::warn!(connections = cut, "left with connections that had to be cut");
        return Ok(ExitCode::from(DRAIN_CUT));
    }
    tracing::info!("left: everything had finished");
    Ok(ExitCode::SUCCESS)
}

/// Has the frames of the routes that were asked for printed.
fn trace(routes: &mut [config::Route], tracing: &Tracing) -> Result<(), Failure> {
    let wanted = if tracing.with_payload { Trace::Payload } else { Trace::Headers };
    for asked in &tracing.routes {
        let mut is_found = false;
        for route in routes.iter_mut() {
            let path = route.path.to_string();
            if asked == ALL_ROUTES || *asked == path || *asked == format!("{}{path}", route.host) {
                (route.trace, is_found) = (wanted, true);
            }
        }
        if !is_found {
            let known: Vec<String> =
                routes.iter().map(|route| format!("{}{}", route.host, route.path)).collect();
            let known = known.join(", ");
            return Err(Failure(format!(
                "error: there is no route `{asked}` to trace: there is {known}\n"
            )));
        }
        // A route that is not followed has no frames to print.
        if routes.iter().all(|route| route.trace == Trace::Off || route.frames == Frames::Off) {
            return Err(Failure(format!(
                "error: the frames of route `{asked}` are not followed: remove `frames = \"off\"` \
                 to trace them\n"
            )));
        }
    }
    Ok(())
}

/// What `--to` means, as a file: defaults for everything but the endpoint. Its certificate is
/// kept with the user's data, not in whatever folder this happens to be.
fn without_file(endpoint: &str) -> (PathBuf, String) {
    let endpoint = toml::Value::String(endpoint.to_owned());
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")))
        .unwrap_or_default();
    (data.join("tidegate/(--to)"), format!("[upstream.app]\nendpoints = [{endpoint}]\n"))
}

/// The certificates, made where they are to be made.
fn certificates(config: &Config) -> Result<Vec<Certificate>, Failure> {
    let mut certificates = Vec::new();
    for source in &config.certificates {
        match source {
            CertificateSource::Loaded(certificate) => {
                certificates.push(certificate.as_ref().clone())
            }
            CertificateSource::SelfSigned(wanted) => {
                let (certificate, outcome) = self_signed::ensure(wanted, SystemTime::now())?;
                let chain = wanted.chain.display();
                match outcome {
                    Outcome::Found => {}
                    Outcome::Made => tracing::info!(%chain, "made a certificate and its local CA"),
                    Outcome::Renewed => tracing::info!(%chain, "renewed the local certificate"),
                }
                certificates.push(certificate);
            }
        }
    }
    Ok(certificates)
}

fn running(config: &Config, certificates: Vec<Certificate>) -> Result<Running, Failure> {
    let upstreams: Vec<Arc<Upstream>> =
        config.upstreams.iter().map(|upstream| Arc::new(Upstream::new(upstream.clone()))).collect();
    let routes = config.routes.iter().filter_map(|written| {
        let upstream = upstreams.get(written.upstream)?.clone();
        let name = format!("{}{}", written.host, written.path).into();
        let route = Route { name, config: Arc::new(written.clone()), upstream };
        Some((written.host.clone(), written.path.clone(), route))
    });
    let routes = route::Table::new(routes);
    let certificates = Arc::new(Store::new(certificates));
    Ok(Running {
        routes,
        tls: server::config(&config.tls, certificates.clone())?,
        certificates,
        tls_timeout: config.tls.handshake_timeout,
        limits: Limits::new(&config.limits),
        per_connection: config.limits.clone(),
        sweep_every: sessions::sweep_every(config.routes.iter()),
    })
}

/// Each worker's sockets, one of every listener.
fn share_out(bound: Vec<Bound>, workers: usize) -> Vec<Vec<(TcpListener, Entrance)>> {
    let https = bound.iter().find(|bound| bound.config.tls).map(|bound| bound.address.port());
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for bound in bound {
        let entrance = Entrance {
            address: bound.address,
            tls: bound.config.tls,
            trusted: bound.config.trusted,
            redirect_to: https.filter(|_| bound.config.redirect_https),
        };
        for (share, socket) in shares.iter_mut().zip(bound.sockets) {
            share.push((socket, entrance.clone()));
        }
    }
    shares
}

/// Waits for the workers; returns how many connections had to be cut.
fn join(threads: Vec<JoinHandle<usize>>) -> usize {
    let mut cut = 0;
    for thread in threads {
        match thread.join() {
            Ok(left) => cut += left,
            Err(_) => tracing::error!("a worker panicked"),
        }
    }
    cut
}

/// Two descriptors per session: takes as many as the system lets us have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit on descriptors stays as it is");
    }
}
