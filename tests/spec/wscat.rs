//! wscat, as the README shows it.

use crate::support::programs::{node_upstream, wscat};
use crate::support::{Over, Proxy, Setup};

/// `wscat -c ws://…` hears the greeting of the builtin echo and then its own words.
#[tokio::test]
async fn wscat_talks_to_the_builtin_echo_over_ws() {
    let proxy = Setup::builtin().start().await;
    let mut wscat = wscat(&["-c", &proxy.ws_url(Over::Plain, "/")]);
    wscat.stdout.find("greeting", |line| !line.is_empty()).await;
    wscat.type_line("hello over ws").await;
    wscat.stdout.containing("hello over ws").await;
    wscat.hang_up();
    assert_eq!(wscat.exited().await, 0);
}

/// `wscat -n -c wss://…` does not look at the certificate.
#[tokio::test]
async fn wscat_talks_to_the_builtin_echo_over_wss_without_a_check() {
    let proxy = Setup::builtin().start().await;
    let mut wscat = wscat(&["-n", "-c", &proxy.ws_url(Over::Tls, "/")]);
    wscat.stdout.find("greeting", |line| !line.is_empty()).await;
    wscat.type_line("hello over wss").await;
    wscat.stdout.containing("hello over wss").await;
}

/// `wscat --ca certs/ca.pem -c wss://localhost…` does, and finds it good.
#[tokio::test]
async fn wscat_trusts_the_authority_that_tidegate_made() {
    let proxy = Setup::builtin().start().await;
    let ca = proxy.file("certs/ca.pem");
    let mut wscat = wscat(&["--ca", &ca.to_string_lossy(), "-c", &proxy.ws_url(Over::Tls, "/")]);
    wscat.stdout.find("greeting", |line| !line.is_empty()).await;
    wscat.type_line("hello with a check").await;
    wscat.stdout.containing("hello with a check").await;
}

/// Without either option it refuses the certificate, so the two above show something.
#[tokio::test]
async fn wscat_refuses_the_certificate_of_an_unknown_authority() {
    let proxy = Setup::builtin().start().await;
    let mut wscat = wscat(&["-c", &proxy.ws_url(Over::Tls, "/")]);
    assert_ne!(wscat.exited().await, 0);
    assert!(wscat.stderr.text().contains("certificate"), "{}", wscat.stderr.text());
}

/// `-x` sends one message and `-w` waits for the answer before it closes.
#[tokio::test]
async fn wscat_executes_one_message() {
    let (_upstream, endpoint) = node_upstream("upstream.js").await;
    let proxy = Proxy::to(&endpoint).await;
    let wscat = wscat(&["-n", "-c", &proxy.ws_url(Over::Tls, "/"), "-x", "hello", "-w", "-1"]);
    wscat.stdout.find("greeting", |line| line == "Websocket Send: Hello World").await;
    wscat.stdout.find("answer", |line| line == "hello").await;
}

/// Text and binary come back from the builtin echo as they went; a Close is answered with its own code.
#[tokio::test]
async fn wscat_closes_with_a_code() {
    let proxy = Setup::builtin().start().await;
    let mut wscat = wscat(&["--slash", "-c", &proxy.ws_url(Over::Plain, "/")]);
    wscat.stdout.find("greeting", |line| !line.is_empty()).await;
    wscat.type_line("/close 4000 enough").await;
    assert_eq!(wscat.exited().await, 0);
    let end = proxy.event("end").await;
    assert_eq!(end["why"], "closed");
}
