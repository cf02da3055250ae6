//! The real binary: its folder, its configuration, its start and its end.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::{Pid, Resource, Signal};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;

use super::certificates::trusting_file;
use super::programs::Program;
use super::upstream::any_size;
use super::wire::{Head, accept, handshake_with};
use super::{Upstream, Wire, within};

/// Where the binary under test is.
pub(crate) const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// The certificate of the standard configuration, which the proxy makes itself.
pub(crate) const SELF_SIGNED: &str = "\
[[certificate]]
chain = \"certs/server.crt\"
key = \"certs/server.key\"
self_signed = [\"localhost\", \"127.0.0.1\"]
";

/// Which of the two listeners of the standard configuration a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    Tls,
}

/// For what must hold on both.
pub(crate) const BOTH: [Over; 2] = [Over::Plain, Over::Tls];

/// A configuration in the making: by itself a plain and a TLS listener, one upstream, one route to it.
pub(crate) struct Setup {
    folder: tempfile::TempDir,
    listener: String,
    listeners: Option<String>,
    certificates: String,
    upstream: String,
    route: String,
    more: String,
    whole: Option<String>,
    open_files: Option<u32>,
    namespace: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    passed: Option<Passed>,
}

/// What the process is given beside its arguments, as by socket activation.
struct Passed {
    socket: OwnedFd,
    redirections: String,
}

impl Setup {
    /// Everything goes to this endpoint.
    pub(crate) fn to(endpoint: &str) -> Setup {
        Setup::to_upstream(&format!("endpoints = [\"{endpoint}\"]"))
    }

    /// Everything goes to these endpoints.
    pub(crate) fn to_all(endpoints: &[&str]) -> Setup {
        Setup::to_upstream(&format!("endpoints = {endpoints:?}"))
    }

    /// Everything goes to the builtin echo.
    pub(crate) fn builtin() -> Setup {
        Setup::to_upstream("builtin = \"echo\"")
    }

    /// A configuration file that the test writes itself.
    pub(crate) fn whole(toml: &str) -> Setup {
        let mut setup = Setup::builtin();
        setup.whole = Some(toml.to_owned());
        setup
    }

    fn to_upstream(upstream: &str) -> Setup {
        Setup {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            listener: String::new(),
            listeners: None,
            certificates: SELF_SIGNED.to_owned(),
            upstream: upstream.to_owned(),
            route: "host = \"*\"\npath = \"/\"\nupstream = \"app\"".to_owned(),
            more: String::new(),
            whole: None,
            open_files: None,
            namespace: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            passed: None,
        }
    }

    /// More keys of both listeners.
    pub(crate) fn listener(mut self, keys: &str) -> Setup {
        self.listener += &format!("\n{keys}");
        self
    }

    /// A plain listener with these keys, and whatever tables follow them, instead of the two listeners.
    pub(crate) fn listeners(mut self, keys: &str) -> Setup {
        self.listeners = Some(format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{keys}\n"));
        self
    }

    /// More keys of the upstream.
    pub(crate) fn upstream(mut self, keys: &str) -> Setup {
        self.upstream += &format!("\n{keys}");
        self
    }

    /// More keys of the route.
    pub(crate) fn route(mut self, keys: &str) -> Setup {
        self.route += &format!("\n{keys}");
        self
    }

    /// The keys of the route instead of those that send everything to the upstream.
    pub(crate) fn replace_route(mut self, keys: &str) -> Setup {
        self.route = keys.to_owned();
        self
    }

    /// The `[[certificate]]` tables instead of the standard one.
    pub(crate) fn certificates(mut self, tables: &str) -> Setup {
        self.certificates = tables.to_owned();
        self
    }

    /// Leaves the folder for the test to look at and remove.
    pub(crate) fn kept(mut self) -> Setup {
        self.folder.disable_cleanup(true);
        self
    }

    /// More tables.
    pub(crate) fn also(mut self, tables: &str) -> Setup {
        self.more += &format!("\n{tables}\n");
        self
    }

    /// Limits of minutes for whatever a client's connection is timed by: none of its timers looks after
    /// what nobody woke it for.
    pub(crate) fn patient(self) -> Setup {
        let limits = ["header_timeout", "body_timeout", "send_timeout", "keep_alive"];
        let limits = limits.map(|limit| format!("{limit} = \"10m\"\n"));
        self.also(&format!("[limits]\n{}", limits.concat()))
    }

    /// At most this many descriptors for the process.
    pub(crate) fn open_files(mut self, limit: u32) -> Setup {
        self.open_files = Some(limit);
        self
    }

    /// More arguments on the command line.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Setup {
        self.arguments.extend(arguments.iter().map(|argument| argument.to_string()));
        self
    }

