//! Requests that are meant to be read in two ways: as one or as two (smuggling), as one host's or another's, as one
//! path's or another's. What is refused reaches no upstream, and where its end is in doubt the connection is closed.

use crate::support::wire::handshake;
use crate::support::{BOTH, Over, Proxy, Served, Setup, Upstream};

/// Sends each request on a connection of its own, to either listener: it is refused with `status`, the connection is
/// closed with nothing more said, and the upstream hears nothing.
async fn refused_and_closed(requests: &[(&str, u16)]) {
    let (proxy, upstream) = Proxy::scripted().await;
    for (over, (request, status)) in
        BOTH.into_iter().flat_map(|over| requests.iter().map(move |request| (over, request)))
    {
        let mut client = proxy.connect(over).await;
        client.send(format!("{request}{SMUGGLED}")).await;
        let answer = client.response().await;
        assert_eq!(answer.status(), *status, "{request:?}: {answer:?}");
        assert!(answer.head.is("connection", "close"), "{request:?}: {answer:?}");
        client.expect_end().await;
    }
    upstream.expect_untouched().await;
}

/// Stands behind every request that is to be refused, and is never read as one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A POST with these lines, and then this body.
fn post(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}")
}

/// A length beside chunks: the chunks count, the upstream sees no length, and the connection is closed after the answer,
/// so that whoever went by the length has smuggled nothing (RFC 9112 §6.3, which allows this or a 400).
#[tokio::test]
async fn a_length_beside_chunks_is_dropped_and_the_connection_closed() {
    let (proxy, upstream) = Proxy::scripted().await;
    let length = SMUGGLED.len() + 5;
    for over in BOTH {
        for lines in [
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\nContent-Length: 4\r\n".to_owned(),
            "Transfer-Encoding: chunked\r\nContent-Length: nonsense\r\n".to_owned(),
        ] {
            let mut client = proxy.connect(over).await;
            client.send(post(&lines, "0\r\n\r\n") + SMUGGLED).await;
            let mut leg = upstream.accept().await;
            let asked = leg.request().await;
            assert_eq!(asked.head.field("content-length"), None, "{lines}");
            assert_eq!(
                (asked.head.field("transfer-encoding"), &*asked.body),
                (Some("chunked"), "")
            );
            leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
            let answer = client.response().await;
            assert!(answer.head.is("connection", "close") && answer.body == "ok", "{answer:?}");
            client.expect_end().await;
            assert_eq!(leg.rest().await.0, b"");
        }
    }
    upstream.expect_untouched().await;
}

/// Lengths that differ, or are none; and codings that are not one `chunked`, which a 501 may answer (RFC 9112 §6.1 and
/// §6.3). HTTP/1.0 has no codings.
#[tokio::test]
async fn a_body_of_uncertain_length_is_refused() {
    let chunked = |lines: &str| post(lines, "0\r\n\r\n");
    refused_and_closed(&[
        (&post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"), 400),
        (&post("Content-Length: 3, 4\r\n", "abc"), 400),
        (&post("Content-Length: 3, 3\r\n", "abc"), 400),
        (&post("Content-Length: +3\r\n", "abc"), 400),
        (&post("Content-Length: -1\r\n", "abc"), 400),
        (&post("Content-Length: 0x3\r\n", "abc"), 400),
        (&post("Content-Length: 3 3\r\n", "abc"), 400),
        (&post("Content-Length:\r\n", "abc"), 400),
        (&post("Content-Length: 18446744073709551619\r\n", "abc"), 400),
        (&chunked("Transfer-Encoding: gzip\r\n"), 400),
        (&chunked("Transfer-Encoding: chunked, gzip\r\n"), 400),
        (&chunked("Transfer-Encoding: xchunked\r\n"), 400),
        (&chunked("Transfer-Encoding: \"chunked\"\r\n"), 400),
        (&chunked("Transfer-Encoding: chunked;q=1\r\n"), 400),
        (&chunked("Transfer-Encoding: chunked,\r\n"), 400),
        (&chunked("Transfer-Encoding:\r\n"), 400),
        (&chunked("Transfer-Encoding: \x0bchunked\r\n"), 400),
        (&chunked("Transfer-Encoding: identity, chunked\r\n"), 501),
        (&chunked("Transfer-Encoding: chunked, chunked\r\n"), 501),
        (&chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 501),
        (&chunked("Transfer-Encoding: gz\u{ef}p\r\nTransfer-Encoding: chunked\r\n"), 501),
        (&chunked("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0"), 400),
    ])
    .await;
}

/// The same length twice is that length (RFC 9110 §8.6); the upstream sees it once.
#[tokio::test]
async fn the_same_length_twice_is_one() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc")).await;
        let asked = upstream.accept().await.request().await;
        assert_eq!((asked.head.fields("content-length"), &*asked.body), (vec!["3"], "abc"));
    }
}

