//! `tidegate run`: from the configuration to a process that serves, and to its end.

use std::process::ExitCode;
use std::rc::Rc;
use std::thread::{self, JoinHandle};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;

use super::{DRAIN_CUT, Failure, banner};
use crate::lifecycle::control::{self, Control, Started};
use crate::lifecycle::memory;
use crate::lifecycle::signals::Signals;
use crate::lifecycle::source::{Read, Source};
use crate::lifecycle::supervisor::Supervisor;
use crate::listener::inherited::Inherited;
use crate::random::random;
use crate::telemetry::{log, record};

/// Runs until a signal ends it.
pub(super) fn run(source: Source) -> Result<ExitCode, Failure> {
    // Before there is any thread, and any descriptor of our own.
    let inherited = Inherited::from_environment();
    let supervisor = Supervisor::from_environment();
    let Read { config, warnings } = source
        .read()
        .map_err(|faults| Failure(format!("{faults}nothing was started: see above\n")))?;
    eprint!("{warnings}");
    log::start();
    raise_descriptor_limit();
    record::seed_ids(random());

    // Signals are listened for before anybody can be told that we are ready.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let signals = runtime.block_on(async { Signals::listen() })?;
    let Started { control, workers, writer, warnings } =
        runtime.block_on(async { control::start(source, config, inherited, supervisor) })?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let count = workers.len();
    banner::show(&control);
    tracing::info!(workers = count, "ready");
    control.say_ready();

    let (gone, all_gone) = oneshot::channel();
    let waiting = thread::spawn(move || {
        let cut = join(workers);
        // The receiver waits below; if it does not, the process is leaving anyway.
        let _ = gone.send(());
        cut
    });
    runtime.block_on(live(&control, signals, all_gone));
    let cut = waiting.join().unwrap_or(0);
    runtime.block_on(control.close_interface());
    // They hold the log, which ends with its last holder.
    drop((control, runtime));
    writer.finish();
    if cut > 0 {
        tracing::warn!(connections = cut, "left with connections that had to be cut");
        return Ok(ExitCode::from(DRAIN_CUT));
    }
    tracing::info!("left: everything had finished");
    Ok(ExitCode::SUCCESS)
}

/// Until all workers have gone, or are to be cut.
async fn live(control: &Rc<Control>, signals: Signals, all_gone: oneshot::Receiver<()>) {
    tokio::select! {
        () = control.clone().steer(signals) => {}
        never = control.show_life() => match never {},
        never = memory::give_back(control.running().limits.clone()) => match never {},
        _ = all_gone => {}
    }
}

/// Waits for the workers; returns how many connections had to be cut.
fn join(threads: Vec<JoinHandle<usize>>) -> usize {
    let mut cut = 0;
    for thread in threads {
        match thread.join() {
            Ok(left) => cut += left,
            Err(_) => {
                tracing::error!("a worker panicked, and its connections were cut");
                cut += 1;
            }
        }
    }
    cut
}

/// Two descriptors per session: takes as many as the system lets us have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit on descriptors stays as it is");
    }
}
