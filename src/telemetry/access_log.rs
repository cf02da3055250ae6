//! The access log: lines are gathered per worker, handed over in batches, and written by a thread
//! of its own, so that a slow disk or terminal never holds up traffic. What cannot be kept up
//! with is dropped, and how much is said.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};

use super::clock::{Clock, Stamp};
use super::metrics::Metrics;
use super::redact;
use crate::config::{self, LogFormat};

/// Batches that may wait for the writer: some seconds of little traffic, or 32 MiB of much.
const WAITING: usize = 128;
/// A batch is handed over at the latest `BATCH_AGE` after its first line, and when it has no room
/// for a long line any more. Batches of 64 KiB cost the log's thread twice as much for each line.
const BATCH_AGE: Duration = Duration::from_millis(50);
const BATCH_BYTES: usize = 256 * 1024;
const LONG_LINE: usize = 1024;
/// Buffers that are kept for the batches to come, when nothing is going on.
const SPARE: usize = 4;

/// The writing end; every worker makes a [`WorkerLog`] of it.
#[derive(Debug, Clone)]
pub struct AccessLog {
    batches: SyncSender<Batch>,
    spare: Arc<Spare>,
    dropped: Arc<AtomicU64>,
    style: Arc<ArcSwap<Style>>,
    /// Where the writer is to go on, if a reload says so.
    next: Arc<Mutex<Option<Out>>>,
}

/// How lines look.
#[derive(Debug)]
struct Style {
    format: LogFormat,
    /// Query keys whose values are secret, besides the usual ones.
    redact: Vec<String>,
}

/// Where lines go.
struct Out(Box<dyn Write + Send>);

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Out")
    }
}

/// A log that was opened, for [`AccessLog::adopt`].
#[derive(Debug)]
pub struct Opened {
    out: Out,
    style: Style,
}

/// Opens a log as it is configured.
///
/// # Errors
///
/// [`OpenError`] where the file cannot be opened.
pub fn open(log: &config::Log) -> Result<Opened, OpenError> {
    let (out, is_terminal): (Box<dyn Write + Send>, bool) = match &log.path {
        _ if log.format == Some(LogFormat::Off) => (Box::new(io::sink()), false),
        Some(path) => (Box::new(append_to(path)?), false),
        None => (Box::new(io::stdout()), io::stdout().is_terminal()),
    };
    let format = log.format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    Ok(Opened { out: Out(out), style: Style { format, redact: log.redact.clone() } })
}

impl AccessLog {
    /// Goes on with a log that was opened anew: the same file, which may have been moved away, or
    /// another one.
    pub fn adopt(&self, opened: Opened) {
        self.style.store(Arc::new(opened.style));
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened.out);
    }
}

#[derive(Debug, Default)]
struct Batch {
    lines: Vec<u8>,
    count: u64,
}

/// Buffers of batches that are written, for those that come: so that they are not made on one
/// thread and freed on another, from which glibc has to gather them again, nor grown from nothing.
#[derive(Debug)]
struct Spare(Mutex<Vec<Vec<u8>>>);

impl Default for Spare {
    fn default() -> Self {
        // Nothing is allocated when the first comes back, some time after the line it was for.
        Self(Mutex::new(Vec::with_capacity(SPARE)))
    }
}

impl Spare {
    /// One of them, or one that is made with so much room.
    fn take(&self, room: usize) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(room))
    }

    fn put_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Not one that an endless path has made large.
        if kept.len() < SPARE && buffer.capacity() <= 2 * BATCH_BYTES {
            kept.push(buffer);
        }
    }
}

/// The thread that writes; it ends when the last [`AccessLog`] is gone.
#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<()>,
    is_done: Receiver<()>,
}

/// How long the process waits at its end for a log that nobody reads.
const LAST_LINES: Duration = Duration::from_secs(2);

impl Writer {
    /// Waits until everything is written, within reason.
    pub fn finish(self) {
        if self.is_done.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("nobody reads the access log; its last lines are lost");
        } else if self.thread.join().is_err() {
            tracing::error!("the access log's thread panicked; lines may be missing");
        }
    }
}

/// The file of the access log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot append to the access log {path}: {source}", path = path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// Starts the log's thread. What it cannot keep up with is added to `dropped_in_all`.
///
/// # Errors
///
/// What the system says to a new thread.
pub fn start(opened: Opened, dropped_in_all: Arc<AtomicU64>) -> io::Result<(AccessLog, Writer)> {
    let (sender, receiver) = sync_channel(WAITING);
    let (done, is_done) = sync_channel(1);
    let log = AccessLog {
        batches: sender,
        spare: Arc::default(),
        dropped: Arc::default(),
        style: Arc::new(ArcSwap::from_pointee(opened.style)),
        next: Arc::default(),
    };
    let (spare, dropped) = (log.spare.clone(), log.dropped.clone());
    let (next, out) = (log.next.clone(), opened.out);
    let thread = thread::Builder::new().name("access-log".into()).spawn(move || {
        write_all(&receiver, out, &next, &spare, &dropped, &dropped_in_all);
        // Dropped in any case, which says the same.
        let _ = done.send(());
    })?;
    Ok((log, Writer { thread, is_done }))
}

fn append_to(path: &PathBuf) -> Result<File, OpenError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| OpenError { path: path.clone(), source })
}

