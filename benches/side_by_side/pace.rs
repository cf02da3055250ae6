//! When paced messages are due: at an even rate that no answer holds up. The runtime's own timers
//! go by the millisecond, in which a whole crowd of messages would be due at once.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// The times at which one client sends.
#[derive(Debug)]
pub(crate) struct Pace {
    timer: AsyncFd<OwnedFd>,
    next: Instant,
    period: Duration,
}

impl Pace {
    /// The pace of `client`, one of so many, who take turns at `per_second` messages in all.
    pub(crate) fn new(client: u32, clients: u32, per_second: u32) -> io::Result<Self> {
        let period = Duration::from_secs(1) * clients / per_second;
        let first = period + period * client / clients;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let times = Itimerspec { it_interval: timespec(period), it_value: timespec(first) };
        let next = Instant::now() + first;
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; that an OwnedFd stays open is sure"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, next, period })
    }

    /// Waits until the next message is due and returns since when it is. A client that is late
    /// does not wait; what it sends is as old as its due time says.
    pub(crate) async fn due(&mut self) -> io::Result<Instant> {
        let due = self.next;
        self.next += self.period;
        while Instant::now() < due {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            // Only that it went off is of interest, not how often.
            let _ = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
        }
        Ok(due)
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().cast_signed(),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
