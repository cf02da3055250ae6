//! A proxy on one core, so that it has one worker, in front of an echo server of our own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::peers::echo_server;

/// Set where this program is to be the proxy: the socket at which the count of allocations is
/// asked for.
pub(crate) const COUNTER: &str = "TIDEGATE_TEST_COUNTER";

/// Whether this process is to be the proxy.
pub(crate) fn is_one() -> bool {
    std::env::var_os(COUNTER).is_some()
}

pub(crate) struct Proxy {
    child: Child,
    folder: tempfile::TempDir,
    counter: Option<UnixStream>,
    pub(crate) ws: SocketAddr,
    pub(crate) wss: SocketAddr,
}

impl Proxy {
    /// The real binary.
    pub(crate) fn start() -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_tidegate")), None)
    }

    /// This program in its other role.
    pub(crate) fn start_counting() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("counter");
        let listener = UnixListener::bind(&path).expect("a socket in it");
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.env(COUNTER, &path);
        let mut proxy = Self::run(command, Some(listener));
        // Its socket's folder is not needed any more once they are connected.
        drop(folder);
        proxy.counter.as_mut().expect("it was asked for").write_all(&[0]).expect("it listens");
        proxy.answer();
        proxy
    }

    fn run(mut command: Command, counter: Option<UnixListener>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("tidegate.log");
        fs::write(folder.path().join("proxy.toml"), configuration(echo_server())).expect("written");
        let output = fs::File::create(&log).expect("a file for its words");
        command.args(["--config", "proxy.toml"]).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a copy")).stderr(output);
        let child = on_one_core(&mut command);
        let counter = counter.map(|listener| listener.accept().expect("it connects").0);
        let [ws, wss] = addresses(&log);
        Self { child, folder, counter, ws, wss }
    }

    /// The CA of the certificate that it has made itself.
    pub(crate) fn ca(&self) -> std::path::PathBuf {
        self.folder.path().join("certs/ca.pem")
    }

    /// How many allocations it has made so far.
    pub(crate) fn allocations(&self) -> u64 {
        let mut counter = self.counter.as_ref().expect("a proxy that counts");
        counter.write_all(&[0]).expect("it listens");
        self.answer()
    }

    fn answer(&self) -> u64 {
        let mut count = [0; 8];
        let mut counter = self.counter.as_ref().expect("a proxy that counts");
        counter.read_exact(&mut count).expect("it answers");
        u64::from_be_bytes(count)
    }

    /// The thread of its one worker.
    pub(crate) fn worker(&self) -> i32 {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut workers = fs::read_dir(tasks).expect("its threads").filter_map(|thread| {
            let thread = thread.expect("a thread").path();
            let name = fs::read_to_string(thread.join("comm")).ok()?;
            let number = thread.file_name()?.to_str()?.parse().ok()?;
            name.starts_with("worker-").then_some(number)
        });
        let worker = workers.next().expect("a worker");
        assert_eq!(workers.next(), None, "one worker on one core");
        worker
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(upstream: SocketAddr) -> String {
    format!(
        r#"[[listener]]
address = "127.0.0.1:0"

[[listener]]
address = "127.0.0.1:0"
tls = true

[[certificate]]
chain = "certs/server.crt"
key = "certs/server.key"
self_signed = ["localhost"]

[upstream.echo]
endpoints = ["http://{upstream}"]

[[route]]
upstream = "echo"

[log]
path = "access.log"
"#
    )
}

/// A process takes over on how many cores it may run from the thread that starts it.
fn on_one_core(command: &mut Command) -> Child {
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            let allowed = sched_getaffinity(None).expect("our cores");
            let core = (0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).expect("a core");
            let mut one = CpuSet::new();
            one.set(core);
            sched_setaffinity(None, &one).expect("one of our cores");
            command.spawn().expect("the proxy starts")
        });
        starting.join().expect("a child")
    })
}

/// Where it says that it listens: the plain listener and the one with TLS, once both are there.
fn addresses(log: &Path) -> [SocketAddr; 2] {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = fs::read_to_string(log).expect("its words");
        let said = |tls: &str| {
            let line = text.lines().find(|line| line.ends_with(&format!("tls={tls}")))?;
            line.split("address=").nth(1)?.split(' ').next()?.parse().ok()
        };
        if let (Some(ws), Some(wss), true) = (said("false"), said("true"), text.contains("ready")) {
            return [ws, wss];
        }
        assert!(Instant::now() < deadline, "it does not listen; it said:\n{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
