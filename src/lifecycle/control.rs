//! What moves the process on while it runs, on the one thread that has no traffic: signals, what an
//! operator asks for, reloads, certificates that are renewed.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};

use super::assembly::{self, Assembled, AssemblyError, Listeners, Opened};
use super::phases::Phase;
use super::renewal::Renewal;
use super::signals::{Signals, Wish};
use super::source::Source;
use super::standing::{Standing, State};
use super::supervisor::Supervisor;
use super::worker::{self, Command, Shared};
use crate::admin::listen::{self, ListenError, Open};
use crate::admin::server::Interface;
use crate::admin::snapshot::{Done, SessionList, Watched};
use crate::config::{self, CertificateSource, Config};
use crate::listener::inherited::Inherited;
use crate::listener::{Door, Entrance};
use crate::proxy::Running;
use crate::relay::departure::{Departure, LONGEST_PAUSE, Parting, Who};
use crate::relay::sessions::Why;
use crate::relay::view::{Filter, Query};
use crate::route::Route;
use crate::telemetry::access_log::{self, OpenError, Writer};
use crate::telemetry::metrics::Metrics;
use crate::tls::self_signed;
use crate::upstream::endpoint::Endpoint;

/// See the module.
#[derive(Debug)]
pub struct Control {
    pub(super) source: Source,
    /// What was passed to the process and is left for a reload: nothing, once it has started.
    pub(super) inherited: RefCell<Inherited>,
    supervisor: Supervisor,
    pub(super) shared: Shared,
    pub(super) workers: Vec<UnboundedSender<Command>>,
    phases: watch::Sender<Phase>,
    /// When the process started.
    pub started: SystemTime,
    /// What the last reload that succeeded, or the start, came to.
    pub(super) loaded: RefCell<Loaded>,
    /// Listeners that the workers were told to shut, for as long as one has not.
    pub(super) leaving: RefCell<Vec<(SocketAddr, Weak<Door>)>>,
    /// What was wrong with the last reload, if it failed.
    pub(super) last_failure: RefCell<Option<String>>,
    pub(super) interface: RefCell<Interface>,
    wants_drain: Notify,
    is_draining: Cell<bool>,
}

/// What a configuration came to.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) listeners: Vec<Opened>,
    pub(super) at: SystemTime,
}

/// What has been started.
#[derive(Debug)]
pub struct Started {
    /// What moves it on.
    pub control: Rc<Control>,
    /// The workers, which end with the number of connections that had to be cut.
    pub workers: Vec<JoinHandle<usize>>,
    /// Writes the access log, until the workers have ended.
    pub writer: Writer,
    /// Listeners that are not where they were asked to be.
    pub warnings: Vec<String>,
}

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot run.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// The admin interface cannot be opened.
    #[error(transparent)]
    Admin(#[from] ListenError),
    /// The access log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The system gives no thread, or no event queue.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Starts what a configuration says: sockets are bound, then the workers accept. Must be called
/// within a local runtime of tokio's.
///
/// # Errors
///
/// [`StartError`]; nothing is left running then.
pub fn start(
    source: Source,
    config: Config,
    mut inherited: Inherited,
    supervisor: Supervisor,
) -> Result<Started, StartError> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let metrics = Metrics::new(workers);
    let Listeners { open, fresh, entrances, warnings, .. } =
        assembly::listeners(&config, &[], &[], &mut inherited, workers, &metrics)
            .map_err(AssemblyError::from)?;
    for name in inherited.left_over() {
        tracing::warn!(
            name,
            "a socket was passed that no listener has as its `activation`: who connects there waits"
        );
    }
    let certificates = assembly::certificates(&config.certificates).map_err(AssemblyError::from)?;
    let Assembled { running, .. } =
        assembly::running(&config, certificates, None, &metrics).map_err(AssemblyError::from)?;
    let sockets = listen::bind(&config.admin, &Open::default())?;
    let opened = access_log::open(&config.log)?;
    let (log, writer) = access_log::start(opened, metrics.dropped_lines.clone())?;

    let shared = Shared { running: Arc::new(ArcSwap::from_pointee(running)), log, metrics };
    let (phases, _) = watch::channel(Phase::Running);
    let mut threads = Vec::new();
    let mut senders = Vec::new();
    for number in 0..workers {
        let (sender, commands) = mpsc::unbounded_channel();
        threads.push(worker::start(number, shared.clone(), commands, phases.subscribe())?);
        senders.push(sender);
    }
    let now = SystemTime::now();
    let control = Control {
        source,
        inherited: RefCell::new(inherited),
        supervisor,
        shared,
        workers: senders,
        phases,
        started: now,
        loaded: RefCell::new(Loaded { config, listeners: open, at: now }),
        leaving: RefCell::default(),
        last_failure: RefCell::default(),
        interface: RefCell::default(),
        wants_drain: Notify::new(),
        is_draining: Cell::new(false),
    };
    control.admit_by(fresh, entrances);
    let control = Rc::new(control);
    control.interface.borrow_mut().adopt(sockets, &control.admin(), &control);
    Ok(Started { control, workers: threads, writer, warnings })
}

