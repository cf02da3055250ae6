//! The command line: what a person types, what they read, and the exit code.

use std::path::Path;

use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::support::certificates::trusting_anyone;
use crate::support::programs::{Program, curl};
use crate::support::proxy::TIDEGATE;
use crate::support::{Over, Proxy, Served, Setup, Wire, eventually};

/// Tables that send everything to the builtin echo.
const ECHO: &str = "[upstream.app]\nbuiltin = \"echo\"\n[[route]]\nhost = \"*\"\npath = \"/\"\nupstream = \"app\"\n";

/// `tidegate ARGUMENTS` in `folder`.
fn tidegate(folder: &Path, arguments: &[&str]) -> Program {
    Program::start(
        Command::new(TIDEGATE).args(arguments).current_dir(folder).env_remove("RUST_LOG"),
    )
}

/// `--help` names every command; an unknown option is a usage error, 2.
#[tokio::test]
async fn help_names_the_commands() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let help = tidegate(folder.path(), &["--help"]).succeeded().await;
    for word in ["run", "check", "init", "--config", "--to"] {
        assert!(help.contains(word), "{word} is not in:\n{help}");
    }
    assert_eq!(tidegate(folder.path(), &["--no-such-option"]).exited().await, 2);
    let version = tidegate(folder.path(), &["--version"]).succeeded().await;
    assert_eq!(version.trim(), concat!("tidegate ", env!("CARGO_PKG_VERSION")));
}

/// `init` writes a commented file with which `check` has nothing to complain about.
#[tokio::test]
async fn init_writes_a_file_that_check_accepts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tidegate(folder.path(), &["init"]).succeeded().await;
    let written = std::fs::read_to_string(folder.path().join("proxy.toml")).expect("init wrote it");
    assert!(written.contains("[[listener]]") && written.contains("\n# "), "{written}");
    tidegate(folder.path(), &["check"]).succeeded().await;
}

/// `init` does not overwrite what somebody wrote.
#[tokio::test]
async fn init_does_not_overwrite() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, "# mine").expect("the folder is ours");
    let mut init = tidegate(folder.path(), &["init"]);
    assert_eq!(init.exited().await, 1);
    assert!(init.stderr.text().contains("proxy.toml"), "{}", init.stderr.text());
    assert_eq!(std::fs::read_to_string(file).expect("it is there"), "# mine");
}

/// The file in the repository is a good one.
#[tokio::test]
async fn check_accepts_the_shipped_file() {
    let mut check = tidegate(Path::new(env!("CARGO_MANIFEST_DIR")), &["check"]);
    assert_eq!(check.exited().await, 0, "{}", check.stderr.text());
}

/// `check` looks at a configuration without making certificates or binding anything.
#[tokio::test]
async fn check_leaves_no_trace() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tidegate(folder.path(), &["init"]).succeeded().await;
    tidegate(folder.path(), &["check"]).succeeded().await;
    let names = std::fs::read_dir(folder.path())
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["proxy.toml"]);
}

/// A file that is not there is named, and `init` is the way out.
#[tokio::test]
async fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut run = tidegate(folder.path(), &["--config", "nowhere.toml"]);
    assert_eq!(run.exited().await, 1);
    assert!(run.stderr.text().contains("nowhere.toml"), "{}", run.stderr.text());
}

/// A file with a fault does not start, and says what `check` says.
#[tokio::test]
async fn run_and_check_say_the_same() {
    let toml = "[[listener]]\naddress = \"127.0.0.1:0\"\n\n[[route]]\nhost = \"*\"\nupstream = \"nobody\"\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("proxy.toml"), toml).expect("the folder is ours");
    let (mut run, mut check) =
        (tidegate(folder.path(), &["run"]), tidegate(folder.path(), &["check"]));
    assert_eq!((run.exited().await, check.exited().await), (1, 1));
    assert!(check.stderr.text().contains("proxy.toml:6:12"), "{}", check.stderr.text());
    let check = check.stderr.text();
    let fault = check.split("\n\n").next().unwrap_or_default();
    assert!(run.stderr.text().contains(fault), "{}", run.stderr.text());
}

/// `--to` runs without a file, in front of what it names. It listens where the shipped file does, so this needs one of
/// those ports; where all are taken it must say so.
#[tokio::test]
async fn to_runs_without_a_file() {
    let upstream = Served::named("no file").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = upstream.endpoint().replace("http://", "ws://");
    let program = tidegate(folder.path(), &["--to", &to]);
    let Some(proxy) = Proxy::at_default_ports(program, folder).await else { return };
    let port = proxy.address(Over::Plain).port();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    assert_eq!(Wire::new(stream).get("/").await.body, "no file");
    let mut tls = proxy.tls(trusting_anyone(), "localhost").await;
    assert_eq!(tls.get("/").await.body, "no file");
}

