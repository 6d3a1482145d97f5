//! The spool's folder: segment files, appended to and read in order, deleted once everything in them is acknowledged.
//!
//! ```text
//! spool/lock                      held by the one gateway that uses the folder
//! spool/00000000000000000007.seg  sealed: read, acknowledged, deleted
//! spool/00000000000000000008.seg  active: appended to
//! spool/undeliverable             frames that feedback would never take, for people
//! spool/…07.damaged               what could not be read, or not to its end, for people
//! ```
//!
//! What is acknowledged is remembered in memory alone: after a kill some outcomes are sent again, and feedback knows them by id.
use super::frame::{self, Tail};
use segment::{Segment, passes, set_aside};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

mod segment;

/// Bytes of a segment before the next one is begun: large enough that files are rare, small enough to be read at once.
const SEGMENT: u64 = 4 << 20;

/// Bytes of an active segment, all acknowledged, before it is given up: below that a new file costs more than reading it again.
const WORTH_SEALING: u64 = 1 << 20;

/// Where a frame begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// Some payloads, and where to go on.
type Portion = (Vec<(Position, Vec<u8>)>, Position);

/// Why a folder cannot be a spool.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Stop the other one, or set another folder.
    #[error("{0} is held by another gateway: stop it, or set another [gateway] spool")]
    Held(PathBuf),
    /// Look at the disk, or set another folder.
    #[error(
        "{path} cannot be used as a spool: {source}; set another [gateway] spool, or `feedback = \"\"` to keep no outcomes"
    )]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
}

/// The folder, held.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    segments: BTreeMap<u64, Segment>,
    /// The newest segment's number. None comes twice: who reads or acknowledges knows a frame by it.
    last: u64,
    active: Option<(u64, File)>,
    unsynced: bool,
    _lock: File,
}

