//! Diagnostics on standard error, apart from the access log. `RUST_LOG` chooses what is shown.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Starts printing diagnostics: `info` and above, unless `RUST_LOG` says otherwise.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would tell standard error of it, and panic if that is what has failed.
        .log_internal_errors(false)
        .try_init();
    if started.is_err() {
        // A second call in one process; the first one's choice stands.
        tracing::debug!("diagnostics were started before");
    }
}
