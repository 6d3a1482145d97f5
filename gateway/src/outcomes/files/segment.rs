//! One segment file: which of its frames are waited for, how they are read, and what becomes of a file that cannot be.
use crate::outcomes::frame;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// ENOMEM, ENFILE and EMFILE, the same on every Unix.
const SHORT_OF: [i32; 3] = [12, 23, 24];

#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    /// Frames that are not acknowledged: where each begins, and its bytes.
    pub(super) waiting: BTreeMap<u64, u64>,
    /// The sum of those: it is asked for at every write.
    pub(super) waiting_bytes: u64,
    /// Something in the file cannot be read: people get it, once the rest is delivered.
    pub(super) damaged: bool,
}

/// What was read of a segment.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Where each frame begins, and its payload.
    pub(super) frames: Vec<(u64, Vec<u8>)>,
    /// Where frames begin that are not as they were written.
    pub(super) damaged: Vec<u64>,
    /// Where to go on.
    pub(super) next: u64,
}

impl Segment {
    pub(super) fn done(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn wait_for(&mut self, offset: u64, bytes: u64) {
        self.waiting.insert(offset, bytes);
        self.waiting_bytes += bytes;
    }

    pub(super) fn acknowledge(&mut self, offset: u64) {
        self.waiting_bytes -= self.waiting.remove(&offset).unwrap_or(0);
    }

    /// At most `most` of the frames from `from` on that are waited for. Where they begin is known: one that is damaged hides none behind it.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn read(&self, path: &Path, from: u64, most: usize) -> io::Result<Found> {
        let mut found = Found {
            next: from,
            ..Found::default()
        };
        let mut waiting = self.waiting.range(from..).peekable();
        if waiting.peek().is_none() {
            return Ok(found);
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(self.bytes - from).read_to_end(&mut bytes)?;
        for (begins, length) in waiting {
            if found.frames.len() >= most {
                break;
            }
            match frame::read(&bytes, (begins - from) as usize) {
                Ok(payload) => found.frames.push((*begins, bytes[payload].to_vec())),
                Err(_) => found.damaged.push(*begins),
            }
            found.next = begins + length;
        }
        Ok(found)
    }
}

/// Whether the process is short of something for the moment: that says nothing of the file.
pub(super) fn passes(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| SHORT_OF.contains(&code))
}

/// Puts a segment where only people look.
///
/// # Errors
/// The operating system's; it then stays where it was.
pub(super) fn set_aside(segment: &Path) -> io::Result<()> {
    let kept = aside(segment);
    fs::rename(segment, &kept)?;
    tracing::warn!(kept = %kept.display(), "set a segment aside: it may hold outcomes that feedback never got");
    Ok(())
}

/// A name for it that is free: segments' numbers come again, and what was set aside before is not written over.
fn aside(segment: &Path) -> PathBuf {
    let taken = |n: &u32| segment.with_extension(format!("{n}.damaged")).exists();
    match segment.with_extension("damaged") {
        first if first.exists() => {
            let n = (2..).find(|n| !taken(n)).unwrap_or_default();
            segment.with_extension(format!("{n}.damaged"))
        }
        first => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_may_open_no_more_files_gives_up_none_of_them() {
        let codes = [12, 23, 24, 5, 2];
        let passing = codes.map(|code| passes(&io::Error::from_raw_os_error(code)));
        assert_eq!(passing, [true, true, true, false, false]);
    }
}
