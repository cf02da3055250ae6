//! WebSocket frames as they stand on the wire (RFC 6455 §5.2), for tests that are about single frames.

use super::Wire;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame of a client: masked.
pub(crate) fn masked(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    with_first_byte(0x80 | opcode, payload.as_ref(), true)
}

/// A frame of a server: not masked.
pub(crate) fn plain(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    with_first_byte(0x80 | opcode, payload.as_ref(), false)
}

/// A frame whose first byte, FIN, RSV1 to RSV3 and opcode, is the test's.
pub(crate) fn with_first_byte(first: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let mut frame = vec![first];
    let mask = if is_masked { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => frame.push(mask | len as u8),
        len @ 126..0x1_0000 => {
            frame.push(mask | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(mask | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if is_masked {
        frame.extend_from_slice(&KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        frame.extend_from_slice(payload);
    }
    frame
}

/// The payload of a Close.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A frame that was received, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) is_masked: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Of a Close: its code.
    pub(crate) fn code(&self) -> Option<u16> {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

impl Wire {
    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Frame {
        let head = self.take(2).await;
        let len = match head[1] & 0x7F {
            126 => u16::from_be_bytes(self.take(2).await.try_into().expect("two bytes")).into(),
            127 => u64::from_be_bytes(self.take(8).await.try_into().expect("eight bytes")),
            len => len.into(),
        };
        let is_masked = head[1] & 0x80 != 0;
        let key = if is_masked { self.take(4).await } else { vec![0; 4] };
        let mut payload = self.take(usize::try_from(len).expect("a length that fits")).await;
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        Frame { fin: head[0] & 0x80 != 0, opcode: head[0] & 0x0F, is_masked, payload }
    }

    /// Checks that the next frame is a Close with this code, and nothing else.
    pub(crate) async fn expect_close(&mut self, code: u16) {
        assert_eq!(self.frame().await.code(), Some(code));
    }

    /// Answers the next frame, which is a Ping, as a client does, and returns its payload.
    pub(crate) async fn answer_ping_as_client(&mut self) -> Vec<u8> {
        let ping = self.frame().await;
        assert_eq!((ping.opcode, ping.is_masked), (PING, false), "{ping:?}");
        self.send(masked(PONG, &ping.payload)).await;
        ping.payload
    }

    /// The same as a server.
    pub(crate) async fn answer_ping_as_server(&mut self) -> Vec<u8> {
        let ping = self.frame().await;
        assert_eq!((ping.opcode, ping.is_masked), (PING, true), "{ping:?}");
        self.send(plain(PONG, &ping.payload)).await;
        ping.payload
    }
}
