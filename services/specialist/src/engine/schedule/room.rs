//! Which prompts go into one run: every one is padded to the longest.

/// A run that prompts are put into, each read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    free: usize,
    tokens: usize,
    prompts: usize,
    longest: usize,
}

impl Room {
    pub(super) fn new(free: usize, tokens: usize) -> Self {
        Self {
            free,
            tokens,
            prompts: 0,
            longest: 0,
        }
    }

    /// Puts a prompt of so many tokens in, if it fits.
    pub fn take(&mut self, prompt: usize) -> bool {
        let longest = self.longest.max(prompt);
        let fits = self.prompts < self.free && (self.prompts + 1) * longest <= self.tokens;
        if fits {
            self.prompts += 1;
            self.longest = longest;
        }
        fits
    }

    /// Tokens of the run, padding included.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.prompts * self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_room_for_free_slots_and_for_tokens_with_their_padding() {
        let taken = |free, tokens, prompts: &[usize]| {
            let mut room = Room::new(free, tokens);
            let taken: Vec<bool> = prompts.iter().map(|p| room.take(*p)).collect();
            (taken, room.tokens())
        };
        assert_eq!(taken(3, 100, &[10, 20, 5, 5]), (vec![true, true, true, false], 60));
        assert_eq!(taken(9, 40, &[10, 20, 5, 40]), (vec![true, true, false, false], 40));
        assert_eq!(taken(0, 40, &[1]), (vec![false], 0));
    }
}