fn write_all(
    batches: &Receiver<Batch>,
    mut out: Out,
    next: &Mutex<Option<Out>>,
    spare: &Spare,
    dropped: &AtomicU64,
    dropped_in_all: &AtomicU64,
) {
    let mut is_failing = false;
    while let Ok(batch) = batches.recv() {
        if let Some(next) = next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            out = next;
        }
        let written = out.0.write_all(&batch.lines).and_then(|()| out.0.flush());
        match written {
            Ok(()) => is_failing = false,
            Err(error) => {
                dropped.fetch_add(batch.count, Ordering::Relaxed);
                if !is_failing {
                    tracing::error!(%error, "the access log cannot be written");
                }
                is_failing = true;
            }
        }
        spare.put_back(batch.lines);
        let lost = dropped.swap(0, Ordering::Relaxed);
        dropped_in_all.fetch_add(lost, Ordering::Relaxed);
        if lost > 0 && !is_failing {
            tracing::warn!(lines = lost, "the access log could not keep up: lines were dropped");
        }
    }
}

/// One worker's end of the access log. Not `Sync`: lines are gathered without a lock.
#[derive(Debug)]
pub struct WorkerLog {
    log: AccessLog,
    /// Looked at for every line: cached, that costs no more than to see that it is the same.
    style: RefCell<Cache<Arc<ArcSwap<Style>>, Arc<Style>>>,
    /// What is counted besides, and the number under which this worker counts it.
    metrics: Arc<Metrics>,
    worker: usize,
    batch: RefCell<Batch>,
    /// What a buffer is made for: all of a batch where the one before was one, as it would be copied
    /// several times to grow into it.
    room: Cell<usize>,
    /// Whether a task is waiting to hand over what there is then.
    is_awaited: Cell<bool>,
    clock: Clock,
}

impl WorkerLog {
    /// The end of the worker with this number.
    pub fn new(log: AccessLog, metrics: Arc<Metrics>, worker: usize) -> Rc<Self> {
        let style = RefCell::new(Cache::new(log.style.clone()));
        let (batch, room, is_awaited) = (RefCell::default(), Cell::default(), Cell::default());
        let clock = Clock::new();
        Rc::new(Self { log, style, metrics, worker, batch, room, is_awaited, clock })
    }

    /// How lines are to look.
    pub(super) fn format(&self) -> LogFormat {
        self.style.borrow_mut().load().format
    }

    /// What is counted besides.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The number under which this worker counts.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The time, as lines have it.
    pub(super) fn now(&self) -> Stamp {
        self.clock.now()
    }

    /// A path and query without its secrets.
    pub(super) fn redacted<'a>(&self, path_and_query: &'a str) -> Cow<'a, str> {
        redact::query(path_and_query, &self.style.borrow_mut().load().redact)
    }

    /// Adds a line, which `write` appends without its end. Must be called within the worker's
    /// runtime, which hands the batch over a moment later.
    pub(super) fn line(self: &Rc<Self>, write: impl FnOnce(&mut Vec<u8>)) {
        let is_full = {
            let mut batch = self.batch.borrow_mut();
            if batch.count == 0 {
                batch.lines = self.log.spare.take(self.room.get());
            }
            write(&mut batch.lines);
            batch.lines.push(b'\n');
            batch.count += 1;
            is_whole(&batch.lines)
        };
        if is_full {
            self.hand_over();
        } else if !self.is_awaited.get() && tokio::runtime::Handle::try_current().is_ok() {
            self.is_awaited.set(true);
            let log = self.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(BATCH_AGE).await;
                log.is_awaited.set(false);
                log.hand_over();
            });
        }
    }

    /// Gives what has been gathered to the writer.
    pub fn hand_over(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.count == 0 {
            return;
        }
        let full = std::mem::take(&mut *batch);
        self.room.set(if is_whole(&full.lines) { BATCH_BYTES } else { 0 });
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) =
            self.log.batches.try_send(full)
        {
            self.log.dropped.fetch_add(batch.count, Ordering::Relaxed);
            self.log.spare.put_back(batch.lines);
        }
    }
}

fn is_whole(lines: &[u8]) -> bool {
    lines.len() > BATCH_BYTES - LONG_LINE
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, for a test to look at.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start_with(out: impl Write + Send + 'static) -> (AccessLog, Writer, Arc<AtomicU64>) {
        let style = Style { format: LogFormat::Json, redact: Vec::new() };
        let dropped = Arc::<AtomicU64>::default();
        let opened = Opened { out: Out(Box::new(out)), style };
        let (log, writer) = start(opened, dropped.clone()).expect("a thread");
        (log, writer, dropped)
    }

    fn worker_log(log: &AccessLog) -> Rc<WorkerLog> {
        WorkerLog::new(log.clone(), Metrics::new(1), 0)
    }

    #[test]
    fn no_line_is_lost_or_written_twice_while_buffers_go_round() {
        let written = Written::default();
        let (log, writer, dropped) = start_with(written.clone());
        let worker = worker_log(&log);
        let mut expected = String::new();
        for at in 0..10_000 {
            let line = format!("{at} {}", "x".repeat(at % 97));
            worker.line(|out| out.extend(line.as_bytes()));
            expected += &format!("{line}\n");
            if at % 1_000 == 0 {
                worker.hand_over();
            }
        }
        drop((worker, log));
        writer.finish();
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        assert!(*written.0.lock().expect("not poisoned") == expected.as_bytes());
    }

    #[test]
    fn few_buffers_are_kept_and_no_large_one() {
        let spare = Spare::default();
        for _ in 0..2 * SPARE {
            spare.put_back(b"a line\n".to_vec());
        }
        spare.put_back(Vec::with_capacity(4 * BATCH_BYTES));
        let kept: Vec<_> = (0..2 * SPARE).map(|_| spare.take(0)).collect();
        assert_eq!(kept.iter().filter(|buffer| buffer.capacity() > 0).count(), SPARE);
        assert!(kept.iter().all(Vec::is_empty));

        spare.put_back(Vec::with_capacity(4 * BATCH_BYTES));
        assert_eq!(spare.take(0).capacity(), 0);
    }
}
