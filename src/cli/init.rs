//! `tidegate init`: a commented `proxy.toml` to begin with, the one that is shipped.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::Failure;

const TEMPLATE: &str = include_str!("../../proxy.toml");

/// Writes the file, unless there is one.
pub(super) fn init(path: &Path) -> Result<ExitCode, Failure> {
    let shown = path.display();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(TEMPLATE.as_bytes()));
    match written {
        Ok(()) => {
            println!("wrote {shown}: it works as it is, run `tidegate` to try it");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure(format!(
            "error: {shown} is there already, and is not overwritten\n  = remove it, or write \
             another with `tidegate init --config PATH`\n"
        ))),
        Err(error) => Err(Failure(format!("error: cannot write {shown}: {error}\n"))),
    }
}
