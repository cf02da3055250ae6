//! From a configuration to what runs. After a reload, what means the same as before is the same:
//! endpoints keep what is known of them, routes their counters and their standing, listeners
//! their sockets, TLS the keys of its tickets.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::config::{self, CertificateSource, Config};
use crate::listener::bind::{self, BindError, Bound};
use crate::listener::inherited::Inherited;
use crate::listener::limits::Limits;
use crate::listener::{Door, Entrance};
use crate::proxy::Running;
use crate::relay::sessions;
use crate::route::{self, Route};
use crate::telemetry::metrics::Metrics;
use crate::tls::certificate::{Certificate, CertificateError};
use crate::tls::client_auth::{Authorities, AuthoritiesError};
use crate::tls::key_file::Exposed;
use crate::tls::self_signed::{self, Outcome, SelfSignedError};
use crate::tls::server::Server;
use crate::tls::store::Store;
use crate::upstream::Upstream;
use crate::upstream::endpoint::Endpoint;

/// Why a configuration that is right by itself cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate of our own cannot be made.
    #[error(transparent)]
    SelfSigned(#[from] SelfSignedError),
    /// A certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A private key is open to others.
    #[error(transparent)]
    Key(#[from] Exposed),
    /// The CAs of clients cannot be read.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The certificates, made where they are to be made.
///
/// # Errors
///
/// [`SelfSignedError`] where one cannot be made.
pub fn certificates(sources: &[CertificateSource]) -> Result<Vec<Certificate>, SelfSignedError> {
    let mut certificates = Vec::new();
    for source in sources {
        match source {
            CertificateSource::Loaded(certificate) => certificates.push((**certificate).clone()),
            CertificateSource::SelfSigned(wanted) => {
                let now = SystemTime::now();
                let (certificate, outcome) = match self_signed::ensure(wanted, now) {
                    Ok(ensured) => ensured,
                    // One that cannot be renewed is good until it ends.
                    Err(error) => match Certificate::load(&wanted.chain, &wanted.key, now) {
                        Ok(there) => {
                            tracing::warn!("{error}; the certificate that is there is served");
                            (there, Outcome::Found)
                        }
                        Err(_) => return Err(error),
                    },
                };
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

/// What runs, made of a configuration, and what of the one before is not in it any more.
#[derive(Debug)]
pub struct Assembled {
    /// What runs.
    pub running: Running,
    /// Routes that are gone.
    pub gone_routes: Vec<Arc<Route>>,
    /// Endpoints that are gone.
    pub gone_endpoints: Vec<Arc<Endpoint>>,
}

/// Makes of a configuration what runs. Nothing of `before` is changed by it.
///
/// # Errors
///
/// What rustls says.
pub fn running(
    config: &Config,
    certificates: Vec<Certificate>,
    before: Option<&Running>,
    metrics: &Metrics,
) -> Result<Assembled, rustls::Error> {
    let (upstreams, gone_endpoints) = upstreams(config, before);
    let before_routes = before.map(|before| before.routes.as_slice()).unwrap_or_default();
    let by_name: HashMap<&str, &Arc<Route>> =
        before_routes.iter().map(|route| (&**route.name(), route)).collect();
    let routes: Vec<Arc<Route>> = config
        .routes
        .iter()
        .filter_map(|written| {
            let upstream = upstreams.get(written.upstream)?.clone();
            let name = format!("{}{}", written.host, written.path);
            let standing = by_name
                .get(name.as_str())
                .map_or_else(Arc::default, |known| known.standing.clone());
            let counters = metrics.route(&name);
            Some(Arc::new(Route {
                config: Arc::new(written.clone()),
                upstream,
                counters,
                standing,
            }))
        })
        .collect();
    let is_gone = |known: &&Arc<Route>| !routes.iter().any(|route| route.name() == known.name());
    let gone_routes = before_routes.iter().filter(is_gone).cloned().collect();
    let table = Arc::new(route::Table::new(
        routes
            .iter()
            .map(|route| (route.config.host.clone(), route.config.path.clone(), route.clone())),
    ));
    let certificates = Arc::new(Store::new(certificates));
    let authorities = config.tls.client_ca.clone();
    let tls_before = before.map(|before| &*before.tls);
    let tls = Arc::new(Server::new(&config.tls, authorities, &certificates, tls_before)?);
    let running = Running {
        table,
        upstreams,
        tls,
        certificates,
        tls_timeout: config.tls.handshake_timeout,
        limits: before.map_or_else(|| Limits::new(&config.limits), |b| b.limits.clone()),
        per_connection: config.limits.clone(),
        sweep_every: sessions::sweep_every(config.routes.iter()),
        drain: config.drain.clone(),
        routes,
    };
    Ok(Assembled { running, gone_routes, gone_endpoints })
}

/// The same with other certificates, or other CAs of clients.
///
/// # Errors
///
/// What rustls says.
pub fn with_certificates(
    before: &Running,
    tls: &config::Tls,
    certificates: Vec<Certificate>,
    authorities: Option<Authorities>,
) -> Result<Running, rustls::Error> {
    let certificates = Arc::new(Store::new(certificates));
    let tls = Arc::new(Server::new(tls, authorities, &certificates, Some(&before.tls))?);
    Ok(Running { tls, certificates, ..before.clone() })
}

/// The upstreams, and the endpoints that none of them has any more. An endpoint is the same if an
/// upstream of the same name had it, or one that is gone: what is only renamed, stays.
fn upstreams(
    config: &Config,
    before: Option<&Running>,
) -> (Vec<Arc<Upstream>>, Vec<Arc<Endpoint>>) {
    let mut known: Vec<(&str, Vec<Arc<Endpoint>>)> = before
        .map(|before| before.upstreams.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|upstream| (&*upstream.name, upstream.endpoints().to_vec()))
        .collect();
    let mut made: Vec<Option<Arc<Upstream>>> = config
        .upstreams
        .iter()
        .map(|written| {
            let (_, own) = known.iter_mut().find(|(name, _)| *name == written.name)?;
            Some(Arc::new(Upstream::new(written.clone(), own)))
        })
        .collect();
    let mut left_over: Vec<Arc<Endpoint>> = known.into_iter().flat_map(|(_, own)| own).collect();
    for (written, made) in config.upstreams.iter().zip(&mut made) {
        made.get_or_insert_with(|| Arc::new(Upstream::new(written.clone(), &mut left_over)));
    }
    (made.into_iter().flatten().collect(), left_over)
}

/// A listener that is open.
#[derive(Debug, Clone)]
pub struct Opened {
    /// As configured.
    pub config: config::Listener,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether that is its fallback.
    pub is_at_fallback: bool,
    /// The name under which its socket was passed to this process, if it was.
    pub passed_as: Option<String>,
    /// As its workers know it.
    pub door: Arc<Door>,
}

/// What becomes of the listeners.
#[derive(Debug)]
pub struct Listeners {
    /// All that are to be open, in the order of the configuration.
    pub open: Vec<Opened>,
    /// The sockets of those that were not open before, one for each worker, with their place in
    /// `open`.
    pub fresh: Vec<(usize, Vec<TcpListener>)>,
    /// How connections are to be treated from now on, for each of `open`.
    pub entrances: Vec<Entrance>,
    /// Those that are to be shut.
    pub gone: Vec<Opened>,
    /// What is to be said about those that are not where they were asked to be.
    pub warnings: Vec<String>,
}

/// Opens listeners; those of `before` that mean the same keep their sockets. Nothing of `before`
/// is changed by it. `leaving` are addresses that workers have been told to shut, and perhaps have
/// not yet.
///
/// # Errors
///
/// [`BindError`] for the first that cannot be opened.
pub fn listeners(
    config: &Config,
    before: &[Opened],
    leaving: &[SocketAddr],
    inherited: &mut Inherited,
    workers: usize,
    metrics: &Metrics,
) -> Result<Listeners, BindError> {
    let mut left: Vec<Opened> = before.to_vec();
    let kept: Vec<Option<Opened>> = config
        .listeners
        .iter()
        .map(|written| {
            let at = left.iter().position(|open| open.is_meant_by(written))?;
            Some(Opened { config: written.clone(), ..left.remove(at) })
        })
        .collect();
    let gone = left;
    let ours: Vec<SocketAddr> =
        gone.iter().map(|open| open.address).chain(leaving.iter().copied()).collect();
    let (mut open, mut fresh, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for (written, kept) in config.listeners.iter().zip(kept) {
        if let Some(kept) = kept {
            open.push(kept);
            continue;
        }
        let bound = bind::bind(written, inherited, workers, &ours)?;
        let Bound { address, sockets, passed_as, warning } = bound;
        let is_at_fallback = warning.is_some();
        warnings.extend(warning);
        fresh.push((open.len(), sockets));
        let door = Door {
            entrance: ArcSwap::from_pointee(entrance(written, address, None)),
            counters: metrics.listener(address),
            is_passed: passed_as.is_some(),
        };
        let door = Arc::new(door);
        let config = written.clone();
        open.push(Opened { config, address, is_at_fallback, passed_as, door });
    }
    let https = open.iter().find(|open| open.config.tls).map(|open| open.address.port());
    let entrances = open.iter().map(|open| entrance(&open.config, open.address, https)).collect();
    Ok(Listeners { open, fresh, entrances, gone, warnings })
}

impl Opened {
    /// Whether a listener of a new configuration is this one: how it treats connections may be
    /// different. One that is at its fallback stays there only if that is still the fallback; one
    /// that was passed to us is known by its name, as it cannot be had again.
    fn is_meant_by(&self, written: &config::Listener) -> bool {
        if self.passed_as.is_some() && self.passed_as == written.activation {
            return true;
        }
        self.config.address == written.address
            && (!self.is_at_fallback || self.config.fallback == written.fallback)
    }
}

fn entrance(written: &config::Listener, address: SocketAddr, https: Option<u16>) -> Entrance {
    Entrance {
        address,
        address_text: address.to_string().into(),
        tls: written.tls,
        trusted: written.trusted.clone(),
        proxy_protocol: written.proxy_protocol,
        redirect_to: https.filter(|_| written.redirect_https),
        client_auth: written.client_auth,
    }
}
