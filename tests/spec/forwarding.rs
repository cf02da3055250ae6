//! Ordinary requests: bodies stream both ways as they are framed, connections are kept, nothing is held back.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use sha2::{Digest, Sha256};

use crate::support::programs::curl;
use crate::support::upstream::refusing;
use crate::support::{
    BOTH, Ending, Over, Proxy, Served, Setup, Upstream, eventually, noise, sha256,
};

/// A proxy whose connections wait for minutes, and its upstream.
async fn patient() -> (Proxy, Upstream) {
    let upstream = Upstream::raw().await;
    let proxy = Setup::to(upstream.endpoint()).patient().start().await;
    (proxy, upstream)
}

/// A request and its answer, with the bodies as they were.
#[tokio::test]
async fn a_request_and_its_answer_pass_with_their_bodies() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client
            .send("POST /a/b?c=d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nping")
            .await;
        let mut leg = upstream.accept().await;
        let request = leg.request().await;
        assert_eq!((request.head.first(), &*request.body), ("POST /a/b?c=d HTTP/1.1", "ping"));
        leg.send("HTTP/1.1 201 Made It\r\nContent-Length: 4\r\nConnection: close\r\n\r\npong")
            .await;
        let response = client.response().await;
        assert_eq!((response.status(), &*response.body), (201, "pong"));
    }
}

/// A target that a stricter parser would tidy up reaches the upstream as it was written: RFC 9110 §7.7 forbids changes.
#[tokio::test]
async fn a_target_is_not_normalised() {
    let (proxy, upstream) = Proxy::scripted().await;
    let target = "/a//b/../%7Euser/%2F?x=%20&y=[1]&z='";
    let mut client = proxy.plain().await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    let mut leg = upstream.accept().await;
    assert_eq!(leg.head().await.first(), format!("GET {target} HTTP/1.1"));
}

/// The first chunk of a request is at the upstream before the client has sent the last.
#[tokio::test]
async fn a_request_body_streams() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        let mut leg = upstream.accept().await;
        assert!(leg.head().await.is("transfer-encoding", "chunked"));
        assert_eq!(leg.chunk().await.as_deref(), Some(&b"first"[..]));
        client.send("4\r\nlast\r\n0\r\n\r\n").await;
        assert_eq!(leg.chunk().await.as_deref(), Some(&b"last"[..]));
        assert_eq!(leg.chunk().await, None);
    }
}

/// A GET may have a body (RFC 9110 §9.3.1): it is not left behind, where the next request would be read from it.
#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_it() {
    let (proxy, upstream) = Proxy::scripted().await;
    for method in ["GET", "HEAD", "DELETE"] {
        let mut client = proxy.plain().await;
        let head = format!("{method} / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked");
        client.send(format!("{head}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
        let mut leg = upstream.accept().await;
        let request = leg.request().await;
        assert!(request.head.is("transfer-encoding", "chunked"), "{request:?}");
        assert_eq!(request.body, "hello", "{method}");
        leg.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.head().await.status(), Some(204));
    }
}

/// The first chunk of an answer is at the client before the upstream has sent the last.
#[tokio::test]
async fn a_response_body_streams() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        assert!(client.head().await.is("transfer-encoding", "chunked"));
        assert_eq!(client.chunk().await.as_deref(), Some(&b"first"[..]));
        leg.send("4\r\nlast\r\n0\r\n\r\n").await;
        assert_eq!(client.chunk().await.as_deref(), Some(&b"last"[..]));
        assert_eq!(client.chunk().await, None);
    }
}

/// Server-sent events are the case that people notice: each one arrives as it is sent, without a length or chunks.
#[tokio::test]
async fn an_answer_that_ends_with_the_connection_streams_too() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await;
    client.until("data: 1\n\n").await;
    leg.send("data: 2\n\n").await;
    client.until("data: 2\n\n").await;
}

/// A body is nobody's head: one whose last piece looks like a bare refusal arrives like any other.
#[tokio::test]
async fn a_body_that_looks_like_a_refusal_arrives_whole() {
    let (proxy, upstream) = Proxy::scripted().await;
    let body = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        let length = body.len();
        leg.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        ))
        .await;
        assert_eq!(client.head().await.status(), Some(200));
        leg.send(body).await;
        client.expect(body).await;
    }
}