/// Lines that other programs would put together or take apart in another way: a bare CR, a folded line, NUL and other
/// control characters, white space in front of a colon or a name, a line without a colon (RFC 9112 §2.2, §5.1 and §5.2).
#[tokio::test]
async fn lines_that_others_read_otherwise_are_refused() {
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    let in_line = |line: &str| format!("{line}\r\nHost: localhost\r\n\r\n");
    refused_and_closed(&[
        (&get("X-A: a\rTransfer-Encoding: chunked\r\n"), 400),
        (&get("X-A: a\r\r\n"), 400),
        (&get("X-A: 1\r\n folded\r\n"), 400),
        (&get("X-A: 1\r\n\tContent-Length: 3\r\n"), 400),
        (&get(" Content-Length: 3\r\n"), 400),
        (&get("X-A: a\0b\r\n"), 400),
        (&get("X-A: a\x01b\r\n"), 400),
        (&get("X\0A: b\r\n"), 400),
        (&get("Content-Length : 3\r\n"), 400),
        (&get("Transfer-Encoding\t: chunked\r\n"), 400),
        (&get("Transfer-Encoding\r\n"), 400),
        (&get(": chunked\r\n"), 400),
        (&get("X(A): 1\r\n"), 400),
        (&get("X-\u{fc}: 1\r\n"), 400),
        (&in_line("GET / HTTP/1.1 "), 400),
        (&in_line("GET  / HTTP/1.1"), 400),
        (&in_line("GET\t/ HTTP/1.1"), 400),
        (&in_line("GET /a b HTTP/1.1"), 400),
        (&in_line("GET /a\tb HTTP/1.1"), 400),
        (&in_line("GET /a\0b HTTP/1.1"), 400),
        (&in_line("GET / HTTP/1.2"), 400),
        (&in_line("GET / HTTP/2.0"), 400),
        (&in_line("GET / http/1.1"), 400),
        (&in_line("GET /"), 400),
        (&in_line("G\u{c9}T / HTTP/1.1"), 400),
    ])
    .await;
}

/// A bare LF ends a line, as RFC 9112 §2.2 allows: what stands behind it is a header, and goes on as one, with CR LF, so
/// that no upstream can read it in another way than we did.
#[tokio::test]
async fn a_bare_lf_goes_on_as_a_whole_line_end() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let head =
            "POST / HTTP/1.1\nHost: localhost\nX-A: a\nTransfer-Encoding: chunked\nX-B: b\n\n";
        client.send(format!("{head}0\r\n\r\n")).await;
        let mut leg = upstream.accept().await;
        let asked = leg.request().await.head;
        assert_eq!(
            asked.text.matches('\n').count(),
            asked.text.matches("\r\n").count(),
            "{asked:?}"
        );
        assert_eq!((asked.field("x-a"), asked.field("x-b")), (Some("a"), Some("b")));
        assert_eq!(asked.field("transfer-encoding"), Some("chunked"));
    }
}

