//! Every broken file in `tests/config` prints the text that lies beside it.
//!
//! `UPDATE_GOLDEN=1 cargo test --test spec configuration` writes the texts anew; read them before you commit them.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::support::programs::Program;
use crate::support::proxy::TIDEGATE;

/// The broken files, in their order.
fn broken_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("tests/config is in the repository").flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

/// `check` prints each fault with its place, the line, a caret and the way out, and exits with 1.
#[tokio::test]
async fn every_broken_file_prints_its_faults() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for file in broken_files(&folder) {
        let name = file.file_name().expect("a file has a name");
        let mut command = Command::new(TIDEGATE);
        let mut check =
            Program::start(command.arg("check").arg("--config").arg(name).current_dir(&folder));
        let code = check.exited().await;
        let printed = check.stderr.text() + "\n";
        let golden = file.with_extension("txt");
        if update {
            std::fs::write(&golden, &printed).expect("the checkout can be written");
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        if (code, &printed) != (1, &wanted) {
            wrong.push(format!(
                "{name:?} exits with {code} and prints\n{printed}where {golden:?} says\n{wanted}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
