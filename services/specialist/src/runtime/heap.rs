//! Two heaps, and how each gives freed memory back to the operating system.
//!
//! What Rust asks for comes from jemalloc ([`Allocator`]), what ONNX Runtime asks for from glibc. A model is freed in thousands of pieces, from
//! other threads than those that asked for them, and glibc keeps what is free in the middle of its arenas for later. A process that had switched
//! versions sixty times held 572 MB of a model (4.6 million parameters) that took 185 MB after a trim. And a load asks for more than it keeps:
//! the graph before and after each optimisation.
use std::ptr::null_mut;

/// What a binary that serves specialists has as its global allocator. glibc with the one arena that models need has a call's threads
/// wait for each other: classifying a short text took 324 us of processor time with it, and 188 with an allocator that keeps some of each size at
/// hand in each thread (mimalloc then; it keeps more of what a version leaves behind).
pub use tikv_jemallocator::Jemalloc as Allocator;

/// jemalloc reads this before anything asks for memory. One arena, so that what one version leaves is where the next one looks; pages that have been
/// free for a second go back. `_RJEM_MALLOC_CONF` in the environment has the last word.
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &u8 = &b"narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0\0"[0];

/// Has the allocator return every page that is wholly free. It takes milliseconds, during which other threads may wait for it: to be
/// called when a model has come or gone, on a thread that may block.
pub(crate) fn trim() {
    // What this thread keeps at hand, and then what is free in all arenas.
    for what in [c"thread.tcache.flush", c"arena.4096.purge"] {
        // SAFETY: neither reads or writes anything through its pointers, which may be null (jemalloc(3)), and either may be called at any time.
        let _ = unsafe { tikv_jemalloc_sys::mallctl(what.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
    }
    trim_glibc();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_glibc() {
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
/// lock for what is over a kilobyte.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: i32 = 1;

/// Sets glibc's up for models that come and go. To be called before there are threads, since those that have an arena keep it, and before
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
fn trim_glibc() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jemalloc_reads_the_settings_and_knows_the_calls() {
        let (mut arenas, mut bytes) = (0u32, size_of::<u32>());
        // SAFETY: writes four bytes to `arenas`, which has as many and of that kind (jemalloc(3): opt.narenas is an unsigned).
        let read = unsafe {
            tikv_jemalloc_sys::mallctl(
                c"opt.narenas".as_ptr(),
                (&raw mut arenas).cast(),
                &raw mut bytes,
                null_mut(),
                0,
            )
        };
        assert_eq!((read, arenas), (0, 1));
        trim();
    }
}
