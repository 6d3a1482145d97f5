//! How many prompt tokens take as long as a decode step.
use std::time::Duration;

/// Tokens of a piece at least, however fast steps are: below it a run's own cost, about that of eight tokens, is nearly all of what it
/// takes, and a prompt would never be through.
const LEAST_TOKENS: usize = 4;

/// What a run costs before its first token, in tokens: 0.9 ms and 0.1 ms a token at 4.6 M parameters on one core. A round's second piece
/// pays it once more.
const RUN_TOKENS: usize = 8;

/// What a round's prompt tokens may take, of a step: together with the step less than twice what it takes alone, for a prompt costs more than
/// its runs do (its row is moved, its first token chosen), and no estimate is exact.
const SHARE: f64 = 0.75;

/// How much dearer than it was believed to be a step may become at once. One that the operating system interrupted says nothing of
/// the next, and must not lengthen the next piece; a step that did become dearer, with more rows, is believed within a few.
const STEP_GROWTH: f64 = 1.15;

/// How much one run's cost a token counts against those before it: a few pieces of another length are enough to change it.
const TOKEN_SHARE: f64 = 0.25;

/// What steps and prompts take, as far as seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Seconds of a decode step.
    step: Option<f64>,
    /// Seconds of a prompt token, with its share of the run's own cost.
    token: Option<f64>,
}

/// Prompt tokens that a round may still read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    left: usize,
    /// Somebody waits for the step that comes after.
    waited_for: bool,
}

impl Pace {
    /// A step of all rows took so long, sampling included.
    pub fn stepped(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.step = Some(self.step.map_or(took, |step| took.min(step * STEP_GROWTH)));
    }

    /// A run over `tokens` prompt tokens took so long.
    pub fn read(&mut self, tokens: usize, took: Duration) {
        let of_this = took.as_secs_f64() / tokens.max(1) as f64;
        let token = self.token.unwrap_or(of_this);
        self.token = Some(token + TOKEN_SHARE * (of_this - token));
    }

    /// For a round with so many rows whose next token is waited for; a run takes `chunk` tokens at most.
    pub(super) fn budget(&self, waited_for: usize, chunk: usize) -> Budget {
        if waited_for == 0 {
            return Budget {
                left: chunk,
                waited_for: false,
            };
        }
        // Before anything was seen: as many tokens as rows, which a matrix product takes as long for.
        let tokens = match (self.step, self.token) {
            (Some(step), Some(token)) if token > 0.0 => (SHARE * step / token) as usize,
            _ => waited_for,
        };
        Budget {
            left: tokens.clamp(LEAST_TOKENS, chunk.max(LEAST_TOKENS)),
            waited_for: true,
        }
    }
}

impl Budget {
    /// So many of `tokens` may be read now.
    pub(super) fn take(&mut self, tokens: usize) -> Option<usize> {
        let taken = tokens.min(self.left);
        self.left = if self.waited_for {
            self.left.saturating_sub(taken + RUN_TOKENS)
        } else {
            // One run: whoever came meanwhile, or decodes from now on, is heard before the next.
            0
        };
        Some(taken).filter(|taken| *taken > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Seconds of a step of so many rows, or of a piece of so many tokens: about what they are on one core at 4.6 M parameters.
    fn cost(size: usize) -> f64 {
        0.0009 + 0.0001 * size as f64
    }

    /// How long a piece comes to be beside so many rows.
    fn settled(rows: usize) -> usize {
        let mut pace = Pace::default();
        let mut tokens = 0;
        for _ in 0..60 {
            pace.stepped(took(cost(rows)));
            tokens = pace.budget(rows, 512).left;
            pace.read(tokens, took(cost(tokens)));
        }
        tokens
    }

    #[test]
    fn a_piece_comes_to_take_three_quarters_of_a_step() {
        for rows in [8, 16, 64] {
            let tokens = settled(rows);
            assert!(cost(tokens) < cost(rows), "{tokens} tokens beside {rows} rows");
            assert!(
                cost(tokens + 3) > SHARE * cost(rows),
                "{tokens} tokens beside {rows} rows"
            );
        }
        assert_eq!(settled(1), LEAST_TOKENS, "and never gets stuck");
    }

    #[test]
    fn a_step_that_was_interrupted_does_not_lengthen_the_next_piece() {
        let mut pace = Pace::default();
        (0..10).for_each(|_| pace.stepped(took(0.002)));
        pace.read(16, took(0.0016));
        let before = pace.budget(8, 512).left;
        pace.stepped(took(0.5));
        let after = pace.budget(8, 512).left;
        assert!(after <= before + before / 5, "{before}, then {after}");
        (0..40).for_each(|_| pace.stepped(took(0.02)));
        assert!(
            pace.budget(8, 512).left >= 140,
            "a step that did become dearer is believed"
        );
    }

    #[test]
    fn nobody_waiting_makes_it_one_run_of_the_whole_chunk() {
        let mut budget = Pace::default().budget(0, 512);
        assert_eq!((budget.take(700), budget.take(188)), (Some(512), None));
        let mut budget = Pace::default().budget(20, 512);
        assert_eq!(
            (budget.take(5), budget.take(30), budget.take(23)),
            (Some(5), Some(7), None)
        );
    }
}
