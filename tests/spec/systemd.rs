//! Under systemd, whose part the tests play: it hears how the process is, and it passes listening sockets to it.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::programs::Program;
use crate::support::proxy::TIDEGATE;
use crate::support::systemd::Systemd;
use crate::support::{Over, Setup, Upstream, Wire, within};

/// The built-in echo, started by this systemd.
fn started_by(systemd: &Systemd) -> Setup {
    Setup::builtin().environment("NOTIFY_SOCKET", systemd.path())
}

/// A listening socket and its address.
fn listening() -> (TcpListener, String) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("a bound socket").to_string();
    (socket, address)
}

/// A plain listener that takes the socket named `http`.
fn http() -> Setup {
    Setup::builtin().listeners("activation = \"http\"")
}

async fn connect(address: &str) -> Wire {
    let stream = within("a connection", TcpStream::connect(address)).await;
    Wire::new(stream.expect("the socket listens"))
}

/// READY=1 comes when connections are taken, and the status says where.
#[tokio::test]
async fn ready_is_said_when_connections_are_taken() {
    let systemd = Systemd::listen();
    let proxy = started_by(&systemd).start().await;
    let message = systemd.message().await;
    let (plain, tls) = (proxy.address(Over::Plain), proxy.address(Over::Tls));
    assert_eq!(message, format!("READY=1\nSTATUS=listening on {plain}, {tls}\n"));
    assert_eq!(connect(&plain.to_string()).await.get("/").await.status(), 200);
}

/// STOPPING=1 comes when the drain begins, not when it is over.
#[tokio::test]
async fn stopping_is_said_when_the_drain_begins() {
    let (systemd, upstream) = (Systemd::listen(), Upstream::raw().await);
    let setup = Setup::to(upstream.endpoint()).environment("NOTIFY_SOCKET", systemd.path());
    let proxy = setup.start().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    proxy.drain();
    let message = systemd.hears("STOPPING=1").await;
    assert_eq!(message, "STOPPING=1\nSTATUS=draining: no new sessions are opened\n");
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.body, "ok");
    assert_eq!(proxy.exited().await, 0);
}

/// A process that has nothing to finish says STOPPING=1 all the same.
#[tokio::test]
async fn stopping_is_said_by_an_idle_process() {
    let systemd = Systemd::listen();
    let proxy = started_by(&systemd).start().await;
    proxy.drain();
    assert_eq!(proxy.exited().await, 0);
    let messages = systemd.rest();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[1].starts_with("STOPPING=1\n"), "{messages:?}");
}

/// WATCHDOG=1 comes twice in the time that the watchdog grants.
#[tokio::test]
async fn the_watchdog_is_answered_in_half_its_time() {
    let systemd = Systemd::listen();
    let _proxy = started_by(&systemd).environment("WATCHDOG_USEC", "4000000").start().await;
    systemd.hears("WATCHDOG=1").await;
    let first = std::time::Instant::now();
    for _ in 0..2 {
        assert_eq!(systemd.message().await, "WATCHDOG=1\n");
    }
    // Four seconds, and what a busy machine adds; two in the whole time would take eight.
    let two = first.elapsed();
    assert!(two > Duration::from_secs(3) && two < Duration::from_secs(8), "{two:?}");
}

/// A reload is announced with its time and over with READY=1, as Type=notify-reload has it; also one that fails.
#[tokio::test]
async fn a_reload_is_announced_and_over() {
    let systemd = Systemd::listen();
    let proxy = started_by(&systemd).start().await;
    systemd.hears("READY=1").await;
    let mut times = Vec::new();
    for (fault, status) in [("", ""), ("[nonsense]\n", "; the last reload failed"), ("", "")] {
        let text = std::fs::read_to_string(proxy.file("proxy.toml")).expect("the file is ours");
        std::fs::write(proxy.file("proxy.toml"), format!("{text}{fault}")).expect("it is ours");
        proxy.signal(rustix::process::Signal::HUP);
        let message = systemd.message().await;
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&message);
        times.push(time.trim_end().parse::<u64>().expect("microseconds"));
        let message = systemd.message().await;
        assert!(message.starts_with("READY=1\nSTATUS=listening on "), "{message}");
        assert!(message.trim_end().ends_with(status), "{message}");
        std::fs::write(proxy.file("proxy.toml"), text).expect("it is ours");
    }
    assert!(times.is_sorted_by(|earlier, later| earlier < later), "{times:?}");
}

