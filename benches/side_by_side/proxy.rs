//! A running proxy: started on its core, asked for its costs, and gone when this is dropped,
//! whatever happened in between.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::client::Doors;
use crate::cost::{self, Cpu};
use crate::peer::{Peer, Site, Spread};

/// The two cores of a run, told apart so that a proxy never competes with its load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
}

impl Cores {
    /// The first two that this process may use.
    pub(crate) fn choose() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        match (cores.next(), cores.next()) {
            (Some(proxy), Some(load)) => Ok(Self { proxy, load }),
            _ => Err(io::Error::other("two cores are needed: one for a proxy, one for its load")),
        }
    }
}

/// Keeps the calling thread, and what it starts from now on, on these cores.
pub(crate) fn stay_on(cores: &[usize]) -> io::Result<()> {
    let mut only = CpuSet::new();
    for &core in cores {
        only.set(core);
    }
    Ok(sched_setaffinity(None, &only)?)
}

/// The certificate that all proxies present, as files.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFiles {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) chain_and_key: PathBuf,
}

/// A proxy that accepts connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    processes: Vec<Process>,
}

impl Proxy {
    /// Starts `peer` in a folder of its own within `parent` and waits until it listens.
    pub(crate) fn start(
        peer: &Peer,
        parent: &Path,
        certificate: &CertificateFiles,
        backend: SocketAddr,
        cores: Cores,
    ) -> io::Result<Self> {
        let groups = match peer.spread {
            Spread::OneCore => vec![vec![cores.proxy]],
            Spread::BothCores => vec![vec![cores.proxy, cores.load]],
            Spread::ProcessPerCore => vec![vec![cores.proxy], vec![cores.load]],
        };
        let start = |cores: &Vec<usize>| {
            let [wss, ws] = free_addresses()?;
            let site = Site {
                // Not named by a port, which may be given out again. It goes with its parent.
                folder: tempfile::Builder::new().prefix(peer.name).tempdir_in(parent)?.keep(),
                wss,
                ws,
                backend,
                chain: certificate.chain.clone(),
                key: certificate.key.clone(),
                chain_and_key: certificate.chain_and_key.clone(),
            };
            Process::start(peer, &site, cores)
        };
        Ok(Self { processes: groups.iter().map(start).collect::<io::Result<_>>()? })
    }

    /// Where its clients connect: as many addresses as it has processes.
    pub(crate) fn doors(&self, tls: Option<Arc<rustls::ClientConfig>>) -> Doors {
        let address = |process: &Process| match &tls {
            Some(_) => process.wss,
            None => process.ws,
        };
        Doors { addresses: self.processes.iter().map(address).collect(), tls }
    }

    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        self.processes
            .iter()
            .try_fold(Cpu::default(), |sum, process| Ok(sum + cost::cpu(process.child.id())?))
    }

    pub(crate) fn pss_kib(&self) -> io::Result<f64> {
        self.processes.iter().map(|process| cost::pss_kib(process.child.id())).sum()
    }

    /// Waits until the proxy does nothing, such as clear connections away, and no longer than a
    /// few seconds: what it does then is what it does when idle.
    pub(crate) async fn quiet(&self) -> io::Result<()> {
        for _ in 0..60 {
            let before = self.cpu()?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if (self.cpu()? - before).used < Duration::from_micros(500) {
                break;
            }
        }
        Ok(())
    }

    /// Adds to `error` what became of the proxy, if it is gone, and its last words.
    pub(crate) fn explain(&mut self, error: io::Error) -> io::Error {
        self.processes.iter_mut().fold(error, |error, process| process.explain(error))
    }
}

/// One process of a proxy, and those that it starts.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Where its stdout and stderr go.
    output: PathBuf,
    wss: SocketAddr,
    ws: SocketAddr,
}

impl Process {
    /// Starts it on these cores and waits until it listens.
    fn start(peer: &Peer, site: &Site, cores: &[usize]) -> io::Result<Self> {
        std::fs::write(site.configuration(), (peer.configuration)(site))?;
        let output_path = site.folder.join("output");
        let output = File::create(&output_path)?;
        let program = find(&peer.program).unwrap_or_else(|| peer.program.clone());
        let mut command = Command::new(program);
        command.args((peer.arguments)(site)).current_dir(&site.folder);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn_on(cores, &mut command).map_err(|error| {
            io::Error::new(error.kind(), format!("starting {}: {error}", peer.program.display()))
        })?;
        let mut process = Self { child, output: output_path, wss: site.wss, ws: site.ws };
        match process.wait_until_ready(cores.len()) {
            Ok(()) => Ok(process),
            Err(error) => Err(process.explain(error)),
        }
    }

    /// Waits until each address has so many listening sockets, one for each worker.
    fn wait_until_ready(&mut self, sockets: usize) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        for address in [self.wss, self.ws] {
            while listening_sockets(address)? < sockets {
                if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                    let fault = format!("{sockets} sockets do not listen on {address}");
                    return Err(io::Error::other(fault));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    fn explain(&mut self, error: io::Error) -> io::Error {
        let Ok(Some(status)) = self.child.try_wait() else { return error };
        let said = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join(" / ");
        io::Error::other(format!("{error}; the proxy has left with {status}, saying: {last}"))
    }

    /// Waits a moment for the process to go, and returns whether it did.
    fn gone_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.gone_within(Duration::from_millis(1)) {
            return;
        }
        // The second SIGTERM tells tidegate to cut what it is still draining.
        let first = self.child.id();
        for _ in 0..2 {
            send(first, Signal::TERM);
            if self.gone_within(Duration::from_secs(1)) {
                return;
            }
        }
        // A master that is killed would leave its workers behind.
        for process in cost::family(first).unwrap_or_default() {
            send(process, Signal::KILL);
        }
        if !self.gone_within(Duration::from_secs(1)) {
            eprintln!("process {first} could not be stopped");
        }
    }
}

fn send(process: u32, signal: Signal) {
    if let Some(process) = Pid::from_raw(process.cast_signed()) {
        // It may have gone by itself in the meantime.
        let _ = rustix::process::kill_process(process, signal);
    }
}

/// Starts `command` on `cores`. Affinity is inherited from the thread that forks; ours has its
/// own core to stay on, so another one does it.
fn spawn_on(cores: &[usize], command: &mut Command) -> io::Result<Child> {
    std::thread::scope(|scope| {
        let spawning = scope.spawn(|| {
            stay_on(cores)?;
            command.spawn()
        });
        spawning.join().map_err(|_| io::Error::other("the spawning thread panicked"))?
    })
}

/// Where a program is. Debian keeps daemons where the path of an ordinary user does not lead.
pub(crate) fn find(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(usual);
    let bare = program.components().count() == 1;
    match bare {
        true => folders.map(|folder| folder.join(program)).find(|path| path.is_file()),
        false => std::path::absolute(program).ok().filter(|path| path.is_file()),
    }
}

/// How many sockets listen on `address`, as `/proc/net/tcp` has it. One that can be connected to
/// is not enough where several share it.
fn listening_sockets(address: SocketAddr) -> io::Result<usize> {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let listens = |line: &&str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(&port));
        local && fields.nth(1) == Some(LISTEN)
    };
    Ok(table.lines().filter(listens).count())
}

/// Free ports, so that configurations can name them. They are taken again only by the next
/// program that asks for just these, which the kernel does not do by itself for a while.
fn free_addresses<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut held = Vec::new();
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        held.push(listener); // all are held until all are found, or they would be the same
    }
    Ok(addresses)
}
