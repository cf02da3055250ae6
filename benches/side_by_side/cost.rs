//! What a proxy has cost: CPU time and memory of all its processes, from `/proc`.

use std::collections::HashSet;
use std::io;
use std::ops::{Add, Sub};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPU time that a proxy's processes have used since they began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// `schedstat` of every thread: nanoseconds, but a thread that ends takes its share with it.
    by_threads: Duration,
    /// `utime + stime` of every process: hundredths of a second, ended threads included.
    by_ticks: Duration,
    /// How long the threads were ready to run while the core was busy with something else.
    waited: Duration,
}

/// What lies between two readings of [`Cpu`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuSpent {
    pub(crate) used: Duration,
    pub(crate) waited: Duration,
}

impl Add for Cpu {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            by_threads: self.by_threads + other.by_threads,
            by_ticks: self.by_ticks + other.by_ticks,
            waited: self.waited + other.waited,
        }
    }
}

impl Sub for Cpu {
    type Output = CpuSpent;

    fn sub(self, before: Self) -> CpuSpent {
        let by_threads = self.by_threads.saturating_sub(before.by_threads);
        let by_ticks = self.by_ticks.saturating_sub(before.by_ticks);
        // Ticks lag by up to two; when they are ahead by more, a thread has ended in between.
        let thread_ended = by_ticks > by_threads + Duration::from_millis(30);
        CpuSpent {
            used: if thread_ended { by_ticks } else { by_threads },
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// Reads what `process` and everything it started have used so far.
pub(crate) fn cpu(process: u32) -> io::Result<Cpu> {
    let mut cpu = Cpu::default();
    for process in family(process)? {
        cpu.by_ticks += ticks(&read(proc_path(process).join("stat"))?)?;
        for thread in threads(process)? {
            // A thread may end while we look.
            let Ok(text) = read(thread.join("schedstat")) else { continue };
            let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
            let (Some(Ok(used)), Some(Ok(waited))) = (fields.next(), fields.next()) else {
                return Err(io::Error::other(format!("schedstat reads `{text}`")));
            };
            cpu.by_threads += Duration::from_nanos(used);
            cpu.waited += Duration::from_nanos(waited);
        }
    }
    Ok(cpu)
}

/// Proportional set size of `process` and everything it started, in KiB: what they share with
/// each other is counted once, unlike in the resident set sizes that `top` shows.
pub(crate) fn pss_kib(process: u32) -> io::Result<f64> {
    let mut sum = 0.0;
    for process in family(process)? {
        let text = read(proc_path(process).join("smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next());
        sum += kib
            .and_then(|kib| kib.parse::<f64>().ok())
            .ok_or_else(|| io::Error::other("smaps_rollup has no Pss line"))?;
    }
    Ok(sum)
}

/// `process` and all its descendants: nginx works in a child of the process that was started.
pub(crate) fn family(process: u32) -> io::Result<HashSet<u32>> {
    let mut known = HashSet::new();
    let mut next = vec![process];
    while let Some(process) = next.pop() {
        if !known.insert(process) {
            continue;
        }
        for thread in threads(process)? {
            let children = read(thread.join("children")).unwrap_or_default();
            next.extend(
                children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    Ok(known)
}

fn threads(process: u32) -> io::Result<Vec<PathBuf>> {
    let folder = proc_path(process).join("task");
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// `utime + stime` from a line of `/proc/PID/stat`. Its second field, the name, may hold spaces.
fn ticks(stat: &str) -> io::Result<Duration> {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (fields.next(), fields.next()) else {
        return Err(io::Error::other(format!("stat reads `{stat}`")));
    };
    Ok(Duration::from_secs(user + system) / rustix::param::clock_ticks_per_second() as u32)
}

fn proc_path(process: u32) -> PathBuf {
    Path::new("/proc").join(process.to_string())
}

fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
