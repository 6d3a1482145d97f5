//! How many prompt tokens take as long as a decode step.
use std::time::Duration;

/// Tokens of a piece at least, however fast steps are: a prompt must get through.
const LEAST_TOKENS: usize = 4;

/// What a piece that takes longer than it should may cost beyond the run itself: as many tokens as take half as long. With fewer, nearly all of
/// the time that the others wait would go into the run's own cost, and the prompt would be read in so many runs that they wait longer.
const LEAST_SHARE: f64 = 0.5;

/// What a run costs before its first token, in tokens, until more is seen: 0.9 ms and 0.1 ms a token at 4.6 M parameters on one core, 4.5 ms
/// and 0.15 ms at 25 M.
const RUN_TOKENS: f64 = 8.0;

/// What a round's prompt tokens may take, of a step: together with the step less than twice what it takes alone, for a prompt costs more than
/// its runs do (its row is moved, its first token chosen), and no estimate is exact.
const SHARE: f64 = 0.75;

/// How much dearer than it was believed to be a step may become at once. One that the operating system interrupted says nothing of
/// the next, and must not lengthen the next piece; a step that did become dearer, with more rows, is believed within a few.
const STEP_GROWTH: f64 = 1.15;

/// How much one run counts against those before it: a few pieces are enough to change what is believed.
const RUN_WEIGHT: f64 = 0.25;

/// Tokens of a usual piece: where a run was longer than that, its cost says more of the tokens', where shorter, of the run's own.
const USUAL_TOKENS: f64 = 16.0;

/// Decode steps between two whole runs of crowds: at least so many, however little a run costs, and at most so many, for the crowd waits too.
pub(super) const STEPS_APART: (u32, u32) = (4, 64);

/// What steps and prompts take, as far as seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Seconds of a decode step.
    step: Option<f64>,
    run: Option<Cost>,
}

/// Seconds of a run over prompt tokens: `own` and, for each of them, `token`.
#[derive(Debug, Clone, Copy)]
struct Cost {
    own: f64,
    token: f64,
}

impl Cost {
    fn first(tokens: f64, seconds: f64) -> Self {
        let token = seconds / (RUN_TOKENS + tokens);
        Self {
            own: token * RUN_TOKENS,
            token,
        }
    }

    /// Normalised least mean squares, over the run as one part and its tokens, in units of a usual piece, as the other.
    fn learn(self, tokens: f64, seconds: f64) -> Self {
        let pieces = tokens / USUAL_TOKENS;
        let off = seconds - self.own - self.token * tokens;
        let part = RUN_WEIGHT * off / (1.0 + pieces * pieces);
        Self {
            own: (self.own + part).max(0.0),
            token: (self.token + part * pieces / USUAL_TOKENS).max(seconds / (1e3 * tokens)),
        }
    }

    /// What the run itself costs, in tokens.
    fn run_tokens(self) -> f64 {
        self.own / self.token
    }
}

/// Prompt tokens that a round may still read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    left: usize,
    /// What each run takes of it beside its tokens.
    run: usize,
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
        let (tokens, took) = (tokens.max(1) as f64, took.as_secs_f64());
        self.run = Some(match self.run {
            None => Cost::first(tokens, took),
            Some(cost) => cost.learn(tokens, took),
        });
    }

    /// Decode steps that take as long as a run over `tokens` prompt tokens, within [`STEPS_APART`].
    pub(super) fn steps_of(&self, tokens: usize) -> u32 {
        let (least, most) = STEPS_APART;
        let steps = match (self.step, self.run) {
            // A step that takes no time is infinitely many.
            (Some(step), Some(cost)) => (cost.own + cost.token * tokens as f64) / step,
            _ => 0.0,
        };
        (steps as u32).clamp(least, most)
    }

    /// For a round with so many rows whose next token is waited for; a run takes `chunk` tokens at most.
    pub(super) fn budget(&self, waited_for: usize, chunk: usize) -> Budget {
        let run_tokens = self.run.map_or(RUN_TOKENS, Cost::run_tokens);
        let run = run_tokens as usize;
        if waited_for == 0 {
            return Budget {
                left: chunk,
                run,
                waited_for: false,
            };
        }
        // Before anything was seen: as many tokens as rows, which a matrix product takes as long for.
        let tokens = match (self.step, self.run) {
            (Some(step), Some(cost)) => (SHARE * step - cost.own) / cost.token,
            _ => waited_for as f64,
        };
        let least = ((LEAST_SHARE * run_tokens) as usize).max(LEAST_TOKENS);
        Budget {
            left: (tokens.max(0.0) as usize).max(least).min(chunk.max(LEAST_TOKENS)),
            run,
            waited_for: true,
        }
    }
}

impl Budget {
    /// So many of `tokens` may be read now.
    pub(super) fn take(&mut self, tokens: usize) -> Option<usize> {
        let taken = tokens.min(self.left);
        self.left = if self.waited_for {
            self.left.saturating_sub(taken + self.run)
        } else {
            // One run: whoever came meanwhile, or decodes from now on, is heard before the next.
            0
        };
        Some(taken).filter(|taken| *taken > 0)
    }

    /// How many tokens are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Nothing is read any more in this round.
    pub fn spend(&mut self) {
        self.left = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Seconds of a step of so many rows, or of a piece of so many tokens: about what they are on one core at 4.6 M parameters.
    fn small(size: usize) -> f64 {
        0.0009 + 0.0001 * size as f64
    }

    /// The same on two cores at 25 M parameters.
    fn large(size: usize) -> f64 {
        0.0045 + 0.000_15 * size as f64
    }

    /// How long a piece comes to be beside so many rows.
    fn settled(rows: usize, cost: fn(usize) -> f64) -> usize {
        let mut pace = Pace::default();
        let mut tokens = 0;
        for i in 0..100 {
            pace.stepped(took(cost(rows)));
            tokens = pace.budget(rows, 512).left;
            // The last piece of a prompt is shorter, and now and then nobody waits, and one is read whole.
            let read = match i {
                _ if i % 10 == 0 => 32,
                _ if i % 4 == 0 => tokens.div_ceil(2),
                _ => tokens,
            };
            pace.read(read, took(cost(read)));
        }
        tokens
    }

    #[test]
    fn a_piece_comes_to_take_three_quarters_of_a_step() {
        for rows in [16, 64] {
            let tokens = settled(rows, small);
            assert!(small(tokens) < small(rows), "{tokens} tokens beside {rows} rows");
            assert!(
                small(tokens + 4) > SHARE * small(rows),
                "{tokens} tokens beside {rows} rows"
            );
        }
    }

    #[test]
    fn a_run_that_is_dearer_than_a_step_is_worth_half_as_much_again() {
        let (four, fifteen) = (settled(1, small), settled(1, large));
        assert!((4..=6).contains(&four), "{four}: its own cost is that of nine tokens");
        assert!((8..=16).contains(&fifteen), "{fifteen}: its own cost is that of thirty");
    }

    #[test]
    fn a_step_that_was_interrupted_does_not_lengthen_the_next_piece() {
        let mut pace = Pace::default();
        (0..10).for_each(|_| pace.stepped(took(0.002)));
        pace.read(16, took(0.0016));
        let before = pace.budget(8, 512).left;
        pace.stepped(took(0.5));
        let after = pace.budget(8, 512).left;
        assert!(after <= before + before / 3, "{before}, then {after}");
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
