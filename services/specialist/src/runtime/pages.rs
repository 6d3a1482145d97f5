//! Weights in huge pages.
//!
//! Decoding one row reads every weight once a token. In pages of 4 KiB a hundred megabytes of them are 25,000 entries of the page table, of which
//! the processor remembers some thousands: with 2 MiB a page, a decoder of 25 M parameters went from 240 to 340 tokens/s on the two cores of
//! an AMD EPYC, and 16 rows of it from 880 to 1040. Linux gives such pages by itself only where the whole machine is set up for it, and to
//! memory that is asked for in large pieces; so what is there once a model has loaded is asked for, as it is.
use std::ops::Range;

/// A huge page, on x86-64 and on arm64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;

const PAGE: usize = 4 << 10;

/// Pages of a huge page that must be there already: it takes the place of them all, and what was not there would take memory for nothing.
const THERE: usize = HUGE / PAGE / 16 * 15;

/// Puts what this process holds in memory of its own into huge pages, where all of one is in use. Some milliseconds for each ten megabytes, during
/// which other threads go on. Where the operating system has none to give, or cannot do so, everything stays as it is.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn gather() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for mapping in maps.lines().filter_map(own) {
        for range in runs(whole(mapping), is_there) {
            // SAFETY: both calls change which pages hold the bytes of the range and none of the bytes, whatever is mapped there by now; what
            // is mapped no more is an error and no harm.
            let _ = unsafe {
                libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_HUGEPAGE);
                libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_COLLAPSE)
            };
        }
    }
}

/// Elsewhere there is no such call.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn gather() {}

/// Whether nearly all of a huge page is there.
#[cfg(all(target_os = "linux", not(miri)))]
fn is_there(start: usize) -> bool {
    let mut there = [0u8; HUGE / PAGE];
    // SAFETY: writes a byte a page of the range into `there`, which has as many; a range that is mapped no more is an error.
    let asked = unsafe { libc::mincore(start as *mut libc::c_void, HUGE, there.as_mut_ptr()) };
    asked == 0 && there.iter().filter(|page| **page & 1 == 1).count() >= THERE
}

/// Of a line of /proc/PID/maps the addresses, if it is memory of the process's own: private, writable, of no file, and no stack.
fn own(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let (_offset, _device, inode, name) = (fields.next()?, fields.next()?, fields.next()?, fields.next());
    let (start, end) = range.split_once('-')?;
    let (start, end) = (
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
    );
    let own = permissions.starts_with("rw") && permissions.ends_with('p') && inode == "0";
    (own && name.is_none_or(|name| name == "[heap]") && start < end).then_some(start..end)
}

/// The starts of the huge pages that lie in a mapping.
fn whole(mapping: Range<usize>) -> impl Iterator<Item = usize> {
    (mapping.start.next_multiple_of(HUGE)..mapping.end)
        .step_by(HUGE)
        .take_while(move |start| start + HUGE <= mapping.end)
}

/// Neighbours that are `so`, each run of them in one range: a call costs as much for many pages as for one.
fn runs(starts: impl Iterator<Item = usize>, so: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for start in starts.filter(|start| so(*start)) {
        match runs.last_mut() {
            Some(last) if last.end == start => last.end += HUGE,
            _ => runs.push(start..start + HUGE),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_process_alone_is_meant() {
        assert_eq!(
            own("7f0000000000-7f0000400000 rw-p 00000000 00:00 0 "),
            Some(0x7f00_0000_0000..0x7f00_0040_0000)
        );
        assert!(own("55e0-55f0 rw-p 00000000 00:00 0   [heap]").is_some());
        for other in [
            "7ffe0000-7fff0000 rw-p 00000000 00:00 0   [stack]",
            "7f0000000000-7f0000400000 r--p 00000000 00:00 0",
            "7f0000000000-7f0000400000 rw-s 00000000 00:01 0",
            "7f0000000000-7f0000400000 rw-p 00000000 fe:00 77   /usr/lib/libc.so.6",
            "not a mapping",
            "",
        ] {
            assert_eq!(own(other), None, "{other}");
        }
    }

    #[test]
    fn neighbours_are_one_range_and_the_edges_of_a_mapping_none() {
        let starts: Vec<usize> = whole(HUGE / 2..5 * HUGE + 7).collect();
        assert_eq!(starts, [HUGE, 2 * HUGE, 3 * HUGE, 4 * HUGE]);
        assert_eq!(
            runs(starts.into_iter(), |start| start != 3 * HUGE),
            [HUGE..3 * HUGE, 4 * HUGE..5 * HUGE]
        );
        assert_eq!(whole(1..HUGE + 1).count(), 0);
    }

    #[test]
    fn what_is_gathered_keeps_its_bytes() {
        let bytes: Vec<u8> = (0..8 * HUGE).map(|i| (i / PAGE % 251) as u8).collect();
        gather();
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(i, byte)| *byte == (i / PAGE % 251) as u8)
        );
    }
}
