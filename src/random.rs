//! Numbers for jitter and balancing; not for secrets.

use std::hash::{BuildHasher as _, RandomState};

/// A number nobody can foresee well enough to matter: for jitter and balancing, not for secrets.
pub fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}
