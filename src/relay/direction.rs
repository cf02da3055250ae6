//! One direction of a session: from the leg that is read to the leg that is written.

use std::io;
use std::task::{Context, Poll, ready};

use super::legs::{Leg, Received, Scratch};

/// One direction of a session.
#[derive(Debug, Default)]
pub(super) struct Direction {
    state: State,
    is_truncated: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The source has ended; its end is being passed on behind what is stuck.
    Ending,
    /// The end has been passed on, or there is nobody to pass it on to.
    Closed,
}

/// How far a direction has come, when it has come to something.
#[derive(Debug)]
pub(super) enum Flow {
    /// Its end has been passed on, or there is nobody to pass it on to; and how it ended.
    Closed(&'static str),
    /// It cannot go on.
    Broken(Broken),
}

/// Which side of a direction failed.
#[derive(Debug)]
pub(super) enum Broken {
    /// The leg that is read.
    Source(io::Error),
    /// The leg that is written.
    Destination(io::Error),
}

/// Scratch buffers full that one poll relays before other sessions of the worker have their turn.
const ROUNDS: usize = 8;

impl Direction {
    /// Whether nothing more will go this way.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Relays as much as there is and fits. `count` is told of every piece.
    pub(super) fn poll(
        &mut self,
        from: &mut Leg,
        to: &mut Leg,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        count: impl Fn(u64),
    ) -> Poll<Flow> {
        for _ in 0..ROUNDS {
            match self.state {
                State::Closed => {
                    let how = if self.is_truncated { "truncated" } else { "closed" };
                    return Poll::Ready(Flow::Closed(how));
                }
                State::Ending => match ready!(to.poll_finish(cx)) {
                    Ok(()) => self.state = State::Closed,
                    Err(error) => return self.broken(Broken::Destination(error)),
                },
                State::Open => {
                    // Back-pressure: while something is stuck, the source is not read.
                    if let Err(error) = ready!(to.poll_flush(cx)) {
                        return self.broken(Broken::Destination(error));
                    }
                    // The tracker of `ws` will look at what was received, here.
                    match ready!(from.poll_receive(cx, scratch)) {
                        Ok(Received::Bytes) => {
                            let bytes = scratch.received();
                            count(bytes.len() as u64);
                            if let Err(error) = to.send(bytes, cx) {
                                return self.broken(Broken::Destination(error));
                            }
                        }
                        Ok(end @ (Received::End | Received::Truncated)) => {
                            self.is_truncated = end == Received::Truncated;
                            self.state = State::Ending;
                        }
                        Err(error) => return self.broken(Broken::Source(error)),
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn broken(&mut self, broken: Broken) -> Poll<Flow> {
        self.state = State::Closed;
        Poll::Ready(Flow::Broken(broken))
    }
}
