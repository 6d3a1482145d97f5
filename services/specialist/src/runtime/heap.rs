//! Gives freed memory back to the operating system.
//!
//! A model is freed in thousands of pieces, from other threads than those that asked for them, and glibc keeps what is free in the
//! middle of its arenas for later. A process that had switched versions sixty times held 572 MB of a model (4.6 million parameters)
//! that took 185 MB after a trim. And a load asks for more than it keeps: the graph before and after each optimisation.

/// Has the allocator return every page that is wholly free. It takes milliseconds, during which other threads may wait for it: to be
/// called when a model has come or gone, on a thread that may block.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    // SAFETY: malloc_trim takes a number and no pointer, touches only pages that the allocator knows to be free, takes the
    // allocator's own locks, and may be called on any thread at any time (malloc_trim(3): MT-Safe). 0 keeps no page in reserve.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Other allocators have no such call, or need none.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}
