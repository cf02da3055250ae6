//! The record layer of a connection that is being relayed: ciphertext in, plaintext out, and the
//! other way round, without any I/O of its own.
//!
//! The handshake hands over its rustls connection. rustls asks its reader for 4 KiB at a time;
//! here the socket has been read in one large gulp into the worker's scratch buffer, and rustls
//! is given slices of that, so that small reads cost a copy and no system call.

use std::io::{self, BufRead as _, Write as _};

use rustls::Connection;

/// One side of a TLS connection after its handshake.
#[derive(Debug)]
pub struct Records {
    connection: Connection,
}

/// What [`Records::open`] found besides plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// More may follow.
    Open,
    /// The peer has said `close_notify` (RFC 8446 §6.1): nothing more will come.
    Ended,
}

impl Records {
    /// Takes over a connection whose handshake is done.
    pub fn new(connection: impl Into<Connection>) -> Self {
        let mut connection = connection.into();
        // We write only when nothing is left behind, a scratch buffer at a time: that is the
        // bound, and a second one inside rustls would only split our batches.
        connection.set_buffer_limit(None);
        Self { connection }
    }

    /// Opens as many records as `sealed` completes and appends their plaintext to `plain`. Part
    /// of a record is kept until the rest comes.
    ///
    /// # Errors
    ///
    /// What the peer did wrong; an alert that says so is then waiting to be written.
    pub fn open(&mut self, mut sealed: &[u8], plain: &mut Plain) -> Result<Opened, rustls::Error> {
        loop {
            // Cannot fail: a slice does not, and rustls's limit on plaintext that nobody has
            // fetched is not reached, since all of it is fetched below.
            let taken = self.connection.read_tls(&mut sealed).unwrap_or(0);
            let state = self.connection.process_new_packets()?;
            self.take_plaintext(plain);
            if state.peer_has_closed() {
                return Ok(Opened::Ended);
            }
            if taken == 0 || sealed.is_empty() {
                return Ok(Opened::Open);
            }
        }
    }

    /// Appends plaintext that was opened before, during the handshake's last read for example.
    pub fn take_plaintext(&mut self, plain: &mut Plain) {
        let mut reader = self.connection.reader();
        while let Ok(chunk) = reader.fill_buf() {
            let len = plain.append(chunk);
            if len == 0 {
                return;
            }
            reader.consume(len);
        }
    }

    /// Seals `plain` into full records, which then wait to be written.
    pub fn seal(&mut self, plain: &[u8]) {
        // Cannot fail or take less: there is no buffer limit, and the handshake is done.
        let _ = self.connection.writer().write_all(plain);
    }

    /// Says `close_notify`: nothing of ours will follow.
    pub fn seal_end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether records are waiting to be written.
    pub fn has_sealed(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes waiting records to `out`, many with one call.
    ///
    /// # Errors
    ///
    /// What `out` says, `WouldBlock` among it; what was not taken keeps waiting.
    pub fn write_to(&mut self, out: &mut dyn io::Write) -> io::Result<usize> {
        self.connection.write_tls(out)
    }
}

/// The most plaintext that one call of [`Records::open`] can give: a scratch buffer full of
/// ciphertext, and the record that was kept from before.
pub const PLAIN_BYTES: usize = SEALED_BYTES + 18 * 1024;

/// How much of a socket is read at once.
pub const SEALED_BYTES: usize = 64 * 1024;

/// A buffer for plaintext, filled from the front.
#[derive(Debug)]
pub struct Plain {
    bytes: Box<[u8]>,
    len: usize,
}

impl Plain {
    /// An empty buffer for [`PLAIN_BYTES`].
    pub fn new() -> Self {
        Self { bytes: vec![0; PLAIN_BYTES].into_boxed_slice(), len: 0 }
    }

    /// Forgets the content.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The content.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The whole buffer, to read into from the front; [`Plain::set_len`] then says how far.
    pub fn whole(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Says that the first `len` bytes are content.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.bytes.len());
    }

    /// Appends what fits of `chunk`, and says how much that was.
    fn append(&mut self, chunk: &[u8]) -> usize {
        let len = chunk.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + len].copy_from_slice(&chunk[..len]);
        self.len += len;
        len
    }
}

impl Default for Plain {
    fn default() -> Self {
        Self::new()
    }
}
