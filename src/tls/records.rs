//! The record layer of a connection that is being relayed: ciphertext in, plaintext out, and the
//! other way round, without any I/O of its own.
//!
//! The handshake hands over its rustls connection. rustls asks its reader for 4 KiB at a time;
//! here the socket has been read in one large gulp into the worker's scratch buffer, and rustls
//! is given slices of that, so that small reads cost a copy and no system call.

use std::io::{self, BufRead as _, Write as _};

use rustls::{Connection, ProtocolVersion};

/// One side of a TLS connection after its handshake.
#[derive(Debug)]
pub struct Records {
    connection: Connection,
    end: Option<Result<(), rustls::Error>>,
    /// Records that may still be sealed before the keys are used up.
    left: u64,
}

/// AES-GCM under one key of TLS 1.2 seals no more records than this (RFC 8446 §5.5 tells why; in
/// TLS 1.3 rustls takes a new key in time). rustls stops at 2^24, those of the handshake and of
/// HTTP included.
const TLS12_RECORDS: u64 = (1 << 24) - (1 << 16);
/// The plaintext of one record at the most (RFC 8446 §5.1).
const RECORD_BYTES: u64 = 16 * 1024;

/// No more can be sealed on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys of TLS 1.2 are used up after 2^24 records")]
pub struct KeysUsedUp;

impl Records {
    /// Takes over a connection whose handshake is done.
    pub fn new(connection: impl Into<Connection>) -> Self {
        let mut connection = connection.into();
        // We write only when nothing is left behind, a scratch buffer at a time: that is the
        // bound, and a second one inside rustls would only split our batches.
        connection.set_buffer_limit(None);
        let is_tls12 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        let left = if is_tls12 { TLS12_RECORDS } else { u64::MAX };
        let mut records = Self { connection, end: None, left };
        // The end may have come with the last bytes that the handshake or HTTP read.
        records.process();
        records
    }

    /// How the peer's direction ended, once it has: by `close_notify` (RFC 8446 §6.1), or by
    /// something that is no TLS or an alert; an alert that says so is then waiting to be written.
    /// There may be plaintext from before it.
    pub fn end(&self) -> Option<&Result<(), rustls::Error>> {
        self.end.as_ref()
    }

    /// Opens as many records as `sealed` completes and appends their plaintext to `plain`. Part
    /// of a record is kept until the rest comes.
    pub fn open(&mut self, mut sealed: &[u8], plain: &mut Plain) {
        while self.end.is_none() && !sealed.is_empty() {
            match self.connection.read_tls(&mut sealed) {
                Ok(0) => return,
                Ok(_) => self.process(),
                // A handshake message without end, for one. A slice does not fail.
                Err(error) => self.end = Some(Err(rustls::Error::General(error.to_string()))),
            }
            self.take_plaintext(plain);
        }
    }

    fn process(&mut self) {
        match self.connection.process_new_packets() {
            Ok(state) if state.peer_has_closed() => self.end = Some(Ok(())),
            Ok(_) => {}
            Err(error) => self.end = Some(Err(error)),
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
    ///
    /// # Errors
    ///
    /// [`KeysUsedUp`]; nothing of `plain` was sealed.
    pub fn seal(&mut self, plain: &[u8]) -> Result<(), KeysUsedUp> {
        let records = (plain.len() as u64).div_ceil(RECORD_BYTES);
        self.left = self.left.checked_sub(records).ok_or(KeysUsedUp)?;
        // There is no buffer limit and the handshake is done, so all of it is taken.
        self.connection.writer().write_all(plain).map_err(|_| KeysUsedUp)
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
/// ciphertext, and the record that was kept from before; with room for what is put in front.
pub const PLAIN_BYTES: usize = SEALED_BYTES + 19 * 1024;

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

    /// Forgets the content, and begins with `bytes`, a KiB at the most if more is to follow.
    pub fn begin_with(&mut self, bytes: &[u8]) {
        self.len = 0;
        self.append(bytes);
    }

    /// The content.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Room behind the content, `len` bytes if there are so many; [`Plain::add`] then says how
    /// much of it has become content.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        let end = (self.len + len).min(self.bytes.len());
        &mut self.bytes[self.len..end]
    }

    /// So many more bytes are content.
    pub fn add(&mut self, len: usize) {
        self.len = (self.len + len).min(self.bytes.len());
    }

    /// Appends what fits of `chunk`, and says how much that was.
    pub fn append(&mut self, chunk: &[u8]) -> usize {
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
