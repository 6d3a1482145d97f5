//! Which cores the process's threads run on, and after whom: `cpus` and `background` of its configuration.
//!
//! Linux keeps both for each thread, and a thread hands its own on to those that it starts. So every thread that there is is told, and looked
//! for again until none is new; whatever starts later (ONNX Runtime's, the engine's) has it from its starter. One thread may be spared the background:
//! a process that is behind others cannot come before them again, and its next version must be loaded in bounded time.
use std::{collections::BTreeSet, fs, io};

/// Passes over the process's threads. One that starts while a pass runs was started by one that had been told or is found in the next; a process
/// that starts threads faster than that is none of ours.
const PASSES: usize = 8;

/// The calling thread, as the operating system numbers it.
#[cfg(target_os = "linux")]
pub(crate) fn this_thread() -> i32 {
    // SAFETY: takes nothing, changes nothing, and cannot fail.
    unsafe { libc::gettid() }
}

/// Nothing is spared where nothing is confined.
#[cfg(not(target_os = "linux"))]
pub(crate) fn this_thread() -> i32 {
    0
}

/// Confines every thread of this process to `cpus` (all, if empty), and with `background` all but `spared` to what other processes leave of them.
///
/// # Errors
/// When the operating system refuses: no such core among those that the process may use, or a scheduler that it may not choose.
#[cfg(target_os = "linux")]
pub(crate) fn confine(cpus: &[usize], background: bool, spared: Option<i32>) -> io::Result<()> {
    if cpus.is_empty() && !background {
        return Ok(());
    }
    let mut told = BTreeSet::new();
    for _ in 0..PASSES {
        let mut news = false;
        for entry in fs::read_dir("/proc/self/task")? {
            let name = entry?.file_name();
            let Some(thread) = name.to_str().and_then(|n| n.parse::<libc::pid_t>().ok()) else {
                continue;
            };
            if told.insert(thread) {
                news = true;
                match one(thread, cpus, background && spared != Some(thread)) {
                    // It has ended since.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    done => done?,
                }
            }
        }
        if !news {
            break;
        }
    }
    Ok(())
}

/// Elsewhere there is no such call: what cannot be kept is refused.
///
/// # Errors
/// Whenever anything is asked for.
#[cfg(not(target_os = "linux"))]
pub(crate) fn confine(cpus: &[usize], background: bool, _: Option<i32>) -> io::Result<()> {
    match cpus.is_empty() && !background {
        true => Ok(()),
        false => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

#[cfg(target_os = "linux")]
fn one(thread: libc::pid_t, cpus: &[usize], background: bool) -> io::Result<()> {
    if !cpus.is_empty() {
        const BITS: usize = u64::BITS as usize;
        let mut set = [0u64; size_of::<libc::cpu_set_t>() / size_of::<u64>()];
        for cpu in cpus {
            *set.get_mut(cpu / BITS).ok_or(io::ErrorKind::InvalidInput)? |= 1 << (cpu % BITS);
        }
        // SAFETY: the pointer is to `size_of_val(&set)` readable bytes that live over the call, which only reads them; the kernel takes a set of
        // any length as words of bits, so u64 are right on both byte orders' 64-bit systems. The thread is named by number: one that is
        // gone is an error and no harm.
        let done = unsafe { libc::sched_setaffinity(thread, size_of_val(&set), set.as_ptr().cast()) };
        told(done)?;
    }
    if background {
        // SAFETY: a plain struct of integers, for which zero is the only priority that SCHED_IDLE takes.
        let parameter: libc::sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: reads one sched_param, which lives over the call. Leaving SCHED_OTHER for SCHED_IDLE is free to every process.
        let done = unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const parameter) };
        told(done)?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn told(done: libc::c_int) -> io::Result<()> {
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_there_is_refused_and_nothing_asked_is_nothing_done() {
        assert!(confine(&[], false, None).is_ok());
        assert!(confine(&[1023], false, None).is_err());
        assert!(confine(&[9999], false, None).is_err());
    }
}