/// Sharing an address among workers must not let a second proxy share it unnoticed.
#[tokio::test]
async fn a_second_proxy_does_not_share_an_address() {
    let proxy = Setup::builtin().start().await;
    let address = proxy.address(Over::Plain).to_string();
    let listener = format!("[[listener]]\naddress = \"{address}\"\n");
    let (code, stderr) = Setup::whole(&format!("{listener}{ECHO}")).fails().await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

/// On a terminal a person reads where it is and what to type; `script` lends the terminal.
#[tokio::test]
async fn on_a_terminal_it_says_what_to_try() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let listeners = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n";
    std::fs::write(folder.path().join("proxy.toml"), format!("{listeners}{ECHO}"))
        .expect("the folder is ours");
    let mut command = Command::new("script");
    command.args(["-q", "-f", "-e", "-c", TIDEGATE, "/dev/null"]).current_dir(folder.path());
    let terminal = Program::start(&mut command);
    let line = terminal.stdout.containing("wscat -n -c wss://localhost:").await;
    let url = line.trim().rsplit(' ').next().unwrap_or_default().replace("wss://", "https://");
    terminal.stdout.containing(&url).await;
    terminal.stdout.containing("wscat --ca certs/ca.pem -c wss://localhost:").await;
    let page = curl(&["-k", &url]).succeeded().await;
    assert!(page.contains("<html"), "{page}");
    let logged = terminal
        .stdout
        .find("access-log line", |line| line.contains("GET") && line.contains("200"));
    assert!(!logged.await.contains('{'), "a person reads text, not JSON");
}

/// SIGHUP reloads; but when the terminal is gone at which somebody ran it, the process goes too.
#[tokio::test]
async fn it_leaves_with_its_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(
        folder.path().join("proxy.toml"),
        format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{ECHO}"),
    )
    .expect("the folder is ours");
    let mut command = Command::new("script");
    command.args(["-q", "-f", "-e", "-c", TIDEGATE, "/dev/null"]).current_dir(folder.path());
    let terminal = Program::start(&mut command);
    terminal.stdout.containing("Tidegate").await;
    let socket = folder.path().join("run/tidegate.sock");
    eventually("the admin socket to be there", || socket.exists()).await;
    drop(terminal);
    eventually("the process to leave", || !socket.exists()).await;
}

/// A `--to` that is no URL is said so.
#[tokio::test]
async fn to_needs_a_url() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut run = tidegate(folder.path(), &["--to", "gopher://127.0.0.1"]);
    let code = run.exited().await;
    assert!(code == 1 || code == 2, "{code}");
    assert!(run.stderr.text().contains("gopher"), "{}", run.stderr.text());
}

/// An address in use is named, and the process does not come up without it.
#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("a bound socket").to_string();
    let (code, stderr) = Setup::whole(&format!(
        "[[listener]]\naddress = \"{address}\"\n[upstream.app]\nbuiltin = \"echo\"\n\
         [[route]]\nhost = \"*\"\npath = \"/\"\nupstream = \"app\"\n"
    ))
    .fails()
    .await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

/// Where an address may not be had, `fallback` is taken, with a warning that names both.
#[tokio::test]
async fn a_fallback_is_taken_with_a_warning() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("a bound socket").to_string();
    let proxy = Setup::whole(&format!(
        "[[listener]]\naddress = \"{address}\"\nfallback = \"127.0.0.1:0\"\n[upstream.app]\nbuiltin = \"echo\"\n\
         [[route]]\nhost = \"*\"\npath = \"/\"\nupstream = \"app\"\n"
    ))
    .start()
    .await;
    proxy.says(&address).await;
    assert_ne!(proxy.address(Over::Plain).to_string(), address);
    assert_eq!(proxy.plain().await.get("/").await.status(), 200);
}

/// Several listeners, one of them on IPv6, serve alike.
#[tokio::test]
async fn ipv6_is_listened_on() {
    let proxy = Setup::whole(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"[::1]:0\"\n\
         [upstream.app]\nbuiltin = \"echo\"\n[[route]]\nhost = \"*\"\npath = \"/\"\nupstream = \"app\"\n",
    )
    .start()
    .await;
    assert_eq!(proxy.listeners.len(), 2, "{}", proxy.stderr());
    let stream = TcpStream::connect(proxy.listeners[1].0).await.expect("::1 is there");
    let mut client = Wire::new(stream);
    assert_eq!(client.get("/").await.status(), 200);
    let record = proxy.event("request").await;
    assert!(
        record["client"].as_str().is_some_and(|client| client.starts_with("[::1]:")),
        "{record}"
    );
}

/// The access log goes to a file where `log.path` says so, and a token in a query does not go anywhere.
#[tokio::test]
async fn the_access_log_may_go_to_a_file() {
    let log = "[log]\npath = \"access.log\"\nredact = [\"room\"]";
    let proxy = Setup::builtin().also(log).start().await;
    proxy.plain().await.get("/?room=blue&a=1").await;
    let file = proxy.file("access.log");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    crate::support::eventually("a line in the file", || read().ends_with('\n')).await;
    let record: serde_json::Value = serde_json::from_str(read().trim()).expect("JSON");
    assert_eq!(record["path"], "/?room=[redacted]&a=1");
    assert!(proxy.records().is_empty());
}
