//! How much the client of a session may send in which time, and what becomes of it beyond.

use std::time::{Duration, Instant};

use super::sessions::Why;
use crate::config::units::Rate;
use crate::config::{self, OverRate};
use crate::ws::frame::Opcode;
use crate::ws::limits::Bucket;

/// What the client of one session may still send.
#[derive(Debug)]
pub(super) struct Allowance {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    over: OverRate,
    /// Whether it is a message that has to wait, and not bytes.
    is_message_held: bool,
}

/// A throttled client is read again about so many times in each period of its rate.
const PORTIONS: u64 = 10;

impl Allowance {
    /// What may be sent on `route`; `None` where that is unlimited.
    pub(super) fn new(route: &config::Route, now: Instant) -> Option<Self> {
        let bucket = |rate: Rate| Bucket::new(rate.amount, rate.per, now);
        let (messages, bytes) = (route.message_rate.map(bucket), route.byte_rate.map(bucket));
        let is_limited = messages.is_some() || bytes.is_some();
        let over = route.over_rate;
        is_limited.then_some(Self { messages, bytes, over, is_message_held: false })
    }

    /// What a data frame is beyond, if it is; otherwise it is charged.
    pub(super) fn judge(&mut self, opcode: Opcode, frame_bytes: u64) -> Option<Why> {
        let now = Instant::now();
        let begins = opcode != Opcode::Continuation;
        self.is_message_held = false;
        if begins && let Some(bucket) = &mut self.messages {
            if bucket.available(now) == 0 {
                self.is_message_held = true;
                return Some(Why::MessageRate);
            }
            bucket.take(1);
        }
        // A throttle counts the bytes as they go.
        if self.over == OverRate::Close
            && let Some(bucket) = &mut self.bytes
        {
            if bucket.available(now) < frame_bytes {
                return Some(Why::ByteRate);
            }
            bucket.take(frame_bytes);
        }
        None
    }

    /// How many bytes may go on now.
    pub(super) fn budget(&mut self) -> usize {
        match (&mut self.bytes, self.over) {
            (Some(bucket), OverRate::Throttle) => {
                usize::try_from(bucket.available(Instant::now())).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    /// So many bytes have gone on.
    pub(super) fn spent(&mut self, bytes: usize) {
        if self.over == OverRate::Throttle
            && let Some(bucket) = &mut self.bytes
        {
            bucket.take(bytes as u64);
        }
    }

    /// How long a client that has used it up is not read.
    pub(super) fn pause(&self) -> Duration {
        let wait = if self.is_message_held {
            self.messages.as_ref().map(|bucket| bucket.time_to(1))
        } else {
            self.bytes.as_ref().map(|bucket| bucket.time_to_portion(PORTIONS))
        };
        wait.unwrap_or_default()
    }
}
