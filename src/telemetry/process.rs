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
    ProcessGauges {
        cpu,
        memory: resident_pages().unwrap_or(0) * page_size() as u64,
        descriptors: descriptors().unwrap_or(0),
        descriptors_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

fn descriptors() -> Option<u64> {
    // Since Linux 6.2 the folder's size says how many there are, which spares reading them all.
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let counted = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // Reading the folder takes one itself.
    Some(counted.saturating_sub(1))
}

fn resident_pages() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    statm.split_whitespace().nth(1)?.parse().ok()
}
