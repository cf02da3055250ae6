//! A running proxy: started on its core, asked for its costs, and gone when this is dropped,
//! whatever happened in between.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::cost;
use crate::peer::{Peer, Site};

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

/// Keeps the calling thread, and what it starts from now on, on one core.
pub(crate) fn stay_on(core: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
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
    child: Child,
    /// Where its stdout and stderr go.
    output: PathBuf,
    pub(crate) wss: SocketAddr,
    pub(crate) ws: SocketAddr,
}

impl Proxy {
    /// Starts `peer` in a folder of its own within `parent` and waits until it listens.
    pub(crate) fn start(
        peer: &Peer,
        parent: &Path,
        certificate: &CertificateFiles,
        backend: SocketAddr,
        core: usize,
    ) -> io::Result<Self> {
        let [wss, ws] = free_addresses()?;
        let site = Site {
            folder: parent.join(format!("{}-{}", peer.name, wss.port())),
            wss,
            ws,
            backend,
            chain: certificate.chain.clone(),
            key: certificate.key.clone(),
            chain_and_key: certificate.chain_and_key.clone(),
        };
        std::fs::create_dir(&site.folder)?;
        std::fs::write(site.configuration(), (peer.configuration)(&site))?;
        let output_path = site.folder.join("output");
        let output = File::create(&output_path)?;
        let mut command = Command::new(program(&peer.program));
        command.args((peer.arguments)(&site)).current_dir(&site.folder);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);

        let child = spawn_on(core, &mut command).map_err(|error| {
            io::Error::new(error.kind(), format!("starting {}: {error}", peer.program.display()))
        })?;
        let mut proxy = Self { child, output: output_path, wss, ws };
        match proxy.wait_until_ready() {
            Ok(()) => Ok(proxy),
            Err(error) => Err(proxy.explain(error)),
        }
    }

    pub(crate) fn cpu(&self) -> io::Result<cost::Cpu> {
        cost::cpu(self.child.id())
    }

    pub(crate) fn pss_kib(&self) -> io::Result<f64> {
        cost::pss_kib(self.child.id())
    }

    /// Adds to `error` what became of the proxy, if it is gone, and its last words.
    pub(crate) fn explain(&mut self, error: io::Error) -> io::Error {
        let Ok(Some(status)) = self.child.try_wait() else { return error };
        let said = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join(" / ");
        io::Error::other(format!("{error}; the proxy has left with {status}, saying: {last}"))
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        for address in [self.wss, self.ws] {
            while let Err(error) = TcpStream::connect(address) {
                if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                    return Err(io::Error::other(format!("does not listen on {address}: {error}")));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Waits a moment for the proxy to go, and returns whether it did.
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

impl Drop for Proxy {
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

/// Starts `command` on `core`. Affinity is inherited from the thread that forks; ours has its
/// own core to stay on, so another one does it.
fn spawn_on(core: usize, command: &mut Command) -> io::Result<Child> {
    std::thread::scope(|scope| {
        let spawning = scope.spawn(|| {
            stay_on(core)?;
            command.spawn()
        });
        spawning.join().map_err(|_| io::Error::other("the spawning thread panicked"))?
    })
}

/// Debian keeps daemons where the path of an ordinary user does not lead.
fn program(name: &Path) -> PathBuf {
    ["/usr/sbin", "/usr/local/sbin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| name.to_owned())
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
