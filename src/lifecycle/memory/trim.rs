//! The one thing we ask of the allocator that no safe crate asks for us.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "malloc_trim is a foreign function"))]

/// Has the allocator give back every page on which nothing is in use, of all threads: glibc by
/// itself does so at the end of its heap only, and an idle session that is still there is enough
/// for there to be nothing at the end.
#[cfg(target_env = "gnu")]
pub(super) fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time from any thread: it takes no pointer, holds
    // the lock of each arena while it looks through it, and gives back pages in the middle of free
    // blocks, which nobody may use. Its argument is what is left at the end of the heap. What it
    // answers is of no use to us: whether there was anything to be given back.
    unsafe { nix::libc::malloc_trim(0) };
}

/// Other allocators are left to themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn trim() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    const BYTES: usize = 16 << 20;

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("a number") * rustix::param::page_size()
    }

    #[test]
    fn what_was_freed_is_given_back() {
        let mut pieces: Vec<Vec<u8>> = (0..BYTES / 1024).map(|_| vec![1; 1024]).collect();
        // One that is left at the end.
        let last = pieces.pop();
        drop(pieces);
        let before = resident_bytes();
        trim();
        assert!(resident_bytes() + BYTES / 2 < before);
        drop(last);
    }
}