/// Trailers pass in both directions: RFC 9112 §7.1.2.
#[tokio::test]
async fn trailers_pass() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")).await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    assert_eq!((leg.chunk().await, leg.chunk().await), (Some(b"hi".to_vec()), None));
    assert_eq!(leg.trailers().await.join("").to_lowercase(), "x-sum: 1");
    leg.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Took\r\n\r\n0\r\nX-Took: 2\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.chunk().await, None);
    assert_eq!(client.trailers().await.join("").to_lowercase(), "x-took: 2");
}

/// Trailers are the end of a message as much as a bare last chunk is: the connection to the upstream goes on (§9.3).
#[tokio::test]
async fn an_upstream_connection_is_reused_after_trailers() {
    let (proxy, upstream) = patient().await;
    let mut client = proxy.plain().await;
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")).await;
    let mut leg = upstream.accept().await;
    for _ in 0..3 {
        assert_eq!(leg.request().await.body, "hi");
        leg.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Took\r\n\r\n2\r\nok\r\n0\r\nX-Took: 2\r\n\r\n").await;
        assert_eq!(client.response().await.body, "ok");
        client.send(format!("{head}2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")).await;
    }
    assert_eq!(leg.request().await.body, "hi");
    upstream.expect_untouched().await;
}

/// The answer to HEAD has the length of a body and no body (RFC 9110 §9.3.2), and the connection goes on.
#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    assert_eq!(leg.head().await.first(), "HEAD / HTTP/1.1");
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    assert_eq!(client.head().await.field("content-length"), Some("1234"));
    client.send("GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(leg.head().await.first(), "GET /next HTTP/1.1");
    leg.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.head().await.status(), Some(204));
}

/// A client that waits for `100 Continue` gets it and then its answer: RFC 9110 §10.1.1.
#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("PUT / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await.status(), Some(100));
    client.send("body").await;
    leg.expect("body").await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.body, "ok");
}

/// An upstream that refuses by the head alone is heard, though no byte of the body was ever sent.
#[tokio::test]
async fn an_upstream_that_refuses_an_expectation_is_heard() {
    let (proxy, upstream) = Proxy::scripted().await;
    for status in ["413 Content Too Large", "417 Expectation Failed"] {
        let mut client = proxy.plain().await;
        client.send("PUT / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9999\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"))
            .await;
        let mut response = client.response().await;
        if response.status() == 100 {
            response = client.response().await;
        }
        assert_eq!(
            (response.head.first(), &*response.body),
            (&*format!("HTTP/1.1 {status}"), "no")
        );
    }
}

/// An answer that comes before the end of the request is passed on at once: RFC 9112 §9.3.
#[tokio::test]
async fn an_early_response_is_passed_on() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client
            .send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nonly this")
            .await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.expect("only this").await;
        leg.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\nConnection: close\r\n\r\nwho")
            .await;
        let response = client.response().await;
        assert_eq!((response.status(), &*response.body), (401, "who"));
    }
}

/// An early answer reaches a client that goes on sending, where the upstream takes what still comes: RFC 9112 §9.6.
#[tokio::test]
async fn an_early_response_reaches_a_client_that_goes_on_sending() {
    let (proxy, upstream) = Proxy::scripted().await;
    let file = proxy.file("large");
    std::fs::write(&file, vec![0; 8 << 20]).expect("the folder is ours");
    for over in BOTH {
        let url = proxy.url(over, "/upload");
        let upload = curl(&["-k", "-H", "Expect:", "-T", &file.to_string_lossy(), &url]);
        let mut leg = upstream.accept().await;
        leg.head().await;
        let answer =
            "HTTP/1.1 413 Too Much\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much";
        leg.send(answer).await;
        leg.finish().await;
        let (_, answered) = tokio::join!(leg.rest(), upload.succeeded());
        assert_eq!(answered, "too much");
    }
}

/// Both directions at once: an upload goes on while nobody reads the answer that has begun, however long that is.
#[tokio::test]
async fn an_upload_goes_on_while_its_answer_waits_for_the_client() {
    let (proxy, upstream) = patient().await;
    let bytes = vec![b'x'; 16 << 20];
    let head = format!("Content-Length: {}\r\n\r\n", bytes.len());
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{head}")).await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send(format!("HTTP/1.1 200 OK\r\n{head}")).await;
        let sent = leg.send_until_stuck(&bytes).await;
        assert!(sent < bytes.len(), "the answer did not have to wait");
        tokio::join!(client.send(&bytes), leg.take(bytes.len()));
        let (_, response) = tokio::join!(leg.send(&bytes[sent..]), client.response());
        assert_eq!(response.body.len(), bytes.len());
    }
}

