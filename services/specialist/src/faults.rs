//! Whether a model's runtime is broken for good. A run that fails says nothing of it: a text may be what breaks the graph, and costs nobody else an
//! answer. But after an error that sticks to its device (an illegal address, memory that cannot be corrected, a device that is lost) every later run
//! of the process fails, while health goes on saying that it serves; what mends that is another process.

/// Runs that fail one after the other before a run that must work is tried.
const SUSPICIOUS: u32 = 4;

/// What has failed since a run last worked. Plain data.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    in_a_row: u32,
}

impl Faults {
    /// A run has ended.
    pub(crate) fn heard<T, E>(&mut self, ran: &Result<T, E>) {
        self.in_a_row = match ran {
            Ok(_) => 0,
            Err(_) => self.in_a_row.saturating_add(1),
        };
    }

    /// Whether so many failed that it is time for one that no text can break.
    pub(crate) fn are_suspicious(&self) -> bool {
        self.in_a_row >= SUSPICIOUS
    }
}