/// Chunks that others read in another way: a size with a sign, a space, `0x`, none at all, one that overflows, one that is
/// longer or shorter than its chunk, a bare LF. The head may be on its way to the upstream by then, for bodies stream;
/// the body never gets an end there, and the client gets a 400 and no further word (RFC 9112 §7.1).
#[tokio::test]
async fn a_broken_chunk_is_a_400_and_never_the_end_of_a_body() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        for chunks in [
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5_\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            ";a=b\r\nhello\r\n0\r\n\r\n",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            "4\r\nhello\r\n0\r\n\r\n",
            "6\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5;a\n\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nno trailer\r\n\r\n",
            "5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
        ] {
            let mut client = proxy.connect(over).await;
            client.send(post("Transfer-Encoding: chunked\r\n", chunks) + SMUGGLED).await;
            let mut leg = upstream.accept().await;
            client.response().await.refused(400, "body");
            client.expect_end().await;
            let (got, _) = leg.rest().await;
            let got = String::from_utf8_lossy(&got);
            assert!(!got.contains("0\r\n\r\n") && !got.contains("GET"), "{chunks:?}: {got:?}");
        }
    }
    upstream.expect_untouched().await;
}

/// Chunk extensions are ours to drop (RFC 9112 §7.1.1), and leading zeros and capitals in a size are no harm.
#[tokio::test]
async fn chunk_extensions_go_no_further() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let chunks = "5;a=b;c=\"d\"\r\nhello\r\n00A ;x\r\n smuggling\r\n0;last\r\n\r\n";
        client.send(post("Transfer-Encoding: chunked\r\n", chunks)).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        let body = String::from_utf8(leg.until("0\r\n\r\n").await).expect("text");
        assert!(
            !body.contains(';') && body.contains("hello") && body.contains("smuggling"),
            "{body}"
        );
    }
}

/// 20,000 bytes of chunk extensions: refused, as they are not read into anything (CVE-2023-39326 of Go's kind).
#[tokio::test]
async fn endless_chunk_extensions_are_refused() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let chunks = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000));
        client.send(post("Transfer-Encoding: chunked\r\n", &chunks)).await;
        client.response().await.refused(400, "body");
        let (got, _) = upstream.accept().await.rest().await;
        assert!(!String::from_utf8_lossy(&got).contains("hello"));
    }
}

/// Trailers are no headers: what a client says behind its body neither imitates ours nor frames anything (RFC 9110
/// §6.5.1).
#[tokio::test]
async fn trailers_do_not_pass_for_headers() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let names = "X-Forwarded-For, X_Forwarded_For, Content-Length, Transfer-Encoding, Host, Connection, Upgrade, \
                     X-Sum";
        let lines = format!("TE: trailers\r\nTrailer: {names}\r\nTransfer-Encoding: chunked\r\n");
        let trailers = "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nContent-Length: 9\r\n\
                        Transfer-Encoding: gzip\r\nHost: evil\r\nConnection: X-Sum\r\nUpgrade: websocket\r\nX-Sum: 1\r\n";
        let mut client = proxy.connect(over).await;
        client.send(post(&lines, &format!("0\r\n{trailers}\r\n"))).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        assert_eq!(leg.chunk().await, None);
        assert_eq!(leg.trailers().await.join(", ").to_lowercase(), "x-sum: 1");

        let lines = "TE: trailers\r\nTrailer: X-Real-IP\r\nTransfer-Encoding: chunked\r\n";
        let mut client = proxy.connect(over).await;
        client.send(post(lines, "2\r\nhi\r\n0\r\nX-Real-IP: 6.6.6.6\r\n\r\n")).await;
        let mut leg = upstream.accept().await;
        assert_eq!(leg.request().await.body, "hi");
    }
}

