//! A worker's scratch buffer.

/// How much of a socket is read at once, in bytes.
pub const READ_BYTES: usize = 64 * 1024;

/// Room beyond what is read at once: for the record that was kept from before, with the most that
/// TLS 1.2 lets one take (RFC 5246 §6.2.3), and for a KiB that is put in front.
const SLACK: usize = 20 * 1024;

/// A buffer that is filled from the front, emptied all at once and used again and again, so that
/// its memory is written to before it is used and never cleared afterwards.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// An empty buffer with room for what one read of a socket can give.
    pub fn new() -> Self {
        Self { bytes: vec![0; READ_BYTES + SLACK], len: 0 }
    }

    /// Forgets the content, and begins with `bytes`.
    pub fn begin_with(&mut self, bytes: &[u8]) {
        self.len = 0;
        if !bytes.is_empty() {
            self.append(bytes);
        }
    }

    /// The content.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// `len` bytes of room behind the content; [`Buffer::add`] then says how much of it has become
    /// content.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.len..end]
    }

    /// So many more bytes are content, of those that there was room for.
    pub fn add(&mut self, len: usize) {
        self.len = (self.len + len).min(self.bytes.len());
    }

    /// Appends `bytes`.
    pub fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.add(bytes.len());
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}
