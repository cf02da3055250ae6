//! Numbers for jitter and balancing, and bytes that nobody can foresee.

use std::hash::{BuildHasher as _, RandomState};

/// A number nobody can foresee well enough to matter: for jitter and balancing, not for secrets.
pub fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Bytes that nobody can foresee.
pub fn bytes() -> [u8; 8] {
    let mut bytes = [0; 8];
    // Where the system has no randomness at all, what the standard library drew at its start is
    // still better than a constant.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = random().to_ne_bytes();
    }
    bytes
}

/// The key of one masked frame: drawn afresh, and not to be foreseen (RFC 6455 §5.3).
pub fn masking_key() -> [u8; 4] {
    let [key @ .., _, _, _, _] = bytes();
    key
}
