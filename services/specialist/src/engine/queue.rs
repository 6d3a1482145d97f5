//! What waits for a slot: bounded by prompt tokens, so that what nobody waits for cannot lock out who waits; the more urgent class first, within a class whatever is due first, and
//! what is not in the order of arrival. Nothing waits for ever: a class, and within it the oldest, is passed over a bounded
//! number of times ([`PATIENCE`]).

use std::{collections::VecDeque, time::Instant};

/// How urgently a request is wanted, most urgent first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A person waits.
    Interactive,
    /// An agent waits.
    #[default]
    Normal,
    /// Nobody waits.
    Batch,
}

impl Class {
    /// Every class that a caller may ask for, most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Batch];

    /// The line of what an encoder takes in parts.
    #[must_use]
    pub const fn in_parts(self) -> Line {
        Line {
            class: self,
            in_parts: true,
        }
    }

    /// How many classes are at least as urgent, for [`Queue::take_of`].
    #[must_use]
    pub const fn and_above(self) -> usize {
        self as usize + 1
    }

    /// What of a bound of the queue a class may fill, counted over all that waits: what is kept from the less urgent is there when somebody more
    /// urgent comes, however long they keep the queue full. An eighth of the tokens is 8,192 by default: more than one long prompt.
    const fn may_fill(self, bound: usize) -> usize {
        match self {
            Self::Interactive => bound,
            Self::Normal => bound - bound / 8,
            Self::Batch => bound - bound / 4,
        }
    }
}

/// Where a request waits: its class, and in a line behind that what an encoder takes in parts, which must hold up none that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub class: Class,
    /// It is taken in parts.
    pub in_parts: bool,
}

impl From<Class> for Line {
    fn from(class: Class) -> Self {
        Self { class, in_parts: false }
    }
}

/// Two of each class. A number, for a length that is computed from an array of this module's own types is a cycle to the compiler where it is not incremental.
const LINES: usize = 6;

impl Line {
    /// Every line, most urgent first.
    const ALL: [Self; LINES] = {
        let [first, second, third] = Class::ALL;
        [
            Self {
                class: first,
                in_parts: false,
            },
            first.in_parts(),
            Self {
                class: second,
                in_parts: false,
            },
            second.in_parts(),
            Self {
                class: third,
                in_parts: false,
            },
            third.in_parts(),
        ]
    };

    const fn place(self) -> usize {
        2 * self.class as usize + self.in_parts as usize
    }
}

/// How soon an answer is wanted, as its caller says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Urgency {
    /// Queueing class.
    pub class: Class,
    /// When the answer is of no use any more: the request ends then.
    pub deadline: Option<Instant>,
    /// When it should have begun, for what comes after it to be in time: its slack. It orders what waits, and ends nothing.
    pub start_by: Option<Instant>,
}

impl Urgency {
    /// Of a caller who says nothing but how long an answer is of use.
    #[must_use]
    pub fn until(deadline: Option<Instant>) -> Self {
        Self {
            deadline,
            ..Self::default()
        }
    }

    /// When its turn is due: when it should have begun, or when it ends if that is sooner or all that is said.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.start_by.into_iter().chain(self.deadline).min()
    }
}

/// A class that waits is served at the latest after this many of the more urgent ones in a row: urgent work stays within
/// 1/16 of what strict priority would give it, and a batch never starves. The same holds within a class for its oldest
/// request, over those that are due earlier. Counted in turns, not in time: a queue that does not move ages nobody.
pub const PATIENCE: u32 = 16;

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Prompt tokens waiting.
    pub waiting_tokens: usize,
    /// Which bound was met, and what it is.
    pub full: Full,
}

/// A bound of the queue, as far as the class that was refused may fill it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// So many prompt tokens may wait when one of the class comes.
    Tokens(usize),
    /// So many requests may, however small.
    Requests(usize),
}

/// Waiting requests. Plain data: no lock, no clock.
#[derive(Debug)]
pub struct Queue<T> {
    lines: [Waits<T>; LINES],
    waiting_tokens: usize,
    queue_tokens: usize,
    requests: usize,
    patience: u32,
}

/// What waits in one line, oldest first.
#[derive(Debug)]
struct Waits<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Turns of more urgent lines since this one's last.
    passed_over: u32,
    /// Turns of the line since its oldest was the oldest.
    oldest_passed_over: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    tokens: usize,
    due: Option<Instant>,
}

impl<T> Waits<T> {
    /// Whose turn it is within the line.
    fn turn(&self, patience: u32) -> Option<usize> {
        // Fairness between tenants goes here: choose the tenant with the largest deficit, then among its requests as below.
        if self.oldest_passed_over >= patience {
            return Some(0).filter(|_| !self.waiting.is_empty());
        }
        let due = |w: &Waiting<T>| (w.due.is_none(), w.due);
        (0..self.waiting.len()).min_by_key(|i| due(&self.waiting[*i]))
    }
}

