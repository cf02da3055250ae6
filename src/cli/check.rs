//! `tidegate check`: everything that is wrong with a configuration, at once.

use std::path::Path;
use std::process::ExitCode;

use super::{FAILED, Failure};
use crate::config::{self, Config};

/// Checks the file and says what it found.
pub(super) fn check(path: &Path) -> Result<ExitCode, Failure> {
    let text = config::read(path).map_err(Failure)?;
    let (config, report) = config::compile(path, &text);
    eprint!("{}{}", report.warnings(), report.errors());
    match config {
        Some(config) => {
            println!("{} is fine: {}", path.display(), summary(&config));
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let faults = report.error_count();
            let s = if faults == 1 { "" } else { "s" };
            eprintln!("{}: {faults} fault{s}", path.display());
            Ok(ExitCode::from(FAILED))
        }
    }
}

fn summary(config: &Config) -> String {
    let count =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    [
        count(config.listeners.len(), "listener"),
        count(config.certificates.len(), "certificate"),
        count(config.upstreams.len(), "upstream"),
        count(config.routes.len(), "route"),
    ]
    .join(", ")
}