/// The watchdog goes on being answered while a drain lasts.
#[tokio::test]
async fn the_watchdog_is_answered_during_a_drain() {
    let (systemd, upstream) = (Systemd::listen(), Upstream::raw().await);
    let setup = Setup::to(upstream.endpoint()).environment("NOTIFY_SOCKET", systemd.path());
    let proxy = setup.environment("WATCHDOG_USEC", "100000").start().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    proxy.drain();
    systemd.hears("STATUS=draining: no new sessions are opened").await;
    for _ in 0..3 {
        systemd.hears("WATCHDOG=1").await;
    }
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.response().await;
    assert_eq!(proxy.exited().await, 0);
}

/// A watchdog that waits for another process, and one that grants no time, hear nothing.
#[tokio::test]
async fn another_watchdog_is_not_answered() {
    for (usec, pid) in [("100000", "1"), ("0", "")] {
        let systemd = Systemd::listen();
        let setup = started_by(&systemd).environment("WATCHDOG_USEC", usec);
        let proxy = setup.environment("WATCHDOG_PID", pid).start().await;
        assert_eq!(proxy.plain().await.get("/").await.status(), 200);
        proxy.drain();
        assert_eq!(proxy.exited().await, 0);
        let messages = systemd.rest();
        assert!(messages.iter().all(|message| !message.contains("WATCHDOG")), "{messages:?}");
    }
}

/// Nobody at the other end of `NOTIFY_SOCKET` is nothing to stop for, and said once where debugging is asked for.
#[tokio::test]
async fn nobody_has_to_listen_to_notifications() {
    let setup = Setup::builtin().environment("NOTIFY_SOCKET", "/nonexistent/notify");
    let proxy = setup.environment("RUST_LOG", "debug").start().await;
    assert_eq!(proxy.plain().await.get("/").await.status(), 200);
    proxy.drain();
    proxy.says("draining").await;
    let said = proxy.stderr().matches("cannot tell the supervisor").count();
    assert_eq!(said, 1, "{}", proxy.stderr());
    assert_eq!(proxy.exited().await, 0);
}

/// A systemd that has stopped reading holds up neither the start nor the drain.
#[tokio::test]
async fn a_systemd_that_hangs_holds_nothing_up() {
    let systemd = Systemd::listen();
    let full = systemd.fill();
    let setup = started_by(&systemd).environment("WATCHDOG_USEC", "100000");
    let proxy = setup.start().await;
    assert_eq!(proxy.plain().await.get("/").await.status(), 200);
    proxy.drain();
    assert_eq!(proxy.exited().await, 0);
    assert_eq!(systemd.rest().len(), full);
}

/// Its socket may have a name instead of a path.
#[tokio::test]
async fn systemd_may_listen_on_an_abstract_socket() {
    let systemd = Systemd::listen_abstract();
    let _proxy = started_by(&systemd).start().await;
    assert!(systemd.message().await.starts_with("READY=1\n"));
}

/// A passed socket is served under its own address, and `address` is not bound.
#[tokio::test]
async fn a_passed_socket_is_served() {
    let (socket, address) = listening();
    let proxy = http().activated(socket, "http", "3<&0").start().await;
    assert_eq!(proxy.listeners.len(), 1);
    assert_eq!(proxy.address(Over::Plain).to_string(), address);
    for _ in 0..32 {
        assert_eq!(connect(&address).await.get("/").await.status(), 200);
    }
    proxy.drain();
    assert_eq!(proxy.exited().await, 0);
}

/// With TLS, as any listener.
#[tokio::test]
async fn a_passed_socket_may_speak_tls() {
    let (socket, address) = listening();
    let setup = Setup::builtin().listeners("tls = true\nactivation = \"https\"");
    let proxy = setup.activated(socket, "https", "3<&0").start().await;
    assert_eq!(proxy.address(Over::Tls).to_string(), address);
    assert_eq!(proxy.connect(Over::Tls).await.get("/").await.status(), 200);
}

/// Who came before the process did is answered.
#[tokio::test]
async fn connections_that_wait_before_the_start_are_answered() {
    let (socket, address) = listening();
    let mut early = Vec::new();
    for _ in 0..8 {
        let mut client = connect(&address).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        early.push(client);
    }
    let _proxy = http().activated(socket, "http", "3<&0").start().await;
    for mut client in early {
        assert_eq!(client.response().await.status(), 200);
    }
}