/// A connection whose request was still on its way when the answer began takes the next request all the same.
#[tokio::test]
async fn an_upstream_connection_is_reused_after_an_upload() {
    let (proxy, upstream) = patient().await;
    let mut client = proxy.plain().await;
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.expect("half").await;
    leg.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    client.until("first\r\n").await;
    client.send("half").await;
    leg.expect("half").await;
    leg.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    for _ in 0..2 {
        client.send("GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(leg.head().await.first(), "GET /next HTTP/1.1");
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.response().await.body, "ok");
    }
}

/// An upstream that hangs up with unread bytes resets the connection under what is being written, and its answer may
/// be lost with it (RFC 9112 §9.6): the client gets that answer or our 502, and does not hang.
#[tokio::test]
async fn an_upstream_that_hangs_up_under_an_upload_does_not_leave_it_hanging() {
    let (proxy, upstream) = Proxy::scripted().await;
    let file = proxy.file("large");
    std::fs::write(&file, vec![0; 8 << 20]).expect("the folder is ours");
    for over in BOTH {
        let url = proxy.url(over, "/upload");
        let upload = curl(&["-k", "-H", "Expect:", "-T", &file.to_string_lossy(), &url]);
        let mut leg = upstream.accept().await;
        leg.head().await;
        let answer =
            "HTTP/1.1 413 Too Much\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much";
        leg.send(answer).await;
        drop(leg);
        let answer = upload.succeeded().await;
        assert!(answer == "too much" || answer.starts_with("502 "), "{answer}");
    }
}

/// A connection serves one request after another, and the proxy keeps its own to the upstream: RFC 9112 §9.3.
#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let upstream = Served::named("again").await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        for _ in 0..10 {
            assert_eq!(client.get("/").await.body, "again");
        }
    }
    assert!(upstream.accepted() <= 2, "{} connections for 20 requests", upstream.accepted());
}

/// Requests that arrive together are answered in their order: RFC 9112 §9.3.2.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Served::http(|request| async move {
        Response::new(Full::from(request.uri().path().to_owned()))
    })
    .await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let mut client = proxy.plain().await;
    let requests: String =
        (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    client.send(requests).await;
    for n in 0..5 {
        assert_eq!(client.response().await.body, format!("/{n}"));
    }
}

/// A client that says `Connection: close` is closed after its answer, while the upstream connection stays: §7.6.1.
#[tokio::test]
async fn a_client_that_closes_does_not_close_the_upstream() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    let asked = leg.head().await;
    assert!(!asked.is("connection", "close"), "{asked:?}");
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.body, "ok");
    client.expect_end().await;
}

/// A request over HTTP/1.0 is answered and its connection closed: RFC 9112 §9.3.
#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let upstream = Served::named("old but gold").await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    let (answer, _) = client.rest().await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains(" 200 OK\r\n") && answer.ends_with("old but gold"), "{answer}");
}

/// A pooled connection that the upstream has closed meanwhile costs nobody a request: RFC 9110 §9.2.2.
#[tokio::test]
async fn a_stale_pooled_connection_is_replaced() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    for round in ["one", "two", "three"] {
        client.send(format!("GET /{round} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let mut leg = upstream.accept().await;
        assert_eq!(leg.head().await.first(), format!("GET /{round} HTTP/1.1"));
        leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.response().await.status(), 200);
    }
}

/// An idle connection that the upstream closes is closed in return, without a request that would find it so: the next
/// one, which may not be sent twice, finds another.
#[tokio::test]
async fn an_idle_connection_that_the_upstream_closes_is_let_go() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.response().await;
    leg.finish().await;
    leg.expect_end().await;
    client.send("POST /order HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nbuy").await;
    let mut leg = upstream.accept().await;
    assert_eq!(leg.request().await.body, "buy");
    leg.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 201);
}

/// What an upstream says on an idle connection is no answer to whatever is asked next: RFC 9112 §9.2.
#[tokio::test]
async fn words_on_an_idle_connection_answer_nothing() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.response().await;
    leg.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate").await;
    leg.expect_end().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright").await;
    assert_eq!(client.response().await.body, "right");
}

/// The same where the upstream closes only when the second request is already on the way to it.
#[tokio::test]
async fn a_pooled_connection_that_closes_under_a_request_is_retried() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.response().await;
    client.send("GET /two HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    leg.head().await;
    drop(leg);
    let mut leg = upstream.accept().await;
    assert_eq!(leg.head().await.first(), "GET /two HTTP/1.1");
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.status(), 200);
}