    /// A variable of the environment.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Passes descriptors, beginning with 3, as systemd does: under these names, with colons between. Which they are is
    /// said to a shell, to which `socket` is 0: as in `3<&0`.
    pub(crate) fn activated(
        self,
        socket: impl Into<OwnedFd>,
        names: &str,
        redirections: &str,
    ) -> Setup {
        let count = names.split(':').count().to_string();
        let mut setup = self.environment("LISTEN_FDS", &count).environment("LISTEN_FDNAMES", names);
        let redirections = redirections.to_owned();
        setup.passed = Some(Passed { socket: socket.into(), redirections });
        setup
    }

    /// The process lives in this network namespace.
    pub(crate) fn inside(mut self, namespace: &str) -> Setup {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// The folder in which the configuration will be, for certificates of the test's own.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn toml(&self) -> String {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let Setup { listener, listeners, certificates, upstream, route, more, .. } = self;
        let both = || {
            format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"{listener}\n\n\
                 [[listener]]\naddress = \"127.0.0.1:0\"\ntls = true{listener}\n"
            )
        };
        let listeners = listeners.clone().unwrap_or_else(both);
        // A test that is not about the pace of a drain does not wait for it.
        let drain = if more.contains("[drain]") { "" } else { "[drain]\nspread = \"0s\"\n" };
        format!(
            "{listeners}\n{certificates}\n[upstream.app]\n{upstream}\n\n[[route]]\n{route}\n{more}\n\
             {drain}"
        )
    }

    fn run(&self) -> Program {
        raise_descriptor_limit();
        let file = self.folder.path().join("proxy.toml");
        std::fs::write(&file, self.toml()).expect("the folder is ours");
        let shell = |script: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", script, TIDEGATE]);
            shell
        };
        let mut command = match (self.open_files, &self.namespace, &self.passed) {
            (None, None, None) => Command::new(TIDEGATE),
            (_, Some(namespace), _) => {
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", namespace, TIDEGATE]);
                ip
            }
            (Some(limit), None, _) => shell(&format!("ulimit -n {limit}; exec \"$0\" \"$@\"")),
            (None, None, Some(Passed { redirections, .. })) => {
                shell(&format!("LISTEN_PID=$$ exec \"$0\" \"$@\" {redirections} </dev/null"))
            }
        };
        let command = command
            .arg("--config")
            .arg(file)
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        match &self.passed {
            None => Program::start(command),
            Some(passed) => {
                let socket = passed.socket.try_clone().expect("a descriptor is to be had");
                Program::start_with(command, socket)
            }
        }
    }

    /// Starts the proxy and waits until it accepts.
    pub(crate) async fn start(self) -> Proxy {
        let program = self.run();
        Proxy::ready(program, self.folder).await
    }

    /// Starts the proxy, which must not come up, and returns its exit code and what it wrote to stderr.
    pub(crate) async fn fails(self) -> (i32, String) {
        let mut program = self.run();
        let code = program.exited().await;
        (code, program.stderr.text())
    }
}

/// A running proxy. It is killed when this is dropped.
pub(crate) struct Proxy {
    program: Program,
    folder: tempfile::TempDir,
    /// Each listener in the order of the file, and whether it speaks TLS.
    pub(crate) listeners: Vec<(SocketAddr, bool)>,
}

impl Proxy {
    /// With the standard configuration, in front of this endpoint.
    pub(crate) async fn to(endpoint: &str) -> Proxy {
        Setup::to(endpoint).start().await
    }

