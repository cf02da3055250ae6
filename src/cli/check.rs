//! `tidegate check`: everything that is wrong with a configuration, at once.

use std::path::Path;
use std::process::ExitCode;

use super::{FAILED, Failure};
use crate::config::{self, Config};

/// Checks the file and says what it found.
pub(super) fn check(path: &Path) -> Result<ExitCode, Failure> {
    let text = read(path)?;
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

/// The text of the configuration file.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        let shown = path.display();
        let way_out = if error.kind() == std::io::ErrorKind::NotFound {
            "`tidegate init` writes one, `--config PATH` names another, and \
             `tidegate --to ws://127.0.0.1:3000` runs without any"
        } else {
            "it must be a readable text file in UTF-8"
        };
        Failure(format!("error: cannot read {shown}: {error}\n  = {way_out}\n"))
    })
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
