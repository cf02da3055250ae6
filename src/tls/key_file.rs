//! Who besides its owner may read the file of a private key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Anything for others, and writing for the group. The group may read: so Debian's `ssl-cert` and
/// many an ACME client share a key with those who serve it.
const TOO_MUCH: u32 = 0o027;

/// A private key that is not private.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the private key {path} is open to others than its owner (mode {mode:04o})",
    path = path.display()
)]
pub struct Exposed {
    /// Which file.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
}

impl Exposed {
    /// What is to be done about it.
    pub fn way_out(&self) -> String {
        format!("chmod 600 {}, or 640 to share it with a group", self.path.display())
    }
}

/// Whether the file may be a private key's. One that cannot be looked at is nobody's secret yet.
///
/// # Errors
///
/// [`Exposed`] where it is open to others.
pub fn check(path: &Path) -> Result<(), Exposed> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let mode = found.permissions().mode() & 0o7777;
    if mode & TOO_MUCH == 0 { Ok(()) } else { Err(Exposed { path: path.into(), mode }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_its_owner_and_perhaps_a_group_to_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.key");
        fs::write(&path, "").expect("the folder is ours");
        for (mode, is_private) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o700, true),
            (0o660, false),
            (0o644, false),
            (0o604, false),
            (0o602, false),
            (0o601, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!(check(&path).is_ok(), is_private, "{mode:o}");
        }
        assert_eq!(check(&folder.path().join("none.key")), Ok(()));
    }
}