/// Nobody is turned away by a restart: who comes while there is no process waits for the next one.
#[tokio::test]
async fn a_restart_turns_nobody_away() {
    let (socket, address) = listening();
    let passed = || socket.try_clone().expect("a descriptor is to be had");
    let first = http().activated(passed(), "http", "3<&0").start().await;
    assert_eq!(connect(&address).await.get("/").await.status(), 200);
    first.drain();
    assert_eq!(first.exited().await, 0);
    let mut client = connect(&address).await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let _second = http().activated(passed(), "http", "3<&0").start().await;
    assert_eq!(client.response().await.status(), 200);
}

/// Sockets go by their names, whatever their order.
#[tokio::test]
async fn sockets_go_by_their_names() {
    let (socket, address) = listening();
    let setup = http().activated(socket, "other:http", "3</dev/null 4<&0");
    let proxy = setup.start().await;
    assert_eq!(proxy.address(Over::Plain).to_string(), address);
    assert_eq!(connect(&address).await.get("/").await.status(), 200);
}

/// A socket that no listener names is warned about, and closed: who connects there would wait forever.
#[tokio::test]
async fn a_socket_that_is_left_over_is_warned_about() {
    let (socket, address) = listening();
    let proxy = http().activated(socket, "forgotten", "3<&0").start().await;
    let line = proxy.says("forgotten").await;
    assert!(line.contains("WARN") && line.contains("`activation`"), "{line}");
    assert!(TcpStream::connect(&address).await.is_err(), "the socket is still open");
    assert_eq!(proxy.plain().await.get("/").await.status(), 200);
}

/// Without a socket of that name `address` is bound, so that the same file works by hand.
#[tokio::test]
async fn a_name_that_was_not_passed_is_bound() {
    let proxy = http().start().await;
    assert_ne!(proxy.address(Over::Plain).port(), 0);
    assert_eq!(proxy.plain().await.get("/").await.status(), 200);
}

/// What was passed to another process, such as the one that started us, is not ours.
#[tokio::test]
async fn sockets_of_another_process_are_left_alone() {
    let setup = http().environment("LISTEN_FDS", "1").environment("LISTEN_FDNAMES", "http");
    let proxy = setup.environment("LISTEN_PID", "1").start().await;
    assert_eq!(proxy.plain().await.get("/").await.status(), 200);
    assert!(!proxy.stderr().contains("WARN"), "{}", proxy.stderr());
}

/// What cannot be accepted on is named, with what its unit lacks.
#[tokio::test]
async fn a_passed_socket_that_does_not_listen_is_named() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unix = UnixListener::bind(folder.path().join("socket")).expect("the folder is ours");
    let (listener, address) = listening();
    let connected = std::net::TcpStream::connect(&address).expect("the socket listens");
    let refused = [
        http().activated(udp, "http", "3<&0"),
        http().activated(unix, "http", "3<&0"),
        http().activated(connected, "http", "3<&0"),
        http().activated(listener, "http", "3</dev/null"),
    ];
    for setup in refused {
        let (code, stderr) = setup.fails().await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("as `http` is no listening TCP socket"), "{stderr}");
    }
}

/// systemd finds nothing wrong with the units that are shipped.
#[tokio::test]
async fn the_units_are_good() {
    if std::process::Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("systemd-analyze is not installed: the units were not verified");
        return;
    }
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for unit in ["tidegate.service", "tidegate-http.socket", "tidegate-https.socket"] {
        let text = std::fs::read_to_string(packaging.join(unit)).expect("it is shipped");
        // The program has to be where the unit says it is.
        let text = text.replace("/usr/local/bin/tidegate", TIDEGATE);
        let copy = folder.path().join(unit);
        std::fs::write(&copy, text).expect("the folder is ours");
        verify.arg(copy);
    }
    let mut program = Program::start(&mut verify);
    let code = program.exited().await;
    let mut complaints = program.stdout.so_far();
    complaints.extend(program.stderr.so_far());
    // systemd has known notify-reload since 253. Other units of the machine are not our business.
    complaints.retain(|line| line.contains("tidegate") && !line.contains(": notify-reload"));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(code, 0, "{}", program.stderr.text());
}
