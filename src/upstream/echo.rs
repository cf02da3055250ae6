//! The upstream that is built in for a trial: greets, then sends every message back; answers an
//! ordinary GET with a page that talks to it. It sits behind a Unix socket pair and is dialled
//! like any other endpoint, so a trial goes through the whole proxy.

use std::convert::Infallible;
use std::io;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::http::handshake::{self, SEC_WEBSOCKET_KEY};
use crate::ws::frame::{FrameError, FrameHeader, MAX_HEADER_BYTES, Opcode, mask};

const PAGE: &str = include_str!("echo.html");
const GREETING: &str = "Tidegate is up. Whatever you send comes back.";

/// Serves one connection to its end.
pub async fn serve(mut socket: UnixStream) {
    // The first head tells what the connection is for. It is ours: well-formed, and soon here.
    let mut received = BytesMut::new();
    let served = match handshake_key(&mut socket, &mut received).await {
        Ok(Some(key)) => greet_and_echo(&mut socket, &key, received).await,
        Ok(None) => serve_page(socket, &received).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::debug!(%error, "the built-in echo lost its peer");
    }
}

/// The `Sec-WebSocket-Key` of the first head, which is then taken out of `received`; `None` for a
/// head without one, which stays there.
async fn handshake_key(
    socket: &mut UnixStream,
    received: &mut BytesMut,
) -> io::Result<Option<HeaderValue>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(received).map_err(io::Error::other)? {
            httparse::Status::Complete(len) => {
                let key = head
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case(SEC_WEBSOCKET_KEY.as_str()))
                    .and_then(|header| HeaderValue::from_bytes(header.value).ok());
                if key.is_some() {
                    let _ = received.split_to(len);
                }
                return Ok(key);
            }
            httparse::Status::Partial => {}
        }
        if read_more(socket, received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Answers ordinary requests, the first of which has been read already, until the peer leaves.
async fn serve_page(mut socket: UnixStream, received: &[u8]) -> io::Result<()> {
    let (read, write) = socket.split();
    http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(
            TokioIo::new(tokio::io::join(received.chain(read), write)),
            service_fn(async |request| answer(&request)),
        )
        .await
        .map_err(io::Error::other)
}

fn answer(request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = Bytes::from_static(b"The built-in echo answers GET and WebSockets.\n");
        let mut response = Response::new(Full::new(text));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let mut response = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Agrees to the handshake and echoes until the end. hyper would do for the 101 too, were it not
/// that people compare its `Sec-WebSocket-Accept` letter by letter with what the RFC prints.
async fn greet_and_echo(
    socket: &mut UnixStream,
    key: &HeaderValue,
    received: BytesMut,
) -> io::Result<()> {
    let accept = handshake::accept_for(key);
    let mut out = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: "
            .as_slice(),
        accept.as_bytes(),
        b"\r\n\r\n",
    ]
    .concat();
    frame(Opcode::Text, GREETING.as_bytes(), &mut out);
    socket.write_all(&out).await?;
    echo(socket, received, out).await
}

/// Sends back frame by frame, with bounded memory whatever the length of a message. Ends with
/// the peer's Close.
async fn echo(socket: &mut UnixStream, mut received: BytesMut, mut out: Vec<u8>) -> io::Result<()> {
    loop {
        let header = match next_header(socket, &mut received).await? {
            Some(Ok(header)) if header.mask.is_none() => {
                // RFC 6455 §5.1
                return refuse(socket, "a client's frame is not masked").await;
            }
            Some(Ok(header)) => header,
            Some(Err(error)) => return refuse(socket, &error.to_string()).await,
            None => return Ok(()),
        };
        send_back(socket, &mut received, header, &mut out).await?;
        if header.opcode == Opcode::Close {
            return socket.shutdown().await;
        }
    }
}

/// Ends with Close 1002, protocol error (RFC 6455 §7.4.1).
async fn refuse(socket: &mut UnixStream, reason: &str) -> io::Result<()> {
    let mut out = Vec::new();
    frame(Opcode::Close, &[&1002u16.to_be_bytes(), reason.as_bytes()].concat(), &mut out);
    socket.write_all(&out).await?;
    socket.shutdown().await
}

/// The next frame's header, or `None` at the end of the stream.
async fn next_header(
    socket: &mut UnixStream,
    received: &mut BytesMut,
) -> io::Result<Option<Result<FrameHeader, FrameError>>> {
    loop {
        match FrameHeader::parse(received) {
            Ok(Some((header, len))) => {
                let _ = received.split_to(len);
                return Ok(Some(Ok(header)));
            }
            Ok(None) => {}
            Err(error) => return Ok(Some(Err(error))),
        }
        if read_more(socket, received).await? == 0 {
            return Ok(None);
        }
    }
}

/// Returns one frame to its sender, piece by piece as it comes. A Pong is only swallowed.
async fn send_back(
    socket: &mut UnixStream,
    received: &mut BytesMut,
    header: FrameHeader,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let opcode = if header.opcode == Opcode::Ping { Opcode::Pong } else { header.opcode };
    let is_echoed = header.opcode != Opcode::Pong;
    out.clear();
    FrameHeader { opcode, mask: None, ..header }.write(out);
    let mut done = 0;
    loop {
        let left = header.payload_len - done;
        let len = received.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut piece = received.split_to(len);
        if let Some(key) = header.mask {
            mask(key, done, &mut piece);
        }
        out.extend_from_slice(&piece);
        done += piece.len() as u64;
        if is_echoed {
            socket.write_all(out).await?;
        }
        out.clear();
        if done == header.payload_len {
            return Ok(());
        }
        if read_more(socket, received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn read_more(socket: &mut UnixStream, received: &mut BytesMut) -> io::Result<usize> {
    received.reserve(16 * 1024);
    socket.read_buf(received).await
}

/// Appends a whole frame as a server sends it: unmasked.
fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(MAX_HEADER_BYTES + payload.len());
    let payload_len = payload.len() as u64;
    FrameHeader { fin: true, reserved: 0, opcode, mask: None, payload_len }.write(out);
    out.extend_from_slice(payload);
}
