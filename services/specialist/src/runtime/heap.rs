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

/// Blocks from this size on are asked of the operating system one by one, and go back when they are freed: weights, caches, the graph while it
/// is read. glibc begins so at 128 KiB, and with each such block that is freed it keeps larger ones in its arenas, so that after a few versions
/// none comes back; a threshold that is set stays.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES: i32 = 1 << 20;

/// Arenas for what is smaller. glibc makes up to eight a core, and each version is loaded by whichever thread is free, out of that thread's
/// arena: over a hundred switches a process that takes 105 MB wandered between 105 and 137, with one arena between 105 and 110. Threads share its
/// lock for what is over a kilobyte; a request asks for some dozens of those. That costs: classifying a short text took 188 us of processor time
/// instead of 324 with mimalloc for all but ONNX Runtime, but fifty switches then left up to 15 % more resident, in heaps of threads that had gone quiet.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: i32 = 1;

/// Sets the allocator up for models that come and go. To be called before there are threads, since those that have an arena keep it, and before
/// the first model is loaded; again does nothing more.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn settle() {
    for (what, number) in [(libc::M_MMAP_THRESHOLD, OWN_PAGES), (libc::M_ARENA_MAX, ARENAS)] {
        // SAFETY: mallopt takes two numbers and no pointer, and may be called at any time (mallopt(3)).
        let _ = unsafe { libc::mallopt(what, number) };
    }
}

/// Other allocators have no such settings, or need none.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn settle() {}

/// Other allocators have no such call, or need none.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}