    /// With the standard configuration and an upstream of the test's own.
    pub(crate) async fn scripted() -> (Proxy, Upstream) {
        let upstream = Upstream::raw().await;
        (Proxy::to(upstream.endpoint()).await, upstream)
    }

    /// The same with sessions that are mere bytes, whatever they look like.
    pub(crate) async fn scripted_bytes() -> (Proxy, Upstream) {
        let upstream = Upstream::raw().await;
        let setup = Setup::to(upstream.endpoint()).route("frames = \"off\"");
        (setup.start().await, upstream)
    }

    /// A program that was just started, once it is ready.
    pub(crate) async fn ready(program: Program, folder: tempfile::TempDir) -> Proxy {
        program.stderr.find("line that says ready", |line| line.contains(" ready")).await;
        let listeners = program.stderr.so_far().iter().filter_map(|line| listening(line)).collect();
        Proxy { program, folder, listeners }
    }

    /// The same for one that listens at 80 and 443, or at the fallbacks; `None`, and a word about it, where other
    /// programs have all of them.
    pub(crate) async fn at_default_ports(
        program: Program,
        folder: tempfile::TempDir,
    ) -> Option<Proxy> {
        let started = |line: &str| line.contains(" ready") || line.contains("in use");
        let line = program.stderr.find("word of the start", started).await;
        if !line.contains(" ready") && !program.stderr.text().contains("fallback") {
            println!("skipped: other programs have the ports ({line})");
            return None;
        }
        Some(Proxy::ready(program, folder).await)
    }

    /// The address of the plain or the TLS listener, the first of several.
    pub(crate) fn address(&self, over: Over) -> SocketAddr {
        let wanted = over == Over::Tls;
        let found = self.listeners.iter().find(|(_, tls)| *tls == wanted);
        found.unwrap_or_else(|| panic!("no such listener: {:?}", self.listeners)).0
    }