/// A POST that may already have had its effect is not sent twice: RFC 9110 §9.2.2.
#[tokio::test]
async fn a_post_is_not_sent_twice() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("POST /order HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nbuy").await;
    let mut leg = upstream.accept().await;
    leg.request().await;
    drop(leg);
    client.response().await.refused(502, "upstream");
    upstream.expect_untouched().await;
}

/// A refusal of a request whose body is not there yet says that the connection ends with it, which nobody reads on:
/// RFC 9112 §9.6. One of a request that is there goes on.
#[tokio::test]
async fn a_refusal_says_whether_the_connection_goes_on() {
    let (proxy, upstream) = Proxy::scripted().await;
    let nobody = Proxy::to(&refusing().await).await;
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n";
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send(head).await;
        upstream.accept().await.head().await;
        let answer = client.response().await;
        answer.refused(502, "upstream");
        assert!(answer.head.is("connection", "close"), "{answer:?}");
        client.expect_end().await;

        let mut client = nobody.connect(over).await;
        client.send(format!("{head}buy")).await;
        let answer = client.response().await;
        answer.refused(502, "upstream");
        assert_eq!(answer.head.field("connection"), None);
        client.send(head).await;
        let answer = client.response().await;
        answer.refused(502, "upstream");
        assert!(answer.head.is("connection", "close"), "{answer:?}");
        client.expect_end().await;
    }
}

/// An upstream that leaves in the middle of a body leaves the client with a visibly incomplete one: RFC 9112 §8.
#[tokio::test]
async fn an_answer_cut_short_is_not_made_whole() {
    let (proxy, upstream) = Proxy::scripted().await;
    for framing in ["Content-Length: 10\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\n"] {
        let mut client = proxy.plain().await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut leg = upstream.accept().await;
        leg.head().await;
        leg.send(format!("HTTP/1.1 200 OK\r\n{framing}half")).await;
        client.until("half").await;
        drop(leg);
        let (rest, _) = client.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
    }
}

/// What there is of it arrives, also if the upstream's end comes along with it: often only its length is wrong.
#[tokio::test]
async fn an_answer_that_is_cut_short_at_once_arrives_that_far() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        for _ in 0..20 {
            let mut client = proxy.connect(over).await;
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            let mut leg = upstream.accept().await;
            leg.head().await;
            leg.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
            drop(leg);
            assert_eq!(client.head().await.status(), Some(200));
            client.expect("half").await;
            assert_ne!(client.rest().await.1, Ending::Closed);
        }
    }
}

/// An upstream that closes without a word is a 502.
#[tokio::test]
async fn an_upstream_that_says_nothing_is_a_502() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    upstream.accept().await.head().await;
    client.response().await.refused(502, "upstream");
}

/// An upstream that answers something else than HTTP is a 502.
#[tokio::test]
async fn an_upstream_that_speaks_no_http_is_a_502() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    client.response().await.refused(502, "upstream");
}

/// A client that goes away in the middle of an answer frees its upstream connection.
#[tokio::test]
async fn a_client_that_leaves_frees_the_upstream() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    client.until("first\r\n").await;
    client.reset();
    leg.rest().await;
}

/// So does one that goes away before there is any of it.
#[tokio::test]
async fn a_client_that_does_not_wait_for_its_answer_frees_the_upstream() {
    let (proxy, upstream) = Proxy::scripted().await;
    for over in BOTH {
        for end in ["\r\n", "Content-Length: 2\r\n\r\nok"] {
            let mut client = proxy.connect(over).await;
            client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{end}")).await;
            let mut leg = upstream.accept().await;
            leg.head().await;
            client.reset();
            leg.rest().await;
        }
    }
}

/// A request that was sent again has all that the first had, in its order.
#[tokio::test]
async fn a_request_is_sent_again_as_it_was() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    client.send("GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut leg = upstream.accept().await;
    leg.head().await;
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.response().await;
    let headers = "Host: localhost\r\nX-Empty:\r\nX-Two: a\r\nX-Other: é, c\r\nX-Two: b\r\n\r\n";
    client.send(format!("GET /two?x=y HTTP/1.1\r\n{headers}")).await;
    let first = leg.head().await;
    drop(leg);
    let mut leg = upstream.accept().await;
    let again = leg.head().await;
    for name in ["host", "x-empty", "x-two", "x-other", "via", "x-forwarded-for"] {
        assert_eq!(first.fields(name), again.fields(name), "{name}");
    }
    assert_eq!(again.first(), "GET /two?x=y HTTP/1.1");
    assert_eq!(again.fields("x-two"), ["a", "b"]);
    leg.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.response().await.status(), 200);
}

