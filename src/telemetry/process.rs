//! What the kernel says of our process.

use std::fs;
use std::time::Duration;

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::metrics::ProcessGauges;

/// Asks the kernel. What it does not tell is 0.
pub fn gauges() -> ProcessGauges {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::new(
        u64::try_from(cpu.tv_sec).unwrap_or_default(),
        u32::try_from(cpu.tv_nsec).unwrap_or_default(),
    );
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    ProcessGauges {
        cpu,
        memory: resident_pages().unwrap_or(0) * page_size() as u64,
        // Reading the folder takes one itself.
        descriptors: descriptors.saturating_sub(1),
        descriptors_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

fn resident_pages() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    statm.split_whitespace().nth(1)?.parse().ok()
}
