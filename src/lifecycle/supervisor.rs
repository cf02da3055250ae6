//! Whoever started the process and watches over it: systemd, or what speaks its notification
//! protocol (sd_notify(3)). Without one, every call here does nothing.
//!
//! Nothing depends on being heard: what goes wrong on the way is logged once, for debugging, and a
//! supervisor that does not listen is not waited for. (`sd_notify::notify` would wait for it, and
//! with it everything else that the calling thread does.)

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// How long a message may wait for a place in the supervisor's queue.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the supervisor.
#[derive(Debug)]
pub struct Supervisor {
    /// Its socket as `NOTIFY_SOCKET` names it; `None` where there is no supervisor.
    socket: Option<OsString>,
    /// Half of what it grants between two signs of life; `None` where it expects none.
    watchdog: Option<Duration>,
    has_failed: AtomicBool,
}

impl Supervisor {
    /// The one that the environment names in `NOTIFY_SOCKET`, or none.
    pub fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        // Looks at WATCHDOG_PID too: what a parent was asked for is not for us to give.
        let watchdog = sd_notify::watchdog_enabled()
            .map(|granted| granted / 2)
            .filter(|interval| socket.is_some() && !interval.is_zero());
        Self { socket, watchdog, has_failed: AtomicBool::new(false) }
    }

    /// The start, or a reload that was announced by [`reloading`](Self::reloading), is over.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// A reload begins. It is over with the next [`ready`](Self::ready), also when it has failed.
    pub fn reloading(&self) {
        // With `Type=notify-reload`, this time is how a reload is told from the one before.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => self.note(&error),
        }
    }

    /// The process is on its way out.
    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// What goes on, for whoever asks `systemctl status`.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(&one_line(status))]);
    }

    /// How often [`alive`](Self::alive) is to be said, which is twice as often as it must; `None`
    /// is never.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// A sign of life for the watchdog.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, states)
        {
            self.note(&error);
        }
    }

    fn note(&self, error: &io::Error) {
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "cannot tell the supervisor; this is not said again");
        }
    }
}

/// One message, which takes effect as a whole. The socket is opened for each: they are rare.
fn send(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&address)?;
    socket.send(message.as_bytes()).map(drop)
}

/// A line break would begin another assignment.
fn one_line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `Type=notify-reload` waits for: both in one message, the time in microseconds.
    #[test]
    fn a_reload_is_announced_with_its_time() {
        let name = format!("tidegate-supervisor-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name that is short");
        let systemd = UnixDatagram::bind_addr(&address).expect("a name of our own");
        let supervisor = Supervisor {
            socket: Some(format!("@{name}").into()),
            watchdog: None,
            has_failed: AtomicBool::new(false),
        };
        supervisor.reloading();
        let mut bytes = [0; 256];
        let length = systemd.recv(&mut bytes).expect("it was sent");
        let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&message);
        assert!(time.trim_end().parse::<u64>().is_ok_and(|time| time > 0), "{message}");
    }

    /// What went wrong with a file is told in several lines, and quotes it.
    #[test]
    fn a_status_is_no_other_message() {
        assert_eq!(one_line("failed:\r\nSTOPPING=1\n"), "failed:  STOPPING=1 ");
    }
}
