//! A client and an echo server, both without anything that could run in the background.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::proxy::Proxy;

/// Which of the proxy's listeners a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    Tls,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// An open session.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(proxy: &Proxy, over: Over) -> Self {
        let address = if over == Over::Tls { proxy.wss } else { proxy.ws };
        let tcp = TcpStream::connect(address).expect("a connection");
        tcp.set_nodelay(true).expect("no delay");
        let mut stream: Box<dyn Stream> = match over {
            Over::Plain => Box::new(tcp),
            Over::Tls => {
                let ca = CertificateDer::from_pem_file(proxy.ca()).expect("the CA");
                let mut roots = RootCertStore::empty();
                roots.add(ca).expect("a root");
                let config =
                    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                let name = ServerName::try_from("localhost").expect("a name");
                let tls = ClientConnection::new(Arc::new(config), name).expect("a client");
                Box::new(StreamOwned::new(tls, tcp))
            }
        };
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("a request");
        let head = head(&mut stream).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { stream, buffer: vec![0; 128 * 1024] }
    }

    /// Sends messages of `size` bytes, one when the one before has come back.
    pub(crate) fn echo(&mut self, messages: u64, size: usize) {
        for _ in 0..messages {
            self.send(size);
            self.receive(size);
        }
    }

    pub(crate) fn send(&mut self, size: usize) {
        let frame = [&header(size, 0x80)[..], &[0; 4], &vec![b'x'; size]].concat();
        self.stream.write_all(&frame).expect("an open session");
        self.stream.flush().expect("an open session");
    }

    pub(crate) fn receive(&mut self, size: usize) {
        let header = header(size, 0);
        let answer = &mut self.buffer[..header.len() + size];
        self.stream.read_exact(answer).expect("an open session");
        assert!(answer.starts_with(&header) && answer[header.len()..].iter().all(|b| *b == b'x'));
    }

    /// Says Close, hears it, and then the end of the stream.
    pub(crate) fn close(mut self) {
        self.stream.write_all(&[&CLOSE[..], &[0; 4]].concat()).expect("an open session");
        self.stream.flush().expect("an open session");
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).expect("an orderly end");
        assert_eq!(answer, [CLOSE[0], 0]);
    }
}

/// The header of a Close without a code, masked.
const CLOSE: [u8; 2] = [0x88, 0x80];

/// Of a binary message (RFC 6455 §5.2).
fn header(size: usize, mask: u8) -> Vec<u8> {
    match u16::try_from(size).expect("a message of a few KiB") {
        short @ ..126 => vec![0x82, mask | short as u8],
        long => [&[0x82, mask | 126][..], &long.to_be_bytes()].concat(),
    }
}

/// Starts a server that sends every message back, its mask of zeros taken away.
pub(crate) fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(tcp));
        }
    });
    address
}

/// Until the connection ends, in whatever way.
fn serve(mut tcp: TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    head(&mut tcp)?;
    // Of the key that our clients send (RFC 6455 §1.3).
    tcp.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )?;
    loop {
        let mut first = [0; 2];
        tcp.read_exact(&mut first)?;
        let mut length = [0; 2];
        let size = match first[1] & 0x7f {
            126 => {
                tcp.read_exact(&mut length)?;
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut rest = vec![0; 4 + size];
        tcp.read_exact(&mut rest)?;
        if first == CLOSE {
            return tcp.write_all(&[CLOSE[0], 0]);
        }
        tcp.write_all(&[&header(size, 0), &rest[4..]].concat())?;
    }
}

/// Up to the blank line.
fn head(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
