//! What is sent through a proxy, and how either end tells that it arrived unchanged.

use std::io;

use crate::client::Link;
use crate::frame;

/// A batch of bulk messages is at least this long: what a busy sender has waiting at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Bytes that differ along the way, so that a proxy that lost, doubled or swapped a stretch would
/// be found out.
fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

/// An endless stream of messages that are all the same, from one of its ends. It is compared as
/// frames, masks included: a proxy has no business with either.
#[derive(Debug)]
pub(crate) struct Bulk {
    /// As many messages as are sent with one write.
    batch: Vec<u8>,
    /// Length of one of them, header and all.
    frame_bytes: usize,
    payload_bytes: usize,
    /// How much of the message that is arriving was seen.
    seen: usize,
    is_closed: bool,
}

impl Bulk {
    pub(crate) fn from_client(payload_bytes: usize) -> Self {
        Self::of(&frame::from_client(frame::BINARY, &payload(payload_bytes)), payload_bytes)
    }

    pub(crate) fn from_server(payload_bytes: usize) -> Self {
        let mut frame = Vec::new();
        frame::append_from_server(&mut frame, frame::BINARY, &payload(payload_bytes));
        Self::of(&frame, payload_bytes)
    }

    fn of(frame: &[u8], payload_bytes: usize) -> Self {
        let batch = frame.repeat(BATCH_BYTES.div_ceil(frame.len()));
        Self { batch, frame_bytes: frame.len(), payload_bytes, seen: 0, is_closed: false }
    }

    /// What to write at once.
    pub(crate) fn batch(&self) -> &[u8] {
        &self.batch
    }

    /// The messages of a batch.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.batch.chunks(self.frame_bytes)
    }

    /// Whether the stream has ended with a Close between two messages, as a proxy may send one for
    /// a peer that is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Compares the next bytes of the stream, and returns how many bytes of payload there are in
    /// the messages that end with them.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) -> io::Result<u64> {
        let mut ended = 0;
        while let [first, ..] = bytes {
            if self.seen == 0 && frame::is_close(*first) {
                self.is_closed = true;
                break;
            }
            let expected = &self.batch[self.seen..self.frame_bytes];
            let length = expected.len().min(bytes.len());
            if bytes[..length] != expected[..length] {
                return Err(io::Error::other("a bulk message arrived changed"));
            }
            bytes = &bytes[length..];
            self.seen += length;
            if self.seen == self.frame_bytes {
                self.seen = 0;
                ended += self.payload_bytes as u64;
            }
        }
        Ok(ended)
    }
}

/// A message that is told apart from every other by its first 8 bytes, the client's number and
/// its own, so that an answer that went to the wrong session is noticed.
#[derive(Debug)]
pub(crate) struct Echo {
    payload: Vec<u8>,
    frame: Vec<u8>,
    sent: u32,
}

impl Echo {
    pub(crate) fn new(client: u32, payload_bytes: usize) -> Self {
        let mut payload = payload(payload_bytes);
        payload[..4].copy_from_slice(&client.to_be_bytes());
        let frame = frame::from_client(frame::BINARY, &payload);
        Self { payload, frame, sent: 0 }
    }

    /// Sends it, with its next number, and waits until it has come back.
    pub(crate) async fn once(&mut self, link: &mut Link) -> io::Result<()> {
        self.sent = self.sent.wrapping_add(1);
        let number = self.sent.to_be_bytes();
        self.payload[4..8].copy_from_slice(&number);
        let header_bytes = self.frame.len() - self.payload.len();
        let place = &mut self.frame[header_bytes + 4..header_bytes + 8];
        place.copy_from_slice(&number);
        frame::apply_mask(place, frame::MASK); // 4 bytes in, the mask begins anew
        link.send(&self.frame).await?;
        link.expect(frame::BINARY, &self.payload).await
    }
}
