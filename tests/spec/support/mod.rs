//! The plumbing of the behaviour tests.
//!
//! [`proxy`] starts the real binary, [`wire`] is a connection on which every byte is in the test's hand, [`upstream`]
//! has what stands behind the proxy, [`certificates`] makes keys and chains, [`systemd`] is the other end of its
//! notification protocol, [`namespaces`] are networks apart, and [`programs`] runs the real clients.
//! Nothing here sleeps to let something happen: everything awaits an event, and [`within`] bounds the wait.

pub(crate) mod certificates;
pub(crate) mod frames;
pub(crate) mod namespaces;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod systemd;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::future::Future;
use std::time::Duration;

pub(crate) use proxy::{BOTH, Over, Proxy, Setup};
pub(crate) use upstream::{Served, Upstream};
pub(crate) use wire::{Ending, Response, Wire};

/// The longest that anything may take. Far more than it does, since two cores run everything at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45);

/// The output of `future`, or a panic that says what was being awaited.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?} for {what}"),
    }
}

/// Returns once `condition` holds: for what sends no event, such as a count of descriptors in `/proc`.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `length` bytes in which no two places look alike, the same for the same `seed`.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