impl Files {
    /// Takes the folder, and finds what was left in it.
    ///
    /// # Errors
    /// When it is held, or cannot be written.
    pub(crate) fn open(folder: &Path) -> Result<Self, Unusable> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Unusable::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(at(folder))?;
        let lock_path = folder.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Unusable::Held(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(at(&lock_path)(source)),
        }
        let mut files = Self {
            folder: folder.to_owned(),
            segments: BTreeMap::new(),
            last: 0,
            active: None,
            unsynced: false,
            _lock: lock,
        };
        for entry in fs::read_dir(folder).map_err(at(folder))? {
            let path = entry.map_err(at(folder))?.path();
            let id = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
            if let (Some(id), Some("seg")) = (id, path.extension().and_then(|e| e.to_str())) {
                files.recover(id, &path).map_err(at(&path))?;
            }
        }
        // The proof that it can be written comes before a plan relies on it.
        files.rotate().map_err(at(folder))?;
        Ok(files)
    }

    /// Counts a segment's frames. What else lies in it is not read: nothing is appended behind it any more.
    fn recover(&mut self, id: u64, path: &Path) -> io::Result<()> {
        self.last = self.last.max(id);
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if passes(&error) => return Err(error),
            Err(error) => {
                tracing::error!(segment = %path.display(), %error, "a segment cannot be read and is set aside: look at the disk");
                return set_aside(path);
            }
        };
        let (payloads, end, tail) = frame::scan(&bytes);
        let rest = &bytes[end..];
        // A length that is damaged looks like a torn frame, and may hide thousands.
        let damaged = tail == Tail::Damaged || frame::hides(rest);
        match tail {
            Tail::Clean => {}
            Tail::Torn if !damaged => {
                tracing::warn!(segment = %path.display(), bytes = rest.len(), "passed over an outcome that was never wholly written")
            }
            Tail::Torn | Tail::Damaged => {
                tracing::error!(segment = %path.display(), whole_outcomes = payloads.len(), bytes = rest.len(), "a segment is damaged: what is whole of it is delivered, then it is set aside; look at the disk")
            }
        }
        if payloads.is_empty() {
            return if damaged {
                set_aside(path)
            } else {
                fs::remove_file(path)
            };
        }
        let mut segment = Segment {
            bytes: end as u64,
            damaged,
            ..Segment::default()
        };
        for payload in payloads {
            let (begins, bytes) = (payload.start - frame::HEADER, payload.len() + frame::HEADER);
            segment.wait_for(begins as u64, bytes as u64);
        }
        self.segments.insert(id, segment);
        Ok(())
    }

    fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id:020}.seg"))
    }

    /// Begins the next segment.
    fn rotate(&mut self) -> io::Result<()> {
        // First what can fail, and the new file last: one that `last` does not count would be in the way of every later try.
        self.sync()?;
        let id = self.last + 1;
        let file = OpenOptions::new().create_new(true).append(true).open(self.path(id))?;
        self.active = Some((id, file));
        self.last = id;
        self.segments.insert(id, Segment::default());
        Ok(())
    }

    /// Appends frames in one write. When it returns they are in the page cache, where a killed process cannot take them back.
    ///
    /// # Errors
    /// The operating system's; the segment is then as before, or is not written to again.
    pub(crate) fn append<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]> + Clone) -> io::Result<()> {
        let full = |id: &u64| self.segments.get(id).is_none_or(|s| s.bytes >= SEGMENT);
        if self.active.as_ref().is_none_or(|(id, _)| full(id)) {
            self.rotate()?;
        }
        let Some((id, file)) = &mut self.active else {
            return Err(io::Error::other("no active segment"));
        };
        let segment = self.segments.entry(*id).or_default();
        if let Err(error) = file.write_all(&frames.clone().collect::<Vec<_>>().concat()) {
            // Half a frame in the middle would end the reading there.
            if file.set_len(segment.bytes).is_err() {
                self.active = None;
            }
            return Err(error);
        }
        for frame in frames {
            segment.wait_for(segment.bytes, frame.len() as u64);
            segment.bytes += frame.len() as u64;
        }
        self.unsynced = true;
        Ok(())
    }

    /// Makes the next write fail, as a full disk does.
    #[cfg(test)]
    pub(crate) fn refuse_once(&mut self) {
        if let Some((id, file)) = &mut self.active {
            *file = File::open(self.folder.join(format!("{id:020}.seg"))).expect("there");
        }
    }

    /// Brings what was appended through a power cut.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let (true, Some((_, file))) = (self.unsynced, &self.active) {
            file.sync_data()?;
        }
        self.unsynced = false;
        Ok(())
    }

    /// Payloads from `from` on that are not acknowledged, at most `most`, and where to go on. What cannot be read is given up, or nothing
    /// behind it would ever arrive.
    ///
    /// # Errors
    /// The operating system's, where a later try may find what this one did not.
    pub(crate) fn read(&mut self, from: Position, most: usize) -> io::Result<Portion> {
        let (mut found, mut next, mut lost) = (Vec::new(), from, Vec::new());
        for (&id, segment) in self.segments.range(from.segment..) {
            let offset = if id == from.segment { from.offset } else { 0 };
            let at = |offset| Position { segment: id, offset };
            let path = self.path(id);
            match segment.read(&path, offset, most - found.len()) {
                Ok(read) => {
                    next = at(read.next);
                    found.extend(read.frames.into_iter().map(|(offset, payload)| (at(offset), payload)));
                    for offset in read.damaged {
                        tracing::error!(segment = %path.display(), offset, "an outcome in the spool is damaged and is passed over: look at the disk");
                        lost.push(at(offset));
                    }
                }
                Err(error) if passes(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(segment = %path.display(), outcomes = segment.waiting.len(), %error, "a segment cannot be read and is passed over: look at the disk");
                    next = at(segment.bytes);
                    lost.extend(segment.waiting.keys().map(|offset| at(*offset)));
                }
            }
            if found.len() >= most {
                break;
            }
        }
        self.give_up(&lost);
        Ok((found, next))
    }

    /// Waits no more for frames that cannot be read. Their file is set aside once the rest of it is delivered.
    fn give_up(&mut self, lost: &[Position]) {
        for Position { segment: id, .. } in lost {
            if let Some(segment) = self.segments.get_mut(id) {
                segment.damaged = true;
            }
            if self.active.as_ref().is_some_and(|(active, _)| active == id) {
                // A restart reads no further than the damage: what comes from now on goes to another file.
                if let Err(error) = self.sync() {
                    tracing::warn!(%error, "the last outcomes are not synced");
                }
                self.active = None;
            }
        }
        self.acknowledge(lost);
    }

    /// Notes acknowledgements, and deletes the segments that have nothing else.
    pub(crate) fn acknowledge(&mut self, positions: &[Position]) {
        for position in positions {
            if let Some(segment) = self.segments.get_mut(&position.segment) {
                segment.acknowledge(position.offset);
            }
        }
        let active = self.active.as_ref().map(|(id, _)| *id);
        let spent =
            |(id, s): (&u64, &Segment)| (s.done() && (active != Some(*id) || s.bytes >= WORTH_SEALING)).then_some(*id);
        let spent: Vec<u64> = self.segments.iter().filter_map(spent).collect();
        for id in spent {
            if active == Some(id) && self.rotate().is_err() {
                continue;
            }
            self.remove(id);
        }
    }

    /// Moves what can never be delivered out of the way. It is on disk in its new place before it leaves the old one; a kill between
    /// the two, or before its segment is deleted, has it there twice.
    ///
    /// # Errors
    /// The operating system's; it then stays where it was.
    pub(crate) fn set_aside(&mut self, undeliverable: &[(Position, Vec<u8>)]) -> io::Result<PathBuf> {
        let path = self.folder.join("undeliverable");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let before = file.metadata()?.len();
        let mut frames = Vec::new();
        for (_, payload) in undeliverable {
            frame::write(payload, &mut frames);
        }
        if let Err(error) = file.write_all(&frames).and_then(|()| file.sync_data()) {
            // Half a frame would end the reading there, for people too.
            drop(file.set_len(before));
            return Err(error);
        }
        let positions: Vec<Position> = undeliverable.iter().map(|(at, _)| *at).collect();
        self.acknowledge(&positions);
        Ok(path)
    }

    fn remove(&mut self, id: u64) {
        let path = self.path(id);
        let damaged = self.segments.remove(&id).is_some_and(|segment| segment.damaged);
        match if damaged {
            set_aside(&path)
        } else {
            fs::remove_file(&path)
        } {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(segment = id, %error, "cannot move a segment that is done with out of the way; it will be delivered again after a restart")
            }
        }
    }

    /// Bytes that wait. What is acknowledged and still lies in a file that is appended to does not: it goes with that file.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|s| s.waiting_bytes).sum()
    }

    /// Outcomes that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.segments.values().map(|s| s.waiting.len() as u64).sum()
    }
}

impl Drop for Files {
    /// Leaves no file behind that says nothing.
    fn drop(&mut self) {
        if let Err(error) = self.sync() {
            tracing::warn!(%error, "the last outcomes are not synced");
        }
        self.active = None;
        let done: Vec<u64> = self
            .segments
            .iter()
            .filter(|(_, s)| s.done())
            .map(|(id, _)| *id)
            .collect();
        done.into_iter().for_each(|id| self.remove(id));
    }
}

#[cfg(test)]
mod tests;