impl Control {
    /// Has the workers accept on fresh sockets, and treat connections as they are to be treated.
    pub(super) fn admit_by(&self, fresh: Vec<(usize, Vec<TcpListener>)>, entrances: Vec<Entrance>) {
        let loaded = self.loaded.borrow();
        for (open, entrance) in loaded.listeners.iter().zip(entrances) {
            open.door.entrance.store(Arc::new(entrance));
        }
        for (place, sockets) in fresh {
            let Some(open) = loaded.listeners.get(place) else { continue };
            let (address, tls) = (open.address, open.config.tls);
            tracing::info!(%address, tls, activation = open.passed_as, "listening");
            for (worker, socket) in self.workers.iter().zip(sockets) {
                self.tell(worker, Command::Listen(socket, open.door.clone()));
            }
        }
    }

    pub(super) fn tell(&self, worker: &UnboundedSender<Command>, command: Command) {
        // A worker that has left already needs to be told nothing.
        let _ = worker.send(command);
    }

    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            self.tell(worker, command());
        }
    }

    /// What all workers answer; those that have left are left out.
    async fn ask_all<T>(&self, ask: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let asked: Vec<oneshot::Receiver<T>> = self
            .workers
            .iter()
            .map(|worker| {
                let (answer, answered) = oneshot::channel();
                self.tell(worker, ask(answer));
                answered
            })
            .collect();
        let mut answers = Vec::new();
        for answered in asked {
            answers.extend(answered.await);
        }
        answers
    }

    /// The configuration as it runs.
    pub fn running(&self) -> Arc<Running> {
        self.shared.running.load_full()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Where the configuration comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// When the configuration that runs was read.
    pub fn loaded_at(&self) -> SystemTime {
        self.loaded.borrow().at
    }

    /// What was wrong with the last reload, if it failed.
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.borrow().clone()
    }

    /// The listeners that are open.
    pub fn listeners(&self) -> Vec<Opened> {
        self.loaded.borrow().listeners.clone()
    }

    /// The CA that signed certificates of our own making, if there are any.
    pub fn own_ca(&self) -> Option<PathBuf> {
        let loaded = self.loaded.borrow();
        loaded.config.certificates.iter().find_map(|source| match source {
            CertificateSource::SelfSigned(own) => Some(self_signed::ca_path(&own.chain)),
            CertificateSource::Loaded(_) => None,
        })
    }

    /// What is configured of the admin interface.
    pub fn admin(&self) -> config::Admin {
        self.loaded.borrow().config.admin.clone()
    }

    /// Whether the process is leaving.
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// The workers have gone: nobody is answered any more but for what has been asked.
    pub async fn close_interface(&self) {
        let closed = self.interface.borrow_mut().close();
        closed.await;
    }

    /// Tells the supervisor that the process serves.
    pub fn say_ready(&self) {
        let addresses: Vec<String> =
            self.listeners().iter().map(|open| open.address.to_string()).collect();
        let addresses = addresses.join(", ");
        let status = match self.last_failure() {
            Some(_) => format!("listening on {addresses}; the last reload failed"),
            None => format!("listening on {addresses}"),
        };
        self.supervisor.ready(&status);
    }

    /// Tells the supervisor that the process is alive, as long as all workers are.
    pub async fn show_life(&self) -> Infallible {
        let Some(interval) = self.supervisor.watchdog_interval() else {
            return std::future::pending().await;
        };
        let mut beats = tokio::time::interval(interval);
        // One that was late is not made up for: it was the only one that counts.
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            match timeout(interval, self.ask_all(Command::Answer)).await {
                // At a drain, workers that have nothing left to do are gone already.
                Ok(all) if all.len() == self.workers.len() || self.is_draining() => {
                    self.supervisor.alive();
                }
                Ok(_) | Err(_) => tracing::error!("a worker does not answer"),
            }
        }
    }

    /// Moves the process on as signals, operators and the clock say, until it is to be cut.
    /// Dropped when the workers have gone before that.
    pub async fn steer(self: Rc<Self>, mut signals: Signals) {
        let mut renewal = Renewal::new();
        let mut cut_at = None;
        let limits = self.running().limits.clone();
        let mut is_leaving = false;
        let mut was_signalled = false;
        loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    // Whoever sent it reads what came of it in the log.
                    Wish::Reload => drop(self.reload_for("SIGHUP")),
                    Wish::End(name) if was_signalled => {
                        tracing::warn!(signal = name, "second signal: cutting what is left");
                        break;
                    }
                    Wish::End(name) => {
                        was_signalled = true;
                        if self.is_draining() {
                            tracing::info!(signal = name, "draining already");
                        } else {
                            cut_at = Some(self.begin_to_drain(name));
                        }
                    }
                    Wish::HungUp if self.is_draining() => {}
                    Wish::HungUp => cut_at = Some(self.begin_to_drain("a terminal that is gone")),
                },
                () = self.wants_drain.notified(), if !self.is_draining() => {
                    cut_at = Some(self.begin_to_drain("an operator"));
                }
                () = limits.no_sessions(), if self.is_draining() && !is_leaving => {
                    is_leaving = true;
                    self.phases.send_replace(Phase::Leaving);
                }
                () = until(cut_at) => {
                    tracing::warn!("drain timeout: cutting what is left");
                    break;
                }
                () = renewal.due() => renewal.look(&self),
            }
        }
        self.phases.send_replace(Phase::Cut);
    }

    /// Begins the drain; when it is to be cut.
    fn begin_to_drain(&self, by: &str) -> Instant {
        let config::Drain { spread, timeout, .. } = self.loaded.borrow().config.drain;
        self.phases.send_replace(Phase::Draining);
        self.is_draining.set(true);
        tracing::info!(by, ?spread, ?timeout, "draining: no new sessions are opened");
        self.supervisor.stopping("draining: no new sessions are opened");
        Instant::now() + timeout
    }

    /// Has the whole process leave, as a signal would.
    pub async fn drain(&self) -> Done {
        self.wants_drain.notify_one();
        let (sessions, _) = self.list(&Query { limit: Some(0), ..Query::default() }).await;
        Done { text: "the process leaves with its last session".into(), sessions }
    }

    /// Reloads, and puts on record what came of it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, ready to be printed; nothing has changed then.
    pub fn reload_for(self: &Rc<Self>, by: &str) -> Result<Done, String> {
        if self.is_draining() {
            return Err("error: the process is leaving, and reloads nothing any more\n".into());
        }
        self.supervisor.reloading();
        let done = self.reload();
        match &done {
            Ok(done) => tracing::info!(by, "{done}"),
            Err(faults) => {
                tracing::error!(
                    "the reload failed that {by} asked for, and nothing was changed:\n{faults}"
                );
            }
        }
        // Also where it failed: a supervisor waits for the end of it.
        self.say_ready();
        done.map(|text| Done { text, sessions: 0 })
    }

    /// How many sessions match, and those that are to be shown.
    pub async fn list(&self, query: &Query) -> (usize, SessionList) {
        let answers = self.ask_all(|answer| Command::List(query.clone(), answer)).await;
        let total = answers.iter().map(|(total, _)| total).sum();
        let mut sessions: Vec<_> = answers.into_iter().flat_map(|(_, found)| found).collect();
        query.merge(&mut sessions);
        (total, SessionList { total, sessions })
    }

    /// Tells `to` of sessions that come and go, until it is closed.
    pub fn watch(&self, filter: &Filter, to: &mpsc::Sender<Watched>) {
        self.tell_all(|| Command::Watch(filter.clone(), to.clone()));
    }

    /// Sends sessions away; how many.
    pub(super) async fn depart(&self, departure: Departure) -> usize {
        self.ask_all(|answer| Command::Depart(departure.clone(), answer)).await.into_iter().sum()
    }

    /// Closes sessions with these words, so many in a second if that is said.
    pub async fn close(&self, filter: Filter, parting: Parting, per_second: Option<f64>) -> Done {
        let query = Query { filter: filter.clone(), limit: Some(0), ..Query::default() };
        let (total, _) = self.list(&query).await;
        let spread = per_second.map_or(Duration::ZERO, |rate| {
            Duration::try_from_secs_f64(total as f64 / rate).unwrap_or(Duration::MAX)
        });
        let who = Who::Matching(filter);
        // A rate that was asked for is kept, however slow it is.
        let longest_pause = Duration::MAX;
        let departure = Departure { who, parting, spread, longest_pause, cut_after: None };
        let sessions = self.depart(departure).await;
        Done { text: format!("{sessions} sessions are being closed"), sessions }
    }

    /// Stops new sessions on a route, which is named by host and path or by its path alone, and
    /// sends those that it has away.
    ///
    /// # Errors
    ///
    /// That there is no such route.
    pub async fn drain_route(&self, name: &str) -> Result<Done, String> {
        let route = self.find_route(name)?;
        let sessions = self.drain_what(&route.standing, Why::RouteDrained).await;
        let text = format!("route {} takes no new sessions", route.name());
        tracing::info!(sessions, "{text}");
        Ok(Done { text, sessions })
    }

    /// Takes that back.
    ///
    /// # Errors
    ///
    /// That there is no such route, or that it is not being drained.
    pub fn undrain_route(&self, name: &str) -> Result<Done, String> {
        let route = self.find_route(name)?;
        self.undrain_what(&route.standing, &format!("route {}", route.name()))
    }

    /// Stops new sessions and requests to an endpoint, and sends its sessions away.
    ///
    /// # Errors
    ///
    /// That there is no such endpoint.
    pub async fn drain_endpoint(&self, upstream: &str, endpoint: &str) -> Result<Done, String> {
        let endpoint = self.find_endpoint(upstream, endpoint)?;
        let sessions = self.drain_what(&endpoint.standing, Why::EndpointDrained).await;
        let text = format!("endpoint {} of {upstream} takes no new sessions", endpoint.name);
        tracing::info!(sessions, "{text}");
        Ok(Done { text, sessions })
    }

    /// Takes that back.
    ///
    /// # Errors
    ///
    /// That there is no such endpoint, or that it is not being drained.
    pub fn undrain_endpoint(&self, upstream: &str, endpoint: &str) -> Result<Done, String> {
        let endpoint = self.find_endpoint(upstream, endpoint)?;
        self.undrain_what(&endpoint.standing, &format!("endpoint {} of {upstream}", endpoint.name))
    }

    async fn drain_what(&self, standing: &Arc<Standing>, why: Why) -> usize {
        standing.set(State::Draining);
        self.depart(self.departure_of(standing, why)).await
    }

    pub(super) fn departure_of(&self, standing: &Arc<Standing>, why: Why) -> Departure {
        let words = self.running().drain.clone();
        Departure {
            who: Who::on(standing),
            parting: Parting::new(why, &words),
            spread: words.spread,
            longest_pause: LONGEST_PAUSE,
            cut_after: Some(words.timeout),
        }
    }

    fn undrain_what(&self, standing: &Standing, what: &str) -> Result<Done, String> {
        match standing.state() {
            State::Draining => {
                standing.set(State::Up);
                let text = format!("{what} takes new sessions again");
                tracing::info!("{text}");
                Ok(Done { text, sessions: 0 })
            }
            State::Up => Err(format!("{what} is not being drained")),
            State::Removed => Err(format!("{what} is gone from the configuration")),
        }
    }

    /// The route that is named by host and path, or by its path alone.
    ///
    /// # Errors
    ///
    /// That there is none, or that there are several.
    pub fn find_route(&self, name: &str) -> Result<Arc<Route>, String> {
        let running = self.running();
        let of_path = |route: &&Arc<Route>| route.config.path.to_string() == name;
        let exact = running.routes.iter().find(|route| **route.name() == *name);
        let by_path: Vec<&Arc<Route>> = running.routes.iter().filter(of_path).collect();
        let known = || {
            let names: Vec<&str> = running.routes.iter().map(|route| &**route.name()).collect();
            names.join(", ")
        };
        match (exact, by_path.as_slice()) {
            (Some(route), _) => Ok(route.clone()),
            (None, [route]) => Ok((*route).clone()),
            (None, []) => Err(format!("there is no route `{name}`: there is {}", known())),
            (None, _) => Err(format!("several routes have the path {name}: there is {}", known())),
        }
    }

    fn find_endpoint(&self, upstream: &str, endpoint: &str) -> Result<Arc<Endpoint>, String> {
        let running = self.running();
        let Some(found) = running.upstreams.iter().find(|known| *known.name == *upstream) else {
            let known: Vec<&str> = running.upstreams.iter().map(|known| &*known.name).collect();
            return Err(format!(
                "there is no upstream `{upstream}`: there is {}",
                known.join(", ")
            ));
        };
        // As it may be written in the file: `app:3000` means `http://app:3000`.
        let address = config::parse_endpoint(endpoint).ok();
        let is_it = |known: &&Arc<Endpoint>| {
            address.as_ref() == Some(&known.address) || *known.name == *endpoint
        };
        found.endpoints().iter().find(is_it).cloned().ok_or_else(|| {
            let known: Vec<&str> = found.endpoints().iter().map(|known| &*known.name).collect();
            format!("{upstream} has no endpoint `{endpoint}`: it has {}", known.join(", "))
        })
    }
}

/// Resolves at this time, or never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
