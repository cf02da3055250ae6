//! An allocator that counts, for this test only, and the thread that tells what it has counted.
#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::proxy::COUNTER;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes on to the system's allocator as it came; counting touches nothing else.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, len) }
    }
}

/// Tells how many allocations there were to whoever asks at the socket that [`COUNTER`] names.
pub(crate) fn answer_when_asked() {
    let path = std::env::var_os(COUNTER).expect("the socket is named");
    let mut asked = UnixStream::connect(path).expect("the test listens");
    std::thread::spawn(move || {
        // Answering allocates nothing itself.
        while asked.read_exact(&mut [0]).is_ok() {
            let count = ALLOCATIONS.load(Ordering::SeqCst).to_be_bytes();
            if asked.write_all(&count).is_err() {
                break;
            }
        }
    });
}
