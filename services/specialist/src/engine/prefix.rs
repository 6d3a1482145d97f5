//! Which prompt slot a prompt is read in, and what of it need not be read: prompts that begin alike (a system prompt, a list of tools)
//! share what was computed of their beginning. Plain data; the KV is where [`Prefixes`] says, in the decoder's prompt slots.
//!
//! A slot keeps what was read in it. A prompt takes the slot that was of no use for the longest time, and what another slot has of its
//! beginning is copied there. A prompt that was mostly copied is the first to go again: what it shares is still where it came
//! from, so that many prompts of one kind hold two slots, and not all.

/// Tokens that must be alike. The words with which a template opens are in every prompt of a task, and fewer than these; a run costs as much
/// as eight tokens anyway, so less would save next to nothing, and count as a hit all the same.
const LEAST_PREFIX: usize = 16;

/// What the prompt slots hold.
#[derive(Debug)]
pub struct Prefixes {
    slots: Vec<Slot>,
    /// The first prompt slot's number.
    first: usize,
    keeps: bool,
    /// Prompts so far.
    prompts: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// What is there, from the first position on.
    tokens: Vec<u32>,
    /// The last prompt that it was of use to; 0 for what may go first.
    used: u64,
    reading: bool,
}

/// Where a prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The prompt slot.
    pub slot: usize,
    /// Tokens of the prompt that need not be read; less than it has.
    pub past: usize,
    /// The slot that they must be copied from first; `None`: they are there.
    pub from: Option<usize>,
}

impl Prefixes {
    /// `slots` empty prompt slots from number `first` on. Unless it `keeps`, they are forgotten once they are read.
    #[must_use]
    pub fn new(first: usize, slots: usize, keeps: bool) -> Self {
        Self {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            first,
            keeps,
            prompts: 0,
        }
    }

    /// A slot for a prompt that was read elsewhere, to be copied to; `None` where nothing stays, or all are being read in.
    pub fn keep(&mut self, prompt: &[u32]) -> Option<usize> {
        if !self.keeps {
            return None;
        }
        let slot = self.begin(prompt)?.slot;
        // The copy is of the whole prompt, whatever of it another slot has.
        self.slots[slot - self.first].tokens.clear();
        Some(slot)
    }

    /// Takes a slot for a prompt; `None` if all are being read in.
    pub fn begin(&mut self, prompt: &[u32]) -> Option<Place> {
        let free = (0..self.slots.len()).filter(|i| !self.slots[*i].reading);
        let taken = free.min_by_key(|i| self.slots[*i].used)?;
        self.prompts += 1;
        // What is being read is final as far as it is read, and may be copied from.
        let (found, past) = self.longest(prompt).unwrap_or((taken, 0));
        if past > 0 {
            self.slots[found].used = self.prompts;
        }
        let mostly_copied = past > 0 && found != taken && past * 2 >= prompt.len();
        let slot = &mut self.slots[taken];
        slot.tokens.clear();
        slot.tokens.extend_from_slice(&prompt[..past]);
        slot.reading = true;
        slot.used = if mostly_copied { 0 } else { self.prompts };
        Some(Place {
            slot: self.first + taken,
            past,
            from: (past > 0 && found != taken).then_some(self.first + found),
        })
    }

    /// Whether something of the prompt's beginning is there.
    #[must_use]
    pub fn has(&self, prompt: &[u32]) -> bool {
        self.longest(prompt).is_some()
    }

    /// Which slot has most of the prompt's beginning, and how much. The last token is always read: its logits are what decoding begins with.
    fn longest(&self, prompt: &[u32]) -> Option<(usize, usize)> {
        let alike = |slot: &Slot| {
            let pairs = slot.tokens.iter().zip(&prompt[..prompt.len().saturating_sub(1)]);
            pairs.take_while(|(held, wanted)| held == wanted).count()
        };
        let found = self.slots.iter().map(alike).enumerate().max_by_key(|(_, n)| *n);
        found.filter(|(_, past)| self.keeps && *past >= LEAST_PREFIX)
    }

    /// `tokens` were read in `slot`, after what is there.
    pub fn read(&mut self, slot: usize, tokens: &[u32]) {
        self.slots[slot - self.first].tokens.extend_from_slice(tokens);
    }

    /// Nothing is read in `slot` any more; what was read stays for others.
    pub fn end(&mut self, slot: usize) {
        let keeps = self.keeps;
        let slot = &mut self.slots[slot - self.first];
        slot.reading = false;
        if !keeps {
            slot.tokens.clear();
        }
    }

    /// What is in `slot` is not known, after a run or a copy that failed; whoever reads in it begins anew.
    pub fn forget(&mut self, slot: usize) {
        let slot = &mut self.slots[slot - self.first];
        slot.tokens.clear();
        slot.used = 0;
    }