/// A target of 1 MB and one of 40 KB, and a head of 10,000 headers: 414 or 431, the connection closed, the upstream not
/// asked (RFC 9110 §15.5.15, RFC 6585 §5).
#[tokio::test]
async fn a_head_beyond_the_limits_is_refused() {
    let (proxy, upstream) = Proxy::scripted().await;
    let get = |target: &str, lines: &str| {
        format!("GET /{target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
    };
    let many: String = (0..10_000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let few: String = (0..100).map(|n| format!("X-{n}: {n}\r\n")).collect();
    for over in BOTH {
        for request in [
            get(&"a".repeat(1 << 20), ""),
            get(&"a".repeat(40_000), ""),
            get("", &many),
            get("", &few),
            get("", &format!("X-Large: {}\r\n", "a".repeat(1 << 20))),
        ] {
            let mut client = proxy.connect(over).await;
            // The proxy need not read it to its end.
            let _ = client.try_send(request).await;
            let answer = client.response().await;
            assert!(matches!(answer.status(), 414 | 431), "{answer:?}");
            assert!(answer.head.is("connection", "close"), "{answer:?}");
            client.rest().await;
        }
    }
    upstream.expect_untouched().await;
}

/// The host is the target's where it has one, whatever `Host` says, in the route that is taken and in what the upstream
/// sees (RFC 9112 §3.2.2).
#[tokio::test]
async fn an_absolute_target_decides_on_the_route() {
    let (a, b) = (Upstream::raw().await, Served::named("b").await);
    let tables = format!(
        "[upstream.b]\nendpoints = [\"{}\"]\n[[route]]\nhost = \"b.example\"\nupstream = \"b\"",
        b.endpoint()
    );
    let proxy = Setup::to(a.endpoint()).also(&tables).start().await;
    let mut client = proxy.plain().await;
    for target in ["http://b.example/", "HTTP://B.example:80/x", "ws://b.example"] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
        assert_eq!(client.response().await.body, "b", "{target}");
    }
    client.send("GET http://a.example/p HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
    let head = a.accept().await.head().await;
    assert_eq!((head.first(), head.field("host")), ("GET /p HTTP/1.1", Some("a.example")));
    assert_eq!(head.field("x-forwarded-host"), Some("a.example"));
}

/// Hosts that are missing, several or none: 400, also beside an absolute target, where RFC 9112 §3.2 wants one as well.
#[tokio::test]
async fn a_request_has_exactly_one_good_host() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        for (target, hosts) in [
            ("/", ""),
            ("/", "Host: localhost\r\nHost: localhost\r\n"),
            ("/", "Host: localhost\r\nhOST: evil\r\n"),
            ("/", "Host: localhost, evil\r\n"),
            ("/", "Host: localhost/x\r\n"),
            ("/", "Host: evil@localhost\r\n"),
            ("/", "Host: local host\r\n"),
            ("/", "Host:\r\n"),
            ("http://localhost/", ""),
            ("http://localhost/", "Host: a b\r\n"),
            ("http://localhost/", "Host: a\r\nHost: a\r\n"),
            ("http://evil@localhost/", "Host: localhost\r\n"),
        ] {
            let mut client = proxy.connect(over).await;
            client.send(format!("GET {target} HTTP/1.1\r\n{hosts}\r\n")).await;
            client.response().await.refused(400, "host");
        }
    }
    upstream.expect_untouched().await;
}

/// Targets that are no place on a server: an authority besides CONNECT, which is a 405 itself, another scheme, nothing
/// (RFC 9112 §3.2). `*` is no route's.
#[tokio::test]
async fn a_target_that_is_no_place_is_refused() {
    let with = |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    refused_and_closed(&[
        (&with("GET localhost:80"), 400),
        (&with("GET localhost"), 400),
        (&with("GET ftp://localhost/"), 400),
        (&with("CONNECT localhost:80"), 405),
    ])
    .await;
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send(with("OPTIONS *")).await;
    client.response().await.refused(404, "route");
    upstream.expect_untouched().await;
}

/// A host that the certificate of the connection does not cover is a 421, in `Host` and in the target, which overrules it,
/// for a request and for a handshake (RFC 9110 §15.5.20).
#[tokio::test]
async fn a_host_is_held_against_the_sni() {
    let (proxy, upstream) = Proxy::scripted().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n".to_owned(),
        "GET http://elsewhere.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        handshake("/").replace("Host: localhost", "Host: elsewhere.example"),
        handshake("wss://elsewhere.example/"),
    ] {
        let mut client = proxy.connect(Over::Tls).await;
        client.send(&request).await;
        client.response().await.refused(421, "certificate");
    }
    upstream.expect_untouched().await;
}

/// A guarded path, and everything else.
async fn guarded() -> (Proxy, Upstream, Upstream) {
    let (open, admin) = (Upstream::raw().await, Upstream::raw().await);
    let tables = format!(
        "[upstream.admin]\nendpoints = [\"{}\"]\n[[route]]\npath = \"/admin\"\nupstream = \"admin\"",
        admin.endpoint()
    );
    let proxy = Setup::to(open.endpoint()).also(&tables).start().await;
    (proxy, open, admin)
}

