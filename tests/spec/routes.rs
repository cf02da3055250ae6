//! Which upstream a request goes to, by its host and path.

use crate::support::wire::handshake;
use crate::support::{BOTH, Proxy, Served, Setup};

/// A route for each `(host, path, name)`, behind which an upstream answers with that name.
async fn routed(routes: &[(&str, &str, &'static str)]) -> (Proxy, Vec<Served>) {
    let mut toml = "[[listener]]\naddress = \"127.0.0.1:0\"\n".to_owned();
    let mut upstreams = Vec::new();
    for (host, path, name) in routes {
        let upstream = Served::named(name).await;
        toml += &format!("[upstream.{name}]\nendpoints = [\"{}\"]\n", upstream.endpoint());
        toml +=
            &format!("[[route]]\nhost = \"{host}\"\npath = \"{path}\"\nupstream = \"{name}\"\n");
        upstreams.push(upstream);
    }
    (Setup::whole(&toml).start().await, upstreams)
}

/// What answers a GET for this host and path.
async fn answer(proxy: &Proxy, host: &str, path: &str) -> String {
    let mut client = proxy.plain().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    client.response().await.body
}

/// The longest matching path wins, wherever it stands in the file.
#[tokio::test]
async fn the_most_specific_path_wins() {
    let (proxy, _upstreams) =
        routed(&[("*", "/", "root"), ("*", "/api/chat", "chat"), ("*", "/api", "api")]).await;
    for (path, wanted) in [
        ("/", "root"),
        ("/api", "api"),
        ("/api/x", "api"),
        ("/api/chat/1?x", "chat"),
        ("/x", "root"),
    ] {
        assert_eq!(answer(&proxy, "localhost", path).await, wanted, "{path}");
    }
}

/// A path is matched by whole segments.
#[tokio::test]
async fn a_path_matches_by_segments() {
    let (proxy, _upstreams) = routed(&[("*", "/", "root"), ("*", "/chat", "chat")]).await;
    for (path, wanted) in
        [("/chat", "chat"), ("/chat/", "chat"), ("/chat?a", "chat"), ("/chatter", "root")]
    {
        assert_eq!(answer(&proxy, "localhost", path).await, wanted, "{path}");
    }
}

/// An exact host wins over a wildcard, a longer wildcard over a shorter one, any of them over `*`.
#[tokio::test]
async fn the_most_specific_host_wins() {
    let (proxy, _upstreams) = routed(&[
        ("*", "/", "any"),
        ("*.example.com", "/", "wild"),
        ("*.eu.example.com", "/", "wilder"),
        ("chat.example.com", "/", "exact"),
    ])
    .await;
    let wanted = [
        ("chat.example.com", "exact"),
        ("CHAT.Example.Com:8080", "exact"),
        ("chat.example.com.", "exact"),
        ("other.example.com", "wild"),
        ("a.eu.example.com", "wilder"),
        ("example.com", "any"),
        ("127.0.0.1", "any"),
    ];
    for (host, wanted) in wanted {
        assert_eq!(answer(&proxy, host, "/").await, wanted, "{host}");
    }
}

/// A host decides before a path does.
#[tokio::test]
async fn a_host_is_more_specific_than_a_path() {
    let (proxy, _upstreams) =
        routed(&[("*", "/deep/path", "path"), ("a.example", "/", "host")]).await;
    assert_eq!(answer(&proxy, "a.example", "/deep/path").await, "host");
    assert_eq!(answer(&proxy, "b.example", "/deep/path").await, "path");
}

/// A path is matched as it is written: one that an upstream could read as another route's is nobody's. `hostile_requests`
/// has more of them.
#[tokio::test]
async fn a_path_with_dots_leads_into_no_other_route() {
    let (proxy, _upstreams) = routed(&[("*", "/open", "open"), ("*", "/secret", "secret")]).await;
    for path in ["/open/../secret", "/open/%2e%2e/secret", "/open/..%2Fsecret"] {
        let refusal = answer(&proxy, "localhost", path).await;
        assert!(refusal.starts_with("400 the path"), "{path}: {refusal}");
    }
    for path in ["/open//secret", "/open/./secret", "/open/x/../y"] {
        assert_eq!(answer(&proxy, "localhost", path).await, "open", "{path}");
    }
}

/// Handshakes are routed as requests are.
#[tokio::test]
async fn handshakes_are_routed_too() {
    let (chat, news) = (Served::greeting("chat").await, Served::greeting("news").await);
    let tables = format!(
        "[upstream.news]\nendpoints = [\"{}\"]\n[[route]]\nhost = \"*\"\npath = \"/news\"\nupstream = \"news\"",
        news.endpoint()
    );
    let proxy = Setup::to(chat.endpoint()).also(&tables).start().await;
    for over in BOTH {
        for (path, wanted) in [("/chat", "chat"), ("/news/today", "news")] {
            let mut client = proxy.connect(over).await;
            client.send(handshake(path)).await;
            assert_eq!(client.head().await.status(), Some(101));
            client.until(wanted).await;
        }
    }
}
