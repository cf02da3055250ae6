//! The upstream that is built in for a trial: greets, then sends every message back; answers an
//! ordinary GET with a page that talks to it. It sits behind a Unix socket pair and is dialled
//! like any other endpoint, so a trial goes through the whole proxy.

use std::convert::Infallible;
use std::io;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::http::handshake::{self, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use crate::ws::frame::{FrameError, FrameHeader, MAX_HEADER_BYTES, Opcode, mask};

const PAGE: &str = include_str!("echo.html");
const GREETING: &str = "Tidegate is up. Whatever you send comes back.";

/// Serves one connection to its end.
pub async fn serve(stream: UnixStream) {
    let http = http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service_fn(async |request| answer(&request)));
    let Ok(parts) = http.without_shutdown().await else { return };
    // Only an answered handshake leaves a connection behind that is worth a word; on any other
    // the peer has gone, and the greeting goes nowhere.
    let mut socket = parts.io.into_inner();
    if let Err(error) = echo(&mut socket, BytesMut::from(&parts.read_buf[..])).await {
        tracing::debug!(%error, "the built-in echo lost its peer");
    }
}

fn answer(request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    match request.headers().get(SEC_WEBSOCKET_KEY) {
        Some(key) => {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, handshake::accept_for(key));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        None if matches!(*request.method(), Method::GET | Method::HEAD) => {
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            headers.insert(CONTENT_TYPE, html);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            *response.body_mut() = Full::new(Bytes::from_static(PAGE.as_bytes()));
        }
        None => {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            *response.body_mut() =
                Full::new(Bytes::from_static(b"The built-in echo answers GET and WebSockets.\n"));
        }
    }
    Ok(response)
}

/// Sends back frame by frame, with bounded memory whatever the length of a message. Ends with
/// the peer's Close.
async fn echo(socket: &mut UnixStream, mut received: BytesMut) -> io::Result<()> {
    let mut out = Vec::with_capacity(1024);
    frame(Opcode::Text, GREETING.as_bytes(), &mut out);
    socket.write_all(&out).await?;
    loop {
        let header = match next_header(socket, &mut received).await? {
            Some(Ok(header)) => header,
            Some(Err(error)) => {
                out.clear();
                let reason = [&1002u16.to_be_bytes(), error.to_string().as_bytes()].concat();
                frame(Opcode::Close, &reason, &mut out);
                return socket.write_all(&out).await;
            }
            None => return Ok(()),
        };
        send_back(socket, &mut received, header, &mut out).await?;
        if header.opcode == Opcode::Close {
            return socket.shutdown().await;
        }
    }
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
