//! Our Pings to one leg, and which Pongs answer them (RFC 6455 §5.5.2, §5.5.3).

use std::time::{Duration, Instant};

use super::close::control_frame;
use super::frame::Opcode;
use super::tracker::Masking;

/// The payload of our Pings: a tag that only this leg knows, and a number.
const PAYLOAD_BYTES: usize = 12;

/// The Pings of one leg.
#[derive(Debug, Clone, Default)]
pub struct Keepalive {
    /// Drawn with the first Ping. Each leg has its own, so that what one peer has learnt from our
    /// Pings is worth nothing in its own Pings to the other.
    tag: Option<[u8; 8]>,
    sent: u32,
    /// Which of them was answered last.
    answered: u32,
    sent_at: Option<Instant>,
}

/// What a Pong of ours tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The time from the Ping to its Pong; `None` for an older Ping than the last.
    pub round_trip: Option<Duration>,
}

impl Keepalive {
    /// The next Ping. `draw` gives random bytes, for the tag and the masking key.
    pub fn ping(&mut self, masking: Masking, draw: impl Fn() -> [u8; 8]) -> Vec<u8> {
        let tag = *self.tag.get_or_insert_with(&draw);
        self.sent = self.sent.wrapping_add(1);
        self.sent_at = None;
        let mut payload = [0; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&tag);
        payload[8..].copy_from_slice(&self.sent.to_be_bytes());
        let [key @ .., _, _, _, _] = draw();
        control_frame(Opcode::Ping, &payload, masking, key)
    }

    /// The last Ping has found its place in the stream at `now`.
    pub fn went_out(&mut self, now: Instant) {
        self.sent_at = Some(now);
    }

    /// Whether the payload of a Pong, unmasked, answers one of our Pings that was not answered
    /// yet. A peer may answer only the last of several (RFC 6455 §5.5.3), and answers each once.
    pub fn pong(&mut self, payload: &[u8], now: Instant) -> Option<Answer> {
        let tag = self.tag?;
        let number = payload.strip_prefix(&tag)?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        // Counted from the last answer, so that the numbers may wrap.
        let (ahead, outstanding) =
            (number.wrapping_sub(self.answered), self.sent.wrapping_sub(self.answered));
        if ahead == 0 || ahead > outstanding {
            return None;
        }
        self.answered = number;
        let sent_at = self.sent_at.filter(|_| number == self.sent);
        Some(Answer { round_trip: sent_at.map(|at| now.saturating_duration_since(at)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::frame::FrameHeader;

    fn payload(frame: &[u8]) -> Vec<u8> {
        let (header, len) = FrameHeader::parse(frame).expect("a frame").expect("whole");
        header.unmasked(&frame[len..]).to_vec()
    }

    #[test]
    fn only_the_answer_to_an_open_ping_is_ours() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let (mut ours, mut theirs) = (Keepalive::default(), Keepalive::default());
        assert_eq!(ours.pong(b"", start), None);
        let first = payload(&ours.ping(Masking::Required, || [7; 8]));
        ours.went_out(start);
        let second = payload(&ours.ping(Masking::Forbidden, || [7; 8]));
        ours.went_out(after(10));
        theirs.ping(Masking::Forbidden, || [8; 8]);
        assert_eq!(theirs.pong(&first, start), None);
        assert_eq!(ours.pong(&second[..11], after(11)), None);
        assert_eq!(ours.pong(b"something else", after(11)), None);
        assert_eq!(ours.pong(&first, after(11)), Some(Answer { round_trip: None }));
        assert_eq!(ours.pong(&first, after(12)), None, "the same twice");
        let answer = Answer { round_trip: Some(Duration::from_millis(4)) };
        assert_eq!(ours.pong(&second, after(14)), Some(answer));
        assert_eq!(ours.pong(&second, after(15)), None, "the same twice");
    }

    /// RFC 6455 §5.5.3: a Pong may be for the most recent Ping only.
    #[test]
    fn the_last_of_several_may_be_answered_alone() {
        let now = Instant::now();
        let mut ours = Keepalive { sent: u32::MAX, answered: u32::MAX, ..Keepalive::default() };
        let first = payload(&ours.ping(Masking::Forbidden, || [1; 8]));
        let second = payload(&ours.ping(Masking::Forbidden, || [1; 8]));
        assert!(ours.pong(&second, now).is_some());
        assert_eq!(ours.pong(&first, now), None, "it is answered by then");
    }
}
