//! Which sequence is in which slot. Live rows are always slots `0..live`, so that one decode step binds one run of rows.

/// Live rows.
#[derive(Debug)]
pub struct Slots<T> {
    rows: Vec<T>,
    capacity: usize,
}

/// A row that ended, and what has to move into its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended<T> {
    /// The row.
    pub row: T,
    /// The slot whose content must be copied over the freed one before the next step; `None` if the last row ended.
    pub moved_from: Option<usize>,
}

impl<T> Slots<T> {
    /// `capacity` free slots.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            rows: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// The slot that the next row gets, if one is free.
    #[must_use]
    pub fn free(&self) -> Option<usize> {
        (self.rows.len() < self.capacity).then_some(self.rows.len())
    }

    /// Puts a row into the slot that [`Self::free`] named.
    ///
    /// # Errors
    /// Gives the row back when every slot is taken.
    pub fn begin(&mut self, row: T) -> Result<usize, T> {
        match self.free() {
            Some(slot) => {
                self.rows.push(row);
                Ok(slot)
            }
            None => Err(row),
        }
    }

    /// Ends the row in `slot`; the last live row takes its place.
    ///
    /// # Panics
    /// When `slot` holds no row.
    pub fn end(&mut self, slot: usize) -> Ended<T> {
        let last = self.rows.len() - 1;
        let row = self.rows.swap_remove(slot);
        Ended {
            row,
            moved_from: (slot != last).then_some(last),
        }
    }

    /// The live rows, by slot.
    #[must_use]
    pub fn rows(&self) -> &[T] {
        &self.rows
    }

    /// The live rows, by slot.
    pub fn rows_mut(&mut self) -> &mut [T] {
        &mut self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A model of the KV buffer goes along: what is in slot i is always what row i put there.
        #[test]
        fn no_slot_is_shared_leaked_or_left_behind(steps in prop::collection::vec((any::<bool>(), 0usize..8), 0..300)) {
            let mut slots: Slots<usize> = Slots::new(5);
            let mut buffer = [usize::MAX; 5];
            for (id, (begin, which)) in steps.into_iter().enumerate() {
                if begin {
                    let free = slots.free();
                    prop_assert_eq!(free.is_none(), slots.rows().len() == 5);
                    match slots.begin(id) {
                        Ok(slot) => { prop_assert_eq!(Some(slot), free); buffer[slot] = id; }
                        Err(back) => prop_assert_eq!(back, id),
                    }
                } else if !slots.rows().is_empty() {
                    let slot = which % slots.rows().len();
                    let wanted = slots.rows()[slot];
                    let ended = slots.end(slot);
                    prop_assert_eq!(ended.row, wanted);
                    if let Some(from) = ended.moved_from {
                        buffer[slot] = buffer[from];
                    }
                }
                prop_assert_eq!(slots.rows(), &buffer[..slots.rows().len()]);
                let mut distinct = slots.rows().to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), slots.rows().len());
            }
        }
    }
}