/// 96 MiB up, counted and hashed by the upstream, with the process's memory where it was.
#[tokio::test]
async fn a_large_upload_passes_in_bounded_memory() {
    let upstream = Served::http(|request| async move {
        let mut body = request.into_body();
        let mut hash = Sha256::new();
        while let Some(Ok(frame)) = body.frame().await {
            hash.update(frame.data_ref().map_or(&[][..], |data| data));
        }
        Response::new(Full::from(
            hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        ))
    })
    .await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    let piece = noise(1, 1 << 20);
    let wanted = sha256(piece.repeat(96));
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client
            .send(format!(
                "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                96 << 20
            ))
            .await;
        for _ in 0..96 {
            client.send(&piece).await;
        }
        assert_eq!(client.response().await.body, wanted);
    }
    let highest = proxy.memory_kib("VmHWM");
    assert!(highest < 64 * 1024, "the process grew to {highest} KiB");
}

/// 96 MiB down at the pace of a client that first does not read at all, with the process's memory where it was.
#[tokio::test]
async fn a_large_download_passes_in_bounded_memory() {
    let body = Bytes::from(noise(2, 96 << 20));
    let wanted = sha256(&body);
    let upstream = Served::http(move |_| {
        let body = body.clone();
        async move { Response::new(Full::from(body)) }
    })
    .await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        client.until("\r\n\r\n").await;
        let (body, _) = client.rest().await;
        assert_eq!(sha256(body), wanted);
    }
    let highest = proxy.memory_kib("VmHWM");
    assert!(highest < 64 * 1024, "the process grew to {highest} KiB");
}

/// A chunked request with a length beside it is what request smuggling is made of: RFC 9112 §6.1.
#[tokio::test]
async fn a_request_with_two_lengths_is_not_forwarded_with_both() {
    let (proxy, upstream) = Proxy::scripted().await;
    let mut client = proxy.plain().await;
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}0\r\n\r\n")).await;
    tokio::select! {
        answer = client.response() => assert_eq!(answer.status(), 400),
        mut leg = upstream.accept() => {
            let asked = leg.head().await;
            assert_eq!((asked.field("content-length"), asked.field("transfer-encoding")), (None, Some("chunked")));
        }
    }
}

/// A request in a coding that would have to be undone here is a 501, not a body of something else: RFC 9112 §6.1.
#[tokio::test]
async fn a_transfer_coding_that_is_not_understood_is_a_501() {
    let (proxy, upstream) = Proxy::scripted().await;
    for codings in ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "x-other, chunked"] {
        let mut client = proxy.plain().await;
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: ";
        client.send(format!("{head}{codings}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
        client.response().await.refused(501, "coding");
    }
    upstream.expect_untouched().await;
}

/// Connections to the upstream do not pile up: what served one request serves the next, on every worker.
#[tokio::test]
async fn idle_connections_are_reused_rather_than_added() {
    let upstream = Served::named("again").await;
    let proxy = Proxy::to(upstream.endpoint()).await;
    for _ in 0..100 {
        assert_eq!(proxy.plain().await.get("/").await.status(), 200);
    }
    eventually("few upstream connections", || upstream.open() <= 16).await;
    assert!(upstream.accepted() <= 32, "{} connections for 100 requests", upstream.accepted());
}

/// Each request has its line in the access log, with what went each way.
#[tokio::test]
async fn a_request_is_logged() {
    let upstream = Served::named("hello").await;
    let proxy = Setup::to(upstream.endpoint()).start().await;
    let mut client = proxy.connect(Over::Tls).await;
    client.send("POST /log?token=secret&page=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc").await;
    client.response().await;
    let record = proxy.event("request").await;
    assert_eq!(record["method"], "POST");
    assert_eq!(record["path"], "/log?token=[redacted]&page=2");
    assert_eq!((&record["status"], &record["tls"]), (&200.into(), &"1.3".into()));
    assert_eq!((&record["received_bytes"], &record["sent_bytes"]), (&3.into(), &5.into()));
    assert_eq!(record["upstream"], "app");
    assert!(
        record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")),
        "{record}"
    );
}
