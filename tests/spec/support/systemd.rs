//! systemd's end of its notification protocol, sd_notify(3).

use tokio::net::UnixDatagram;

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, SocketAddr};

use super::within;

/// The socket on which systemd would hear a service.
pub(crate) struct Systemd {
    socket: UnixDatagram,
    path: String,
    _folder: tempfile::TempDir,
}

impl Systemd {
    pub(crate) fn listen() -> Systemd {
        Systemd::bound(|name| (SocketAddr::from_pathname(name), name.to_owned()))
    }

    /// The same in the abstract namespace.
    pub(crate) fn listen_abstract() -> Systemd {
        Systemd::bound(|name| (SocketAddr::from_abstract_name(name), format!("@{name}")))
    }

    fn bound(address: impl FnOnce(&str) -> (std::io::Result<SocketAddr>, String)) -> Systemd {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let name = folder.path().join("notify").display().to_string();
        let (address, path) = address(&name);
        let socket = address.and_then(|address| net::UnixDatagram::bind_addr(&address));
        let socket = socket.expect("the name is ours");
        socket.set_nonblocking(true).expect("a socket takes options");
        let socket = UnixDatagram::from_std(socket).expect("the runtime has begun");
        Systemd { socket, path, _folder: folder }
    }

    /// What `NOTIFY_SOCKET` is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Says so much to itself that there is no room for another message, and returns how many there are.
    pub(crate) fn fill(&self) -> usize {
        let sender = net::UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("a socket takes options");
        let full = (0..).find(|_| match sender.send_to(b"X_FULL=1\n", &self.path) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                true
            }
        });
        full.expect("a queue is finite")
    }

    /// The next message, which may assign several values, each in its line.
    pub(crate) async fn message(&self) -> String {
        let mut bytes = [0; 4096];
        let length = within("a notification", self.socket.recv(&mut bytes))
            .await
            .expect("a bound socket can be read");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The next message with this assignment; those before are dropped.
    pub(crate) async fn hears(&self, assignment: &str) -> String {
        loop {
            let message = self.message().await;
            if message.lines().any(|line| line == assignment) {
                return message;
            }
        }
    }

    /// Everything that was said and not yet read.
    pub(crate) fn rest(self) -> Vec<String> {
        let socket = self.socket.into_std().expect("the socket is ours");
        let mut bytes = [0; 4096];
        let mut messages = Vec::new();
        while let Ok(length) = socket.recv(&mut bytes) {
            messages.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        messages
    }
}
