//! Weights in huge pages.
//!
//! Decoding one row reads every weight once a token. In pages of 4 KiB a hundred megabytes of them are 25,000 entries of the page table, of which
//! the processor remembers some thousands: with 2 MiB a page, a decoder of 25 M parameters went from 240 to 340 tokens/s on the two cores of
//! an AMD EPYC, and 16 rows of it from 880 to 1040. Linux gives such pages by itself only where the whole machine is set up for it, and to
//! memory that is asked for in large pieces; so what is there once a model has loaded is asked for, as it is.
use std::{io, ops::Range};

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
            // SAFETY: either call changes which pages hold the bytes of the range and none of the bytes, whatever is mapped there by now; what
            // is mapped no more is an error and no harm.
            let ask = |advice| unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), advice) };
            // What is gathered at once needs no mark. A marked range would be filled up again, 2 MiB for the first byte that is touched, by
            // whatever comes to lie there once this model has gone: that is for a Linux before 6.1, which knows only the mark.
            if ask(libc::MADV_COLLAPSE) != 0 && io::Error::last_os_error().kind() == io::ErrorKind::InvalidInput {
                ask(libc::MADV_HUGEPAGE);
            }
        }
    }
}

/// Elsewhere there is no such call.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn gather() {}

/// Lets go of the code that is mapped: reading, optimising and proving a graph ran through most of ONNX Runtime, some 20 MB, and serving it runs
/// through a fraction. What runs again comes back from the page cache, a few microseconds a piece.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn let_go_of_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for code in maps.lines().filter_map(code) {
        // SAFETY: pages of a private mapping of a file that cannot be written to hold what the file holds (relocations are in other mappings), and
        // are read from it again when they are touched; what is mapped no more is an error and no harm.
        let _ = unsafe { libc::madvise(code.start as *mut libc::c_void, code.len(), libc::MADV_DONTNEED) };
    }
}

/// Elsewhere there is no such call.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn let_go_of_code() {}

/// Whether nearly all of a huge page is there.
#[cfg(all(target_os = "linux", not(miri)))]
fn is_there(start: usize) -> bool {
    let mut there = [0u8; HUGE / PAGE];
    // SAFETY: writes a byte a page of the range into `there`, which has as many; a range that is mapped no more is an error.
    let asked = unsafe { libc::mincore(start as *mut libc::c_void, HUGE, there.as_mut_ptr()) };
    asked == 0 && there.iter().filter(|page| **page & 1 == 1).count() >= THERE
}

/// A line of /proc/PID/maps.
struct Mapping<'a> {
    range: Range<usize>,
    permissions: &'a str,
    of_file: bool,
    name: Option<&'a str>,
}

impl<'a> Mapping<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (range, permissions) = (fields.next()?, fields.next()?);
        let (_offset, _device, inode, name) = (fields.next()?, fields.next()?, fields.next()?, fields.next());
        let (start, end) = range.split_once('-')?;
        Some(Self {
            range: usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?,
            permissions,
            of_file: inode != "0",
            name,
        })
    }
}

/// Of a line of /proc/PID/maps the addresses, if it is memory of the process's own: private, writable, of no file, and no stack.
fn own(line: &str) -> Option<Range<usize>> {
    let mapping = Mapping::of(line)?;
    let own = mapping.permissions.starts_with("rw") && mapping.permissions.ends_with('p') && !mapping.of_file;
    (own && mapping.name.is_none_or(|name| name == "[heap]")).then_some(mapping.range)
}

/// The same, if it is code: of a file, private, and not to be written to.
fn code(line: &str) -> Option<Range<usize>> {
    let mapping = Mapping::of(line)?;
    (mapping.of_file && mapping.permissions == "r-xp").then_some(mapping.range)
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
    fn code_is_of_a_file_and_never_written_to() {
        let line = |permissions: &str, inode: &str| {
            format!("1000-3000 {permissions} 00000000 fe:00 {inode}   /usr/lib/libc.so.6")
        };
        assert_eq!(code(&line("r-xp", "77")), Some(0x1000..0x3000));
        for (permissions, inode) in [("rwxp", "77"), ("r--p", "77"), ("rw-p", "77"), ("r-xp", "0")] {
            assert_eq!(code(&line(permissions, inode)), None, "{permissions} {inode}");
        }
        let_go_of_code();
        assert_eq!(code("and it still runs"), None);
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
