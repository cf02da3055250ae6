//! Counts the system calls of one thread of another process (ptrace(2)).

use std::collections::HashMap;
use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The calls that read from a socket, by number; `read` is for what wakes a worker.
pub(crate) const READ: &[i64] = &[libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_readv];
/// Those that write to one.
pub(crate) const WRITTEN: &[i64] = &[libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_writev];
/// Those that wait for something to do.
#[cfg(target_arch = "x86_64")]
pub(crate) const WAITED: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
/// Those that wait for something to do.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const WAITED: &[i64] = &[libc::SYS_epoll_pwait];

/// A thread whose calls are counted. It ends with us.
pub(crate) struct Traced {
    calls: Arc<Mutex<HashMap<i64, u64>>>,
}

impl Traced {
    /// Counts from now on.
    pub(crate) fn attach(thread: i32) -> Self {
        let calls = Arc::new(Mutex::new(HashMap::new()));
        let (ready, is_ready) = channel();
        let counted = calls.clone();
        // Only the thread that attaches may wait for the other one.
        std::thread::spawn(move || trace(Pid::from_raw(thread), &counted, || drop(ready)));
        wait(&is_ready);
        Self { calls }
    }

    /// How often each call was made, by its number.
    pub(crate) fn counts(&self) -> HashMap<i64, u64> {
        self.calls.lock().expect("nobody has panicked").clone()
    }
}

/// Returns when the other end is dropped.
fn wait(dropped: &Receiver<()>) {
    assert!(dropped.recv().is_err(), "nothing is sent");
}

fn trace(thread: Pid, calls: &Mutex<HashMap<i64, u64>>, ready: impl FnOnce()) {
    ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD).expect("our own child can be traced");
    ptrace::interrupt(thread).expect("it is traced");
    let mut ready = Some(ready);
    loop {
        let status = waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it can be waited for");
        match status {
            WaitStatus::PtraceSyscall(_) => {
                let info = ptrace::syscall_info(thread).expect("it is stopped at a call");
                if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                    // It may just have been killed with its process.
                    let Some(call) = number(thread) else { return };
                    *calls.lock().expect("nobody has panicked").entry(call).or_default() += 1;
                }
            }
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return,
            _ => {}
        }
        // It may have been killed meanwhile, which the next wait says.
        let _ = ptrace::syscall(thread, None);
        if let Some(ready) = ready.take() {
            ready();
        }
    }
}

/// The number of the call that the thread is stopped at (proc(5)), if it still is.
fn number(thread: Pid) -> Option<i64> {
    let text = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
    text.split(' ').next()?.trim().parse().ok()
}
