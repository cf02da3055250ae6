//! Certificates that are renewed: in place without any reload, and TLS sessions that outlive one.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use super::reloaded;
use crate::support::certificates::{Authority, Leaf, speaking, trusting_anyone, written};
use crate::support::{Proxy, Served, Setup, Wire, within};

/// The certificate that is shown to a client that asks for `name`.
async fn shown(proxy: &Proxy, name: &str) -> Vec<u8> {
    let stream = proxy.try_tls(&Arc::new(trusting_anyone()), name).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

/// Waits until `leaf` is shown to whoever asks for `name`.
async fn served(proxy: &Proxy, name: &str, leaf: &Leaf) {
    within("the new certificate", async {
        while shown(proxy, name).await != leaf.der() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// How often a warning with this text was written.
fn warned(proxy: &Proxy, text: &str) -> usize {
    proxy.stderr().lines().filter(|line| line.contains("WARN") && line.contains(text)).count()
}

/// New files in the place of the old ones are served to newcomers within seconds; who is there stays.
#[tokio::test]
async fn renewed_files_are_served_without_a_reload() {
    let authority = Authority::new();
    let [old, new] = [(); 2].map(|()| authority.issue(&["one.example"]));
    let setup = Setup::builtin();
    let tables = written(setup.folder(), "one", &old);
    let proxy = setup.certificates(&tables).start().await;
    let mut before = proxy.tls(authority.client(), "one.example").await;
    assert!(shown(&proxy, "one.example").await == old.der());
    written(proxy.file("").as_path(), "one", &new);
    served(&proxy, "one.example", &new).await;
    before.send("GET / HTTP/1.1\r\nHost: one.example\r\n\r\n").await;
    assert_eq!(before.response().await.status(), 200);
    proxy.says("certificates were renewed").await;
    assert_eq!(proxy.told("GET", "/status").await["config"]["reloads_total"], 0);
}

/// As Kubernetes mounts a secret: the files are links into `..data`, which is a link that is swapped as a whole.
#[tokio::test]
async fn a_swapped_link_is_noticed() {
    let authority = Authority::new();
    let leaves = ["..1", "..2", "..3"].map(|name| (name, authority.issue(&["one.example"])));
    let setup = Setup::builtin();
    let folder = setup.folder().to_owned();
    for (name, leaf) in &leaves {
        std::fs::create_dir(folder.join(name)).expect("the folder is ours");
        written(&folder.join(name), "tls", leaf);
    }
    let link = |to: &str, at: &str| symlink(to, folder.join(at)).expect("the folder is ours");
    link("..1", "..data");
    link("..data/tls.crt", "tls.crt");
    link("..data/tls.key", "tls.key");
    let tables = "[[certificate]]\nchain = \"tls.crt\"\nkey = \"tls.key\"\n";
    let proxy = setup.certificates(tables).start().await;
    for (number, (name, leaf)) in leaves.iter().enumerate() {
        if number > 0 {
            link(name, "..data_tmp");
            let swapped = std::fs::rename(folder.join("..data_tmp"), folder.join("..data"));
            swapped.expect("the folder is ours");
        }
        served(&proxy, "one.example", leaf).await;
    }
}

/// A chain whose key has not come yet is not served, is warned about once, keeps no other certificate from being
/// renewed, and is served when its key is there.
#[tokio::test]
async fn half_of_a_replacement_is_not_served() {
    let authority = Authority::new();
    let [old, new] = [(); 2].map(|()| authority.issue(&["one.example"]));
    let others = [(); 3].map(|()| authority.issue(&["two.example"]));
    let setup = Setup::builtin();
    let folder = setup.folder().to_owned();
    let tables = written(&folder, "one", &old) + &written(&folder, "two", &others[0]);
    let proxy = setup.certificates(&tables).start().await;
    assert!(shown(&proxy, "one.example").await == old.der());

    std::fs::write(folder.join("one.crt"), &new.chain_pem).expect("the folder is ours");
    proxy.says("does not belong to the certificate in").await;
    // Each of these is served after another look at all the files.
    for other in &others[1..] {
        written(&folder, "two", other);
        served(&proxy, "two.example", other).await;
        assert!(shown(&proxy, "one.example").await == old.der());
    }
    assert_eq!(warned(&proxy, "one.key does not belong to"), 1, "{}", proxy.stderr());

    std::fs::write(folder.join("one.key"), &new.key_pem).expect("the folder is ours");
    served(&proxy, "one.example", &new).await;
    assert_eq!(warned(&proxy, "one.key does not belong to"), 1, "{}", proxy.stderr());
}

/// A session ticket from before a reload resumes after it: the keys of the tickets stay (RFC 8446 §2.2).
#[tokio::test]
async fn tickets_from_before_a_reload_resume_after_it() {
    let upstream = Served::named("hello").await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(speaking(version));
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let stream = proxy.try_tls(&client, "localhost").await.expect("a handshake");
            kinds.push(stream.get_ref().1.handshake_kind());
            // The tickets of TLS 1.3 come after the handshake, before the first answer.
            assert_eq!(Wire::new(stream).get("/").await.body, "hello");
            reloaded(&proxy).await;
        }
        assert!(kinds[0] != Some(HandshakeKind::Resumed), "{kinds:?}");
        assert!(kinds[1..].iter().all(|kind| *kind == Some(HandshakeKind::Resumed)), "{kinds:?}");
    }
}

/// One that expires soon is warned about, at the start and when it comes later; one that lasts is not.
#[tokio::test]
async fn one_that_expires_soon_is_warned_about() {
    let authority = Authority::new();
    let setup = Setup::builtin();
    let soon = authority.issue_ending_in(&["one.example"], 10);
    let tables = written(setup.folder(), "one", &soon)
        + &written(setup.folder(), "two", &authority.issue_ending_in(&["two.example"], 60));
    let proxy = setup.certificates(&tables).start().await;
    let line = proxy.says("this certificate expires on").await;
    assert!(line.contains("one.crt"), "{line}");
    let sooner = authority.issue_ending_in(&["two.example"], 5);
    written(proxy.file("").as_path(), "two", &sooner);
    served(&proxy, "two.example", &sooner).await;
    proxy.says("two.crt").await;
    let warnings = |name| warned(&proxy, name);
    assert_eq!((warnings("two.crt"), warnings("expires on") > 1), (1, true));
}