/// With a route for `/admin` and one for everything else, no spelling of what an upstream might read as `/admin` takes the
/// other route, nor the other way round: each is a 400, as a request and as a handshake, and nobody is asked. (nginx's
/// `off by slash`, Tomcat's `..;`, Envoy's CVE-2019-9901 and CVE-2021-29492, Apache's CVE-2021-41773 and -42013.)
#[tokio::test]
async fn no_spelling_of_a_path_takes_another_route() {
    let (proxy, open, admin) = guarded().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        for path in [
            "/x/../admin",
            "/./admin",
            "//admin",
            "///admin/x",
            "//x/admin",
            r"/\x/admin",
            "/%2fx/admin",
            "/%2e/admin",
            "/x/%2e%2e/admin",
            "/x/%2E%2e/admin/y",
            "/x/.%2e/admin",
            "/x/%252e%252e/admin",
            "/x/..%2fadmin",
            "/x%2f..%2Fadmin",
            "/%2fadmin",
            "/%5cadmin",
            r"/\admin",
            r"/x\..\admin",
            "/x/..;/admin",
            "/x/..;v=1/admin",
            "/;/admin",
            "/admin;v=1",
            "/admin%3bv=1/x",
            "/%61dmin",
            "/%61%64%6D%69%6e/x",
            "/admin%2fx",
            r"/admin\x",
            "/admin%00",
            "/admin%00.png",
            "/admin%3f",
            "/admin%23",
            "/../admin",
            "/admin/../x",
            "/admin/..;/x",
            "/admin/%2e%2e/x",
            "/admin/..%2fx",
        ] {
            client.get(path).await.refused(400, "path");
            client.send(handshake(path)).await;
            client.response().await.refused(400, "path");
        }
    }
    for upstream in [open, admin] {
        upstream.expect_untouched().await;
    }
}

/// Tricks that lead nowhere else pass as they were written: the upstream sees what the client wrote.
#[tokio::test]
async fn a_path_that_stays_on_its_route_is_not_touched() {
    let (proxy, open, admin) = guarded().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        for (path, upstream) in [
            ("/a/../b", &open),
            ("/a%2Fb%20c//d;e=f/%2E", &open),
            (r"/a\b", &open),
            ("/administer/%61", &open),
            ("/ADMIN", &open),
            ("/x?y=/../admin", &open),
            ("/x;y?//admin", &open),
            ("/admin/%2e/a", &admin),
            ("/admin//a/../b?c=%00", &admin),
            ("/admin/a%2Fb", &admin),
        ] {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let mut leg = upstream.accept().await;
            assert_eq!(leg.head().await.first(), format!("GET {path} HTTP/1.1"));
            leg.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            assert_eq!(client.head().await.status(), Some(204));
        }
    }
}

/// What is behind a `#` is no part of a target (RFC 9112 §3.2); where it is sent nevertheless, the upstream does not see
/// it, and it has no part in the choice of the route.
#[tokio::test]
async fn a_fragment_goes_nowhere() {
    let (proxy, open, admin) = guarded().await;
    for over in BOTH {
        for (target, seen, upstream) in
            [("/x#/../admin", "/x", &open), ("/admin#/../x", "/admin", &admin)]
        {
            let mut client = proxy.connect(over).await;
            client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let head = upstream.accept().await.head().await;
            assert_eq!(head.first(), format!("GET {seen} HTTP/1.1"));
        }
    }
}

/// One route alone: nothing else than its paths is asked of its upstream, in any reading.
#[tokio::test]
async fn a_path_does_not_lead_out_of_the_only_route() {
    let upstream = Upstream::raw().await;
    let route = "path = \"/only\"\nupstream = \"app\"";
    let proxy = Setup::to(upstream.endpoint()).replace_route(route).start().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        for path in ["/only/../secret", "/only/%2e%2e/secret", "/only/..;/secret", r"/only\..\x"] {
            client.send(handshake(path)).await;
            let answer = client.response().await;
            assert!(matches!(answer.status(), 400 | 404), "{path}: {answer:?}");
        }
    }
    upstream.expect_untouched().await;
}