    /// A file in the folder of the configuration.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `http://localhost:PORT/path` or `https://…`.
    pub(crate) fn url(&self, over: Over, path: &str) -> String {
        let scheme = if over == Over::Tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}{path}", self.address(over).port())
    }

    /// `ws://localhost:PORT/path` or `wss://…`.
    pub(crate) fn ws_url(&self, over: Over, path: &str) -> String {
        self.url(over, path).replacen("http", "ws", 1)
    }

    /// A connection to the plain listener or, trusting the proxy's own authority, to the TLS one.
    pub(crate) async fn connect(&self, over: Over) -> Wire {
        match over {
            Over::Plain => self.plain().await,
            Over::Tls => self.tls(trusting_file(&self.file("certs/ca.pem")), "localhost").await,
        }
    }

    pub(crate) async fn plain(&self) -> Wire {
        Wire::new(self.tcp(Over::Plain).await)
    }

    /// A bare TCP connection.
    pub(crate) async fn tcp(&self, over: Over) -> TcpStream {
        within("a connection", TcpStream::connect(self.address(over)))
            .await
            .expect("the proxy listens")
    }

    /// A connection to the plain listener from another loopback address, such as `127.0.0.2`.
    pub(crate) async fn plain_from(&self, source: &str) -> Wire {
        Wire::new(self.tcp_from(source, Over::Plain).await)
    }

    /// A bare TCP connection from another loopback address.
    pub(crate) async fn tcp_from(&self, source: &str, over: Over) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::new(source.parse().expect("an address"), 0))
            .expect("127.0.0.0/8 is all loopback");
        let stream = within("a connection", socket.connect(self.address(over))).await;
        stream.expect("the proxy listens")
    }

    /// A TLS connection that asks for `name`.
    pub(crate) async fn tls(&self, client: rustls::ClientConfig, name: &str) -> Wire {
        let stream = self.try_tls(&Arc::new(client), name).await;
        Wire::new(stream.expect("the TLS handshake succeeds"))
    }

    /// The stream of a TLS connection that asks for `name`, or why there is none.
    pub(crate) async fn try_tls(
        &self,
        client: &Arc<rustls::ClientConfig>,
        name: &str,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        self.try_tls_at(self.address(Over::Tls), client, name).await
    }

    /// The same at the listener with this address.
    pub(crate) async fn try_tls_at(
        &self,
        address: SocketAddr,
        client: &Arc<rustls::ClientConfig>,
        name: &str,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let tcp = within("a connection", TcpStream::connect(address)).await?;
        Self::try_tls_over(tcp, client, name).await
    }

    /// The same over a connection that is open.
    pub(crate) async fn try_tls_over(
        tcp: TcpStream,
        client: &Arc<rustls::ClientConfig>,
        name: &str,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("the test's names are good");
        within("a TLS handshake", TlsConnector::from(client.clone()).connect(name, tcp)).await
    }

    /// A connection to the plain listener whose kernel holds only a few KiB that were not read.
    pub(crate) async fn slow_reader(&self) -> Wire {
        Wire::new(self.slow_tcp(Over::Plain).await)
    }

    /// The same, to either listener.
    pub(crate) async fn slow_reader_over(&self, over: Over) -> Wire {
        let tcp = self.slow_tcp(over).await;
        if over == Over::Plain {
            return Wire::new(tcp);
        }
        let name = ServerName::try_from("localhost").expect("a good name");
        let client = Arc::new(trusting_file(&self.file("certs/ca.pem")));
        let stream = within("a TLS handshake", TlsConnector::from(client).connect(name, tcp)).await;
        Wire::new(stream.expect("the TLS handshake succeeds"))
    }

    async fn slow_tcp(&self, over: Over) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket takes options");
        within("a connection", socket.connect(self.address(over))).await.expect("the proxy listens")
    }

    /// A session to `upstream` with both legs in the test's hand.
    pub(crate) async fn session(&self, over: Over, upstream: &Upstream) -> (Wire, Wire) {
        let mut client = self.connect(over).await;
        let (_, leg) = self.open(&mut client, upstream).await;
        (client, leg)
    }

    /// Makes a session of `client`, and returns the handshake that `upstream` saw and its leg.
    pub(crate) async fn open(&self, client: &mut Wire, upstream: &Upstream) -> (Head, Wire) {
        client.send(handshake_with("/", "")).await;
        let mut leg = upstream.accept().await;
        let asked = leg.accept().await;
        let answer = client.head().await;
        assert_eq!(answer.status(), Some(101), "{answer:?}");
        assert_eq!(answer.field("sec-websocket-accept"), Some(&*accept(super::wire::KEY)));
        (asked, leg)
    }

    /// A session of tokio-tungstenite.
    pub(crate) async fn websocket(&self, over: Over, path: &str) -> WebSocketStream<Wire> {
        let wire = self.connect(over).await;
        websocket_on(wire, &self.ws_url(over, path)).await
    }

    /// The addresses of the TLS listeners in the order of the file.
    pub(crate) fn tls_addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter(|(_, tls)| *tls).map(|(address, _)| *address).collect()
    }

    /// The first access-log record that `wanted` accepts, once it is written.
    pub(crate) async fn record(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let parse = |line: &str| serde_json::from_str::<Value>(line);
        let line = self
            .program
            .stdout
            .find("access-log line", |line| parse(line).is_ok_and(|record| wanted(&record)));
        parse(&line.await).expect("it was parsed just now")
    }

    /// The first record of this event.
    pub(crate) async fn event(&self, event: &str) -> Value {
        self.record(|record| record["event"] == event).await
    }

    /// The access-log records so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let lines = self.program.stdout.so_far();
        lines
            .iter()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?} is no JSON"))
            })
            .collect()
    }

    /// The first line on stderr that contains `text`, once it is written.
    pub(crate) async fn says(&self, text: &str) -> String {
        self.program.stderr.containing(text).await
    }

    /// The line on stderr that contains `text` after `before` others, once it is written.
    pub(crate) async fn says_again(&self, text: &str, before: usize) -> String {
        let what = format!("further line with {text:?}");
        self.program.stderr.nth(&what, before, |line| line.contains(text)).await
    }

    /// Everything on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.program.stderr.text()
    }

    /// Closes our end of its stderr.
    pub(crate) async fn stop_reading_stderr(&self) {
        self.program.stderr.stop().await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.program.id()).expect("a process id"))
            .expect("not zero");
        rustix::process::kill_process(id, signal)
            .expect("the process is ours and not yet waited for");
    }

    /// SIGTERM.
    pub(crate) fn drain(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it says that it is draining.
    pub(crate) async fn draining(&self) {
        self.says("draining: ").await;
    }

    /// SIGHUP, and what it came to: the line that says so, of as many as there were.
    pub(crate) async fn reload(&self) -> String {
        let is_outcome = |line: &str| {
            let is_outcome = line.contains(" reloaded ") || line.contains("the reload failed");
            is_outcome && line.contains("SIGHUP")
        };
        let before = self.stderr().lines().filter(|line| is_outcome(line)).count();
        self.signal(Signal::HUP);
        self.program.stderr.nth("outcome of a reload", before, is_outcome).await
    }

    /// Changes the configuration file: the first `old` in it becomes `new`.
    pub(crate) fn edit(&self, old: &str, new: &str) {
        let path = self.file("proxy.toml");
        let text = std::fs::read_to_string(&path).expect("the file is ours");
        assert!(text.contains(old), "{old:?} is not in:\n{text}");
        std::fs::write(&path, text.replacen(old, new, 1)).expect("the file is ours");
    }

    /// Asks by the admin socket, `GET /status` for example, and returns the status and the body.
    pub(crate) async fn ask(&self, method: &str, target: &str) -> (u16, String) {
        let socket = UnixStream::connect(self.file("run/tidegate.sock")).await;
        let mut wire = Wire::new(socket.expect("the admin socket is open"));
        wire.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: tidegate\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let response = wire.response().await;
        (response.status(), response.body)
    }

    /// What the admin socket answers in JSON, with 200.
    pub(crate) async fn told(&self, method: &str, target: &str) -> Value {
        let (status, body) = self.ask(method, target).await;
        assert_eq!(status, 200, "{method} {target}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body:?} is no JSON"))
    }

    /// Waits for the process to leave, and returns its exit code.
    pub(crate) async fn exited(mut self) -> i32 {
        let code = self.program.exited().await;
        eprintln!(
            "tidegate left with {code} after writing to stderr:\n{}",
            self.program.stderr.text()
        );
        code
    }

    /// A line of `/proc/PID/status` in KiB, such as `VmRSS` (memory now) or `VmHWM` (its highest so far).
    pub(crate) fn memory_kib(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.id()))
            .expect("Linux has /proc");
        let value = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        let value = value
            .and_then(|value| value.trim().strip_suffix(" kB"))
            .expect("the line is there in kB");
        value.parse().expect("a number")
    }

    /// How many descriptors the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.program.id()))
            .expect("Linux has /proc")
            .count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("tidegate wrote to stderr:\n{}", self.program.stderr.text());
            eprintln!("and to stdout:\n{}", self.program.stdout.text());
        }
    }
}

/// A session of tokio-tungstenite over an open connection.
pub(crate) async fn websocket_on(wire: Wire, url: &str) -> WebSocketStream<Wire> {
    let opened = tokio_tungstenite::client_async_with_config(url, wire, Some(any_size()));
    within("a handshake", opened)
        .await
        .unwrap_or_else(|error| panic!("handshake with {url}: {error}"))
        .0
}

/// Sends a text and reads the same, as an echo sends it back.
pub(crate) async fn exchange(socket: &mut WebSocketStream<Wire>, text: &str) {
    within("a message to leave", socket.send(text.into())).await.expect("the proxy reads");
    let answer = within("an answer", socket.next()).await.expect("a message").expect("a good one");
    assert_eq!(answer.into_text().expect("text"), text);
}

/// What a `listening` line says.
fn listening(line: &str) -> Option<(SocketAddr, bool)> {
    let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
    if !line.contains("listening") {
        return None;
    }
    Some((value("address=")?.parse().ok()?, value("tls=")? == "true"))
}

/// Thousands of sessions need more descriptors than a shell gives by default; the proxy inherits the limit.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit)
        .expect("the soft limit may rise to the hard one");
}
