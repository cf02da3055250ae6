//! Bytes that wait for their turn: as nearly always there are none, a pointer is all that a session
//! has room for.

use std::ops::Deref;

use bytes::{Buf as _, Bytes};

/// Bytes that wait. It holds no memory while it is empty.
#[derive(Debug, Default)]
pub(super) struct Backlog(Option<Box<Bytes>>);

impl Backlog {
    /// Whether nothing waits. On the path of every read.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The first `len` bytes need not wait any more.
    pub(super) fn advance(&mut self, len: usize) {
        if let Some(bytes) = &mut self.0 {
            bytes.advance(len);
        }
        self.0.take_if(|bytes| bytes.is_empty());
    }
}

impl From<Vec<u8>> for Backlog {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Some(bytes).filter(|bytes| !bytes.is_empty()).map(|bytes| Box::new(bytes.into())))
    }
}

impl Deref for Backlog {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_waits_on() {
        let mut backlog = Backlog::from(b"waiting".to_vec());
        backlog.advance(4);
        assert_eq!(&*backlog, b"ing");
        backlog.advance(3);
        assert!(backlog.is_empty() && backlog.0.is_none());
        backlog.advance(0);
        assert!(Backlog::from(Vec::new()).0.is_none());
    }
}
