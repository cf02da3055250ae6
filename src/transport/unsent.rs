//! How much of what was written to a socket its peer has not acknowledged yet: the one thing we
//! ask the kernel that no safe crate asks for us.
#![expect(unsafe_code, reason = "rustix wants the size of an ioctl's answer vouched for")]

use std::ffi::c_int;
use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `SIOCOUTQ` (tcp(7), unix(7)), which is `TIOCOUTQ` by another name and the same number on every
/// architecture we build for (`include/uapi/asm-generic/ioctls.h`).
const SIOCOUTQ: Opcode = 0x5411;

/// Bytes that were written to a stream socket and have not arrived.
///
/// # Errors
///
/// What the system says.
pub(super) fn unsent_bytes(socket: impl AsFd) -> io::Result<usize> {
    // SAFETY: `Getter` needs its opcode to write exactly one value of its output type through the
    // pointer it passes. SIOCOUTQ writes one `int` for TCP and for Unix stream sockets (tcp(7),
    // unix(7)), and for any other descriptor fails or writes an `int` too, being TIOCOUTQ there.
    let unsent = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) }?;
    Ok(usize::try_from(unsent).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What the peer's kernel has taken counts no more, what it has no room for does.
    #[test]
    fn what_a_peer_has_no_room_for_is_unsent() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut sender = TcpStream::connect(address).expect("a connection");
        let _receiver = listener.accept().expect("the other end");
        sender.set_nonblocking(true).expect("a non-blocking socket");
        assert_eq!(unsent_bytes(&sender).expect("an answer"), 0);
        while sender.write(&[0; 65_536]).is_ok() {}
        assert!(unsent_bytes(&sender).expect("an answer") > 0);
    }

    #[test]
    fn unix_sockets_and_other_descriptors_answer_or_fail() {
        let (mut ours, _theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(b"unread").expect("room for a few bytes");
        assert!(unsent_bytes(&ours).expect("an answer") > 0);
        assert!(unsent_bytes(std::fs::File::open("/dev/null").expect("/dev/null")).is_err());
    }
}