impl<T> Queue<T> {
    /// At most `queue_tokens` prompt tokens and `requests` requests wait, fewer if they are not urgent. One request alone always may.
    #[must_use]
    pub fn new(queue_tokens: usize, requests: usize) -> Self {
        Self {
            lines: Line::ALL.map(|_| Waits {
                waiting: VecDeque::new(),
                passed_over: 0,
                oldest_passed_over: 0,
            }),
            waiting_tokens: 0,
            queue_tokens,
            requests: requests.max(1),
            patience: PATIENCE,
        }
    }

    /// With another [`PATIENCE`]: small schedules reach a small one.
    #[cfg(test)]
    pub(super) fn with_patience(self, patience: u32) -> Self {
        Self { patience, ..self }
    }

    /// Whether a request of `tokens` prompt tokens may wait in a class.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn fits(&self, tokens: usize, class: Class) -> Result<(), Refused> {
        let (requests, queue_tokens) = (class.may_fill(self.requests), class.may_fill(self.queue_tokens));
        let full = if self.is_empty() {
            return Ok(());
        } else if self.len() >= requests {
            Full::Requests(requests)
        } else if self.waiting_tokens.saturating_add(tokens) > queue_tokens {
            Full::Tokens(queue_tokens)
        } else {
            return Ok(());
        };
        Err(Refused {
            waiting_tokens: self.waiting_tokens,
            full,
        })
    }

    /// Takes a request of `tokens` prompt tokens in, whose turn is `due` then.
    ///
    /// # Errors
    /// When it does not fit; nothing has changed then.
    pub fn offer(
        &mut self,
        item: T,
        tokens: usize,
        line: impl Into<Line>,
        due: Option<Instant>,
    ) -> Result<(), Refused> {
        let line = line.into();
        self.fits(tokens, line.class)?;
        self.waiting_tokens += tokens;
        let waits = &mut self.lines[line.place()].waiting;
        waits.push_back(Waiting { item, tokens, due });
        Ok(())
    }

    /// The next request.
    pub fn take(&mut self) -> Option<T> {
        self.take_among(|_| true, |_| true)
    }

    /// The next request of the `classes` most urgent classes, if it is wanted; else it stays the next. None that is taken in parts.
    pub fn take_of(&mut self, classes: usize, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        self.take_among(|line| !line.in_parts && line.class.and_above() <= classes, wanted)
    }

    /// The next request of the lines that are open, if it is wanted; else it stays the next.
    pub fn take_among(&mut self, open: impl Fn(Line) -> bool, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let waits = |line: &usize| open(Line::ALL[*line]) && !self.lines[*line].waiting.is_empty();
        let impatient = (0..self.lines.len())
            .rev()
            .filter(waits)
            .find(|line| self.lines[*line].passed_over >= self.patience);
        let next = impatient.or_else(|| (0..self.lines.len()).find(waits))?;
        let turn = self.lines[next].turn(self.patience)?;
        if !wanted(&self.lines[next].waiting[turn].item) {
            return None;
        }
        for lesser in &mut self.lines[next + 1..] {
            lesser.passed_over = if lesser.waiting.is_empty() {
                0
            } else {
                lesser.passed_over.saturating_add(1)
            };
        }
        let line = &mut self.lines[next];
        line.passed_over = 0;
        line.oldest_passed_over = if turn == 0 { 0 } else { line.oldest_passed_over + 1 };
        let Waiting { item, tokens, .. } = line.waiting.remove(turn)?;
        self.waiting_tokens -= tokens;
        Some(item)
    }

    /// Removes what `gone` says nobody waits for any more, and gives it back.
    pub fn remove(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for line in &mut self.lines {
            // Mostly nobody has gone, and thousands of requests are not to be moved for that; nor is what stands before the first that has.
            let Some(first) = line.waiting.iter().position(|waiting| gone(&waiting.item)) else {
                continue;
            };
            if first == 0 {
                // Who is the oldest then was passed over by nobody yet.
                line.oldest_passed_over = 0;
            }
            for (i, waiting) in line.waiting.split_off(first).into_iter().enumerate() {
                if i == 0 || gone(&waiting.item) {
                    self.waiting_tokens -= waiting.tokens;
                    removed.push(waiting.item);
                } else {
                    line.waiting.push_back(waiting);
                }
            }
        }
        removed
    }

    /// How many of a class are so, looking no further once it is `most`.
    pub fn count(&self, class: Class, most: usize, so: impl Fn(&T) -> bool) -> usize {
        let waiting = &self.lines[Line::from(class).place()].waiting;
        waiting.iter().filter(|waiting| so(&waiting.item)).take(most).count()
    }

    /// Requests waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.iter().map(|line| line.waiting.len()).sum()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Prompt tokens waiting.
    #[must_use]
    pub fn waiting_tokens(&self) -> usize {
        self.waiting_tokens
    }
}

#[cfg(test)]
mod tests;
