//! Chromium on the page of the builtin echo, driven over the DevTools protocol.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::programs::Program;
use crate::support::{BOTH, Setup, within};

/// A tab of a headless browser.
struct Tab {
    devtools: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    commands: u64,
    _browser: Program,
    _profile: tempfile::TempDir,
}

impl Tab {
    /// Opens `url` in a browser with an empty profile.
    async fn open(chromium: &str, url: &str) -> Tab {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(chromium);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ]);
        command.args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]);
        command.args([
            "--disable-dev-shm-usage",
            "--ignore-certificate-errors",
            "--remote-debugging-port=0",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let browser = Program::start(&mut command);
        let line = browser.stderr.containing("DevTools listening on ws://").await;
        let address = line.rsplit(' ').next().unwrap_or_default();
        let connected = within("DevTools", tokio_tungstenite::connect_async(address)).await;
        let devtools = connected.expect("the browser speaks DevTools").0;
        let mut tab =
            Tab { devtools, session: None, commands: 0, _browser: browser, _profile: profile };
        let target = tab.command("Target.createTarget", json!({ "url": url })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = tab.command("Target.attachToTarget", attach).await;
        tab.session = attached["sessionId"].as_str().map(str::to_owned);
        tab
    }

    /// Sends a command and returns its result.
    async fn command(&mut self, method: &str, params: Value) -> Value {
        self.commands += 1;
        let mut command = json!({ "id": self.commands, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.devtools.send(command.to_string().into()).await.expect("the browser listens");
        loop {
            let message = within("the browser's answer", self.devtools.next()).await;
            let message = message.expect("the browser goes on").expect("a good message");
            let answer: Value =
                serde_json::from_str(&message.into_text().expect("text")).expect("JSON");
            if answer["id"] == self.commands {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of a JavaScript expression.
    async fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.command("Runtime.evaluate", params).await["result"]["value"].clone()
    }

    /// Awaits that an expression is true.
    async fn holds(&mut self, expression: &str) {
        within(expression, async {
            while self.value(&format!("!!({expression})")).await != true {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// The browser, where there is one. Continuous integration installs it, and must not go without.
async fn chromium() -> Option<&'static str> {
    for name in ["chromium", "chromium-browser", "google-chrome"] {
        let version = Command::new(name).arg("--version").output().await;
        if version.is_ok_and(|output| output.status.success()) {
            return Some(name);
        }
    }
    assert!(std::env::var_os("CI").is_none(), "Chromium must be installed where CI is set");
    println!("skipped: there is no Chromium on the path");
    None
}

/// The page opens a socket to where it came from; a person types, and sees the answer. Over http and https.
#[tokio::test]
async fn the_builtin_page_talks_to_its_own_origin() {
    let Some(chromium) = chromium().await else { return };
    let proxy = Setup::builtin().start().await;
    for over in BOTH {
        let mut tab = Tab::open(chromium, &proxy.url(over, "/")).await;
        tab.holds("document.querySelector('#log')?.children.length > 0").await;
        tab.holds(
            "/connected/i.test(document.title + document.querySelector('#status')?.textContent)",
        )
        .await;
        tab.holds("document.querySelector('#message').focus() === undefined").await;
        tab.command("Input.insertText", json!({ "text": "grüße from the browser" })).await;
        tab.holds("document.querySelector('#form').requestSubmit() === undefined").await;
        tab.holds("document.querySelector('#log').textContent.includes('grüße from the browser')")
            .await;
        assert_eq!(
            tab.value("location.protocol").await,
            if over == BOTH[0] { "http:" } else { "https:" }
        );
    }
    let record = proxy.record(|record| record["event"] == "open" && record["tls"] == "1.3").await;
    assert_eq!(record["status"], 101);
}