    /// Positions that hold something.
    #[must_use]
    pub fn held_tokens(&self) -> usize {
        self.slots.iter().map(|slot| slot.tokens.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prompt(beginning: u32, rest: u32) -> Vec<u32> {
        [vec![beginning; 20], vec![rest; 10]].concat()
    }

    /// Reads a whole prompt, and gives how much of it was there.
    fn read(prefixes: &mut Prefixes, prompt: &[u32]) -> usize {
        let place = prefixes.begin(prompt).expect("a slot is free");
        prefixes.read(place.slot, &prompt[place.past..]);
        prefixes.end(place.slot);
        place.past
    }

    #[test]
    fn a_beginning_is_read_once_and_the_least_recently_used_goes_first() {
        let mut prefixes = Prefixes::new(4, 3, true);
        let past: Vec<usize> = [1, 2, 1, 2, 1, 2, 1]
            .iter()
            .zip(10..)
            .map(|(b, r)| read(&mut prefixes, &prompt(*b, r)))
            .collect();
        assert_eq!(
            past,
            [0, 0, 20, 20, 20, 20, 20],
            "many prompts of one kind do not hold every slot"
        );
        assert_eq!(read(&mut prefixes, &prompt(3, 1)), 0);
        assert_eq!(
            read(&mut prefixes, &prompt(4, 1)),
            0,
            "it takes the place of 2, which was of no use for the longest time"
        );
        assert_eq!([1, 2].map(|b| read(&mut prefixes, &prompt(b, 50))), [20, 0]);
    }

    #[test]
    fn the_last_token_is_read_anew_and_a_short_beginning_is_no_hit() {
        let mut prefixes = Prefixes::new(0, 2, true);
        assert_eq!([(); 2].map(|()| read(&mut prefixes, &prompt(1, 2))), [0, 29]);
        assert_eq!(
            read(&mut prefixes, &[vec![1; LEAST_PREFIX - 1], vec![9; 9]].concat()),
            0
        );
        let mut forgetful = Prefixes::new(0, 1, false);
        assert_eq!([(); 2].map(|()| read(&mut forgetful, &prompt(1, 2))), [0, 0]);
        assert_eq!(forgetful.held_tokens(), 0);
    }

    #[test]
    fn what_was_read_elsewhere_is_kept_whole_and_only_where_something_stays() {
        let mut prefixes = Prefixes::new(3, 2, true);
        read(&mut prefixes, &prompt(1, 2));
        let slot = prefixes.keep(&prompt(1, 3)).expect("a slot is free");
        prefixes.read(slot, &prompt(1, 3));
        prefixes.end(slot);
        assert_eq!(prefixes.held_tokens(), 60);
        assert_eq!(read(&mut prefixes, &[prompt(1, 3), vec![9]].concat()), 30);
        assert_eq!(
            Prefixes::new(3, 2, false).keep(&prompt(1, 2)),
            None,
            "the copy would be of use to nobody"
        );
    }

    proptest! {
        /// A model of the buffer goes along: what a place promises is what the slots really hold, whoever reads at the same time, stops
        /// halfway or fails.
        #[test]
        fn what_need_not_be_read_is_there(
            slots in 1usize..5,
            prompts in prop::collection::vec((prop::collection::vec(0u32..2, 1..4), 1usize..30, 0usize..60, 0u8..8), 1..40),
        ) {
            let mut prefixes = Prefixes::new(2, slots, true);
            let mut buffer: Vec<Vec<u32>> = vec![Vec::new(); 2 + slots];
            let mut open: Vec<(usize, usize, Vec<u32>)> = Vec::new();
            for (beginnings, rest, read, what) in prompts {
                let beginning = beginnings.iter().flat_map(|b| vec![*b; 12]);
                let prompt: Vec<u32> = beginning.chain(vec![7; rest]).collect();
                let place = prefixes.begin(&prompt);
                prop_assert_eq!(place.is_none(), open.len() == slots);
                if let Some(Place { slot, past, from }) = place {
                    prop_assert!(past < prompt.len() && !open.iter().any(|o| o.0 == slot));
                    if let Some(from) = from {
                        buffer[slot] = buffer[from][..past].to_vec();
                    }
                    buffer[slot].truncate(past);
                    prop_assert_eq!(&buffer[slot][..], &prompt[..past]);
                    open.push((slot, past, prompt));
                }
                // Some prompt goes on, and may end, or fail.
                let which = read % open.len();
                let (slot, past, prompt) = &mut open[which];
                let more = &prompt[*past..prompt.len().min(*past + read)];
                buffer[*slot].extend_from_slice(more);
                prefixes.read(*slot, more);
                *past += more.len();
                let slot = *slot;
                if what < 6 {
                    if what == 0 {
                        prefixes.forget(slot);
                        buffer[slot] = vec![99; 40];
                    }
                    prefixes.end(slot);
                    open.remove(which);
                }
            }
        }
    }
}
