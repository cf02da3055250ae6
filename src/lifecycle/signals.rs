//! Signals: the first SIGTERM, SIGINT or SIGQUIT begins the drain, a second one cuts.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::phases::Phase;

/// The signals that end the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    /// Begins to listen for them. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }

    /// Moves the process on as signals and the clock say, until it is to be cut. Dropped when the
    /// workers have gone before that.
    pub async fn steer(mut self, phases: &watch::Sender<Phase>, timeout: Duration) {
        let name = self.next().await;
        tracing::info!(signal = name, timeout = ?timeout, "draining: no new work is accepted");
        phases.send_replace(Phase::Draining);
        tokio::select! {
            name = self.next() => tracing::warn!(signal = name, "second signal: cutting what is left"),
            () = tokio::time::sleep(timeout) => tracing::warn!("drain timeout: cutting what is left"),
        }
        phases.send_replace(Phase::Cut);
    }
}
