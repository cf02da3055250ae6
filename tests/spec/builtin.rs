//! The builtin echo: what a first run has to show without any backend.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::wire::handshake;
use crate::support::{BOTH, Over, Setup, Wire, noise, sha256, within};

async fn next(socket: &mut WebSocketStream<Wire>) -> Message {
    within("a message", socket.next()).await.expect("a message").expect("a good one")
}

/// It greets with one text message; what comes after is an echo, in the kind it was sent.
#[tokio::test]
async fn the_echo_greets_and_echoes_text_and_binary() {
    let proxy = Setup::builtin().start().await;
    for over in BOTH {
        let mut socket = proxy.websocket(over, "/any/path").await;
        assert!(next(&mut socket).await.is_text());
        for message in
            [Message::text("grüße 🌊"), Message::text(""), Message::binary(noise(1, 70_000))]
        {
            within("a message to leave", socket.send(message.clone()))
                .await
                .expect("the proxy reads");
            assert_eq!(next(&mut socket).await, message);
        }
    }
}

/// A large message comes back whole.
#[tokio::test]
async fn the_echo_takes_large_messages() {
    let proxy = Setup::builtin().start().await;
    let mut socket = proxy.websocket(Over::Tls, "/").await;
    next(&mut socket).await;
    let sent = noise(2, 8 << 20);
    let wanted = sha256(&sent);
    let (mut to, mut from) = socket.split();
    let (sent, got) = tokio::join!(to.send(Message::binary(sent)), within("the echo", from.next()));
    sent.expect("the proxy reads");
    assert_eq!(sha256(got.expect("a message").expect("a good one").into_data()), wanted);
}

/// A ping is answered with its own bytes: RFC 6455 §5.5.3.
#[tokio::test]
async fn the_echo_answers_pings() {
    let proxy = Setup::builtin().start().await;
    let mut socket = proxy.websocket(Over::Plain, "/").await;
    next(&mut socket).await;
    socket.send(Message::Ping("are you there".into())).await.expect("the proxy reads");
    assert_eq!(next(&mut socket).await, Message::Pong("are you there".into()));
}

/// A Close is answered with its own code, and then the connection ends: RFC 6455 §5.5.1.
#[tokio::test]
async fn the_echo_answers_a_close() {
    let proxy = Setup::builtin().start().await;
    for (over, code) in BOTH.into_iter().flat_map(|over| [(over, 1000), (over, 4000)]) {
        let mut socket = proxy.websocket(over, "/").await;
        next(&mut socket).await;
        let frame = CloseFrame { code: CloseCode::from(code), reason: "enough".into() };
        socket.send(Message::Close(Some(frame))).await.expect("the proxy reads");
        let Message::Close(Some(answer)) = next(&mut socket).await else { panic!("no Close") };
        assert_eq!(u16::from(answer.code), code);
        assert!(within("the end", socket.next()).await.is_none_or(|last| last.is_err()));
    }
}

/// A frame without a mask is an error of the client's, and ends the session: RFC 6455 §5.1.
#[tokio::test]
async fn the_echo_refuses_unmasked_frames() {
    let proxy = Setup::builtin().start().await;
    let mut client = proxy.plain().await;
    client.send(handshake("/")).await;
    assert_eq!(client.head().await.status(), Some(101));
    client.send(b"\x81\x05hello").await;
    let (rest, _) = client.rest().await;
    let close_1002 =
        rest.windows(4).any(|window| window[0] == 0x88 && window[2..] == 1002u16.to_be_bytes());
    assert!(close_1002, "{rest:?}");
}

/// GET gives a page, HEAD its length, for any path.
#[tokio::test]
async fn the_echo_has_a_page() {
    let proxy = Setup::builtin().start().await;
    for over in BOTH {
        let mut client = proxy.connect(over).await;
        let page = client.get("/").await;
        assert_eq!(page.status(), 200);
        assert!(page.head.field("content-type").is_some_and(|kind| kind.starts_with("text/html")));
        for part in ["id=\"form\"", "id=\"message\"", "id=\"log\"", "WebSocket("] {
            assert!(page.body.contains(part), "{part} is not in:\n{}", page.body);
        }
        client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(head.field("content-length"), page.head.field("content-length"));
        assert_eq!(client.get("/other").await.status(), 200);
    }
}
