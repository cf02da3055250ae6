//! Programs that the tests run: the proxy itself, curl, node and wscat.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Notify, watch};

use super::{DEADLINE, sha256, within};

/// A running program whose output is collected line by line. It is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        Program::start_with(command, Stdio::piped())
    }

    /// The same with a stdin of the test's own.
    pub(crate) fn start_with(command: &mut Command, stdin: impl Into<Stdio>) -> Program {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let name = command.as_std().get_program().to_owned();
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("the tests need {name:?}: {error}"));
        Program {
            stdin: child.stdin.take(),
            stdout: Lines::follow(child.stdout.take().expect("stdout is a pipe")),
            stderr: Lines::follow(child.stderr.take().expect("stderr is a pipe")),
            child,
        }
    }

    /// The process id while it runs.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("a program that was not yet waited for")
    }

    /// Writes a line to its stdin, which stays open.
    pub(crate) async fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(format!("{line}\n").as_bytes()).await.expect("the program reads its stdin");
    }

    /// Ends its stdin.
    pub(crate) fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end and returns the exit code; -1 stands for a signal.
    pub(crate) async fn exited(&mut self) -> i32 {
        let status = within("a program to leave", self.child.wait())
            .await
            .expect("a child can be waited for");
        self.stdout.ended().await;
        self.stderr.ended().await;
        status.code().unwrap_or(-1)
    }

    /// Waits for its end, which must be a success, and returns what it wrote.
    pub(crate) async fn succeeded(mut self) -> String {
        let code = self.exited().await;
        assert_eq!(code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout.text(), self.stderr.text());
        self.stdout.text()
    }
}

/// The lines that a program has written so far, growing in the background.
#[derive(Clone)]
pub(crate) struct Lines {
    written: Arc<watch::Sender<Written>>,
    stop: Arc<Notify>,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    pub(crate) fn follow(output: impl AsyncRead + Unpin + Send + 'static) -> Lines {
        let lines = Lines {
            written: Arc::new(watch::Sender::new(Written::default())),
            stop: Arc::new(Notify::new()),
        };
        let (written, stop) = (lines.written.clone(), lines.stop.clone());
        tokio::spawn(async move {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            loop {
                let read = tokio::select! {
                    read = output.read_until(b'\n', &mut line) => read,
                    () = stop.notified() => break,
                };
                if !read.is_ok_and(|read| read > 0) {
                    break;
                }
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                written.send_modify(|written| written.lines.push(text));
                line.clear();
            }
            drop(output);
            written.send_modify(|written| written.ended = true);
        });
        lines
    }

    /// The first line that `wanted` accepts, once it has been written.
    pub(crate) async fn find(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.nth(what, 0, wanted).await
    }

    /// The line that `wanted` accepts after `before` others, once it has been written.
    pub(crate) async fn nth(
        &self,
        what: &str,
        before: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let found = |written: &Written| {
            written.lines.iter().filter(|line| wanted(line)).nth(before).cloned()
        };
        let mut changes = self.written.subscribe();
        let seen = changes.wait_for(|written| written.ended || found(written).is_some());
        let line = match tokio::time::timeout(DEADLINE, seen).await {
            Ok(written) => found(&written.expect("the sender is ours")),
            Err(_) => None,
        };
        line.unwrap_or_else(|| panic!("no {what} in what was written:\n{}", self.text()))
    }

    /// The first line that contains `text`, once it has been written.
    pub(crate) async fn containing(&self, text: &str) -> String {
        self.find(&format!("line with {text:?}"), |line| line.contains(text)).await
    }

    /// Everything up to now.
    pub(crate) fn text(&self) -> String {
        self.written.borrow().lines.join("\n")
    }

    /// The lines up to now.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.written.borrow().lines.clone()
    }

    /// Closes our end of the output.
    pub(crate) async fn stop(&self) {
        self.stop.notify_one();
        self.ended().await;
    }

    /// Waits until the program has closed its output.
    pub(crate) async fn ended(&self) {
        let mut changes = self.written.subscribe();
        let ended = changes.wait_for(|written| written.ended);
        within("the output to end", ended).await.expect("the sender is ours");
    }
}

/// curl, quiet but for errors, never through a proxy of the environment.
pub(crate) fn curl(arguments: &[&str]) -> Program {
    let mut command = Command::new("curl");
    command.args(["-sS", "-N", "--noproxy", "*", "--max-time", "40"]).args(arguments);
    Program::start(&mut command)
}

/// `node tests/clients/SCRIPT` with the packages of `tests/clients/package-lock.json`.
pub(crate) fn node(script: &str, arguments: &[&str]) -> Program {
    Program::start(Command::new("node").arg(clients().join(script)).args(arguments))
}

/// The same in a network namespace.
pub(crate) fn node_inside(namespace: &str, script: &str, arguments: &[&str]) -> Program {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "node"]).arg(clients().join(script));
    Program::start(command.args(arguments))
}

/// wscat, whose stdin stays open: it leaves without a word when that ends.
pub(crate) fn wscat(arguments: &[&str]) -> Program {
    Program::start(
        Command::new("node").arg(clients().join("node_modules/wscat/bin/wscat")).args(arguments),
    )
}

/// `python3 tests/clients/SCRIPT` with the packages of `tests/clients/requirements.txt`.
pub(crate) fn python(script: &str, arguments: &[&str]) -> Program {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    let packages = PACKAGES.get_or_init(install_packages);
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    Program::start(Command::new("python3").arg(script).args(arguments).env("PYTHONPATH", packages))
}

/// A Node.js `ws` and http server on one port, and its endpoint.
pub(crate) async fn node_upstream(script: &str) -> (Program, String) {
    let program = node(script, &[]);
    let line = program.stdout.containing("listening on ").await;
    let port = line.rsplit(' ').next().unwrap_or_default();
    let endpoint = format!("http://127.0.0.1:{port}");
    (program, endpoint)
}

/// The folder with the Node.js clients.
fn clients() -> &'static PathBuf {
    static CLIENTS: OnceLock<PathBuf> = OnceLock::new();
    CLIENTS.get_or_init(install_clients)
}

/// The folder with the Python packages, installed once for each content of their list.
fn install_packages() -> PathBuf {
    let list = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/requirements.txt");
    installed("packages", &list, |folder| {
        let mut pip = std::process::Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        pip.arg(folder).arg("--requirement").arg(&list);
        pip
    })
}

/// The folder with the Node.js clients, installed once for each content of the lock file.
fn install_clients() -> PathBuf {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    installed("clients", &source.join("package-lock.json"), |folder| {
        for entry in
            std::fs::read_dir(&source).expect("tests/clients is in the repository").flatten()
        {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), folder.join(entry.file_name()))
                    .expect("the target folder can be written");
            }
        }
        let mut npm = std::process::Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
        npm
    })
}

/// Installs beside the other things that a build makes, under a lock since test processes run side by side. What is to
/// be installed is what `list` says; `prepare` is called each time, and what it returns is run if the list is new.
fn installed(
    name: &str,
    list: &Path,
    prepare: impl FnOnce(&Path) -> std::process::Command,
) -> PathBuf {
    let content = std::fs::read(list).expect("it is in the repository");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{}", &sha256(content)[..16]));
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let lock =
        std::fs::File::create(folder.join("lock")).expect("the target folder can be written");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .expect("a file of our own can be locked");
    let mut install = prepare(&folder);
    let done = folder.join("installed");
    if !done.exists() {
        let output = install.output().unwrap_or_else(|error| panic!("{install:?}: {error}"));
        assert!(
            output.status.success(),
            "{install:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::write(done, "").expect("the target folder can be written");
    }
    folder
}
