//! Signals: SIGTERM, SIGINT and SIGQUIT begin the drain and, the second time, cut; SIGHUP reloads,
//! unless it says that the terminal is gone at which somebody ran us.

use std::io::{self, IsTerminal as _};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that we listen for.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    /// Whether somebody ran us at a terminal.
    is_at_terminal: bool,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To end; the name of the signal.
    End(&'static str),
    /// To end, since the terminal is gone. It may come twice: from the shell and from the kernel.
    HungUp,
    /// To read the configuration again.
    Reload,
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
            hangup: signal(SignalKind::hangup())?,
            is_at_terminal: io::stdin().is_terminal(),
        })
    }

    /// The next of them. May be dropped at any time.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End("SIGTERM"),
            _ = self.interrupt.recv() => Wish::End("SIGINT"),
            _ = self.quit.recv() => Wish::End("SIGQUIT"),
            _ = self.hangup.recv() => if self.is_at_terminal && !io::stdin().is_terminal() {
                Wish::HungUp
            } else {
                Wish::Reload
            },
        }
    }
}
