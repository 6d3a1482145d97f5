//! The engine without its model: whole schedules, round by round, with what the engine keeps to checked after each.
use crate::engine::{
    queue::{Class, Queue},
    schedule::{Budget, KEPT_OF, Limits, Schedule, pace::STEPS_APART},
    slots::Slots,
};
use std::{
    collections::HashMap,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Prompt tokens and answer tokens of a request at most, in these schedules.
pub(super) const PROMPT: usize = 40;
pub(super) const ANSWER: usize = 8;

/// One request of a schedule. Times are rounds.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) arrives: u32,
    pub(super) prompt: usize,
    pub(super) answer: usize,
    pub(super) class: Class,
    /// Rounds after its arrival.
    pub(super) deadline: Option<u32>,
    pub(super) leaves: Option<u32>,
}

/// A schedule: the engine's sizes, what runs cost, and who comes.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) limits: Limits,
    pub(super) patience: u32,
    pub(super) queue_tokens: usize,
    /// Nanoseconds of a step's row and of a prompt token.
    pub(super) costs: (u64, u64),
    pub(super) jobs: Vec<Job>,
    /// Short prompts may be read in one run.
    pub(super) together: bool,
    /// Until the jobs have ended, there is always somebody more urgent, and somebody of each class with a deadline.
    pub(super) flood: bool,
}

/// A sequence that holds a row of the buffer.
#[derive(Debug, Clone, Copy)]
struct Held {
    id: usize,
    class: Class,
    slot: usize,
    prompt: usize,
    read: usize,
    answer_left: usize,
}

/// The engine without its model: the same queue, schedule and slots, and a buffer that remembers whose tokens a row holds.
struct Engine {
    plan: Plan,
    queue: Queue<usize>,
    schedule: Schedule<Held>,
    slots: Slots<Held>,
    /// Whose row it is, and how many tokens of it are there.
    buffer: Vec<(usize, usize)>,
    jobs: HashMap<usize, (Job, u32)>,
    ended: Vec<bool>,
    round: u32,
    /// Steps since a crowd had a whole run at the cost of others.
    since_whole: u32,
    next_id: usize,
}

fn instant(round: u32) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(round.into())
}

impl Engine {
    fn new(plan: Plan) -> Self {
        let mut schedule = Schedule::new(plan.limits);
        schedule.patience = plan.patience;
        Self {
            queue: Queue::new(plan.queue_tokens, 64).with_patience(plan.patience),
            schedule,
            slots: Slots::new(plan.limits.slots),
            buffer: vec![(usize::MAX, 0); plan.limits.slots + plan.limits.prompt_slots],
            jobs: HashMap::new(),
            ended: vec![false; plan.jobs.len()],
            round: 0,
            since_whole: u32::MAX,
            next_id: plan.jobs.len(),
            plan,
        }
    }

    fn offer(&mut self, id: usize, job: Job) {
        let due = job.deadline.map(|d| instant(self.round + d));
        let waits = self.queue.offer(id, job.prompt, job.class, due).is_ok();
        if waits {
            self.jobs.insert(id, (job, self.round));
        } else {
            self.end(id);
        }
    }

    fn end(&mut self, id: usize) {
        if let Some(ended) = self.ended.get_mut(id) {
            assert!(!*ended, "{id} ended twice");
            *ended = true;
        }
        self.jobs.remove(&id);
    }

    fn arrive(&mut self) {
        for (id, job) in self.plan.jobs.clone().into_iter().enumerate() {
            if job.arrives == self.round {
                self.offer(id, job);
            }
        }
        if !self.plan.flood {
            return;
        }
        for class in Class::ALL {
            // There is room for the jobs themselves.
            if self.queue.waiting_tokens() + PROMPT < self.plan.queue_tokens / 2 {
                let job = Job {
                    arrives: self.round,
                    prompt: 1 + self.next_id % 7,
                    answer: 1 + self.next_id % 3,
                    class,
                    deadline: Some(1000),
                    leaves: None,
                };
                self.offer(self.next_id, job);
                self.next_id += 1;
            }
        }
    }

    /// Frees what nobody waits for any more: in the queue, while it is read, while it decodes.
    fn drop_dead(&mut self) {
        let (jobs, round) = (&self.jobs, self.round);
        let gone = |id: usize| {
            let (job, since) = &jobs[&id];
            let past = |limit: Option<u32>| limit.is_some_and(|l| since + l <= round);
            past(job.deadline) || past(job.leaves)
        };
        let mut ended = self.queue.remove(|id| gone(*id));
        for reading in (0..self.schedule.readings().len()).rev() {
            if gone(self.schedule.readings()[reading].row.id) {
                ended.push(self.schedule.end(reading).id);
            }
        }
        let dead: Vec<usize> = (0..self.slots.rows().len())
            .filter(|s| gone(self.slots.rows()[*s].id))
            .collect();
        ended.iter().for_each(|id| self.end(*id));
        dead.into_iter().rev().for_each(|slot| self.leave(slot));
    }

    /// Ends the decoding row in `slot`.
    fn leave(&mut self, slot: usize) {
        let ended = self.slots.end(slot);
        if let Some(from) = ended.moved_from {
            self.buffer[slot] = self.buffer[from];
        }
        self.end(ended.row.id);
    }

    /// Takes out of the queue whom one run may read together with a request that has just been taken; gives the run's tokens too.
    fn crowd(&mut self, first: usize, open: usize, budget: &Budget) -> (Vec<usize>, usize) {
        let (jobs, schedule, together) = (&self.jobs, &self.schedule, self.plan.together);
        let class = jobs[&first].0.class;
        let joins = |id: &usize| {
            let job = &jobs[id].0;
            together && job.class == class && schedule.is_short(job.prompt)
        };
        let mut crowd = vec![first];
        if !joins(&first) {
            return (crowd, 0);
        }
        let waiting = 1 + self.queue.count(class, self.plan.limits.slots, joins);
        let classes = self.slots.rows().iter().map(|row| row.class);
        let Some(mut room) = schedule.room(budget, classes, class, waiting) else {
            return (crowd, 0);
        };
        if room.take(jobs[&first].0.prompt) {
            while let Some(next) = self.queue.take_of(open, |id| joins(id) && room.take(jobs[id].0.prompt)) {
                crowd.push(next);
            }
        }
        let waited_for = self.slots.rows().iter().filter(|row| row.class < Class::Batch).count();
        assert!(room.tokens() <= self.plan.limits.chunk);
        if crowd.len() > 1 && room.tokens() > budget.left() {
            let coming = waiting.min(self.plan.limits.slots - self.slots.rows().len());
            assert!(
                coming > waited_for && class < Class::Batch,
                "only a majority that is waited for may take a whole run"
            );
            let steps = std::mem::take(&mut self.since_whole);
            assert!(steps >= STEPS_APART.0, "whole runs {steps} steps apart");
        }
        (crowd, room.tokens())
    }

    /// Reads a crowd where its rows will decode.
    fn read_together(&mut self, crowd: &[usize]) {
        let first = self.slots.rows().len();
        for (slot, id) in (first..).zip(crowd) {
            assert!(slot < self.plan.limits.slots, "every one has a slot");
            self.buffer[slot] = (*id, self.jobs[id].0.prompt);
        }
        for (slot, id) in (first..).zip(crowd) {
            let job = &self.jobs[id].0;
            let (prompt, class, answer_left) = (job.prompt, job.class, job.answer - 1);
            if answer_left == 0 {
                self.end(*id);
                continue;
            }
            let held = Held {
                id: *id,
                class,
                slot,
                prompt,
                read: prompt,
                answer_left,
            };
            let to = self.slots.begin(held).expect("there was room");
            assert!(to <= slot, "what is copied over has ended");
            self.buffer[to] = self.buffer[slot];
        }
    }

    /// Reads prompts as far as the round's budget goes, and gives how many runs of how many tokens that were.
    fn read(&mut self) -> (usize, usize) {
        let classes = self.slots.rows().iter().map(|row| row.class);
        let mut budget = self.schedule.budget(classes);
        let (mut runs, mut tokens) = (0, 0);
        while budget.left() > 0 {
            let open = self.schedule.open_classes(self.slots.rows().len());
            let batch = self.slots.rows().iter().filter(|row| row.class == Class::Batch);
            let (batch, jobs) = (batch.count(), &self.jobs);
            let next = self.schedule.take(&mut self.queue, open, batch, |id| jobs[id].0.prompt);
            if let Some(id) = next {
                let (crowd, together) = self.crowd(id, open, &budget);
                if crowd.len() > 1 {
                    self.schedule.ran_together(&mut budget, together);
                    self.read_together(&crowd);
                    let took = Duration::from_nanos(self.plan.costs.1 * together as u64);
                    self.schedule.read(together, took);
                    // Its tokens were held to what it may have in `crowd`.
                    return (runs + 1, tokens);
                }
                let used: Vec<usize> = self.schedule.readings().iter().map(|r| r.row.slot).collect();
                let slot = (self.plan.limits.slots..self.buffer.len())
                    .find(|slot| !used.contains(slot))
                    .expect("an open class has a prompt slot");
                let (job, _) = &self.jobs[&id];
                let held = Held {
                    id,
                    class: job.class,
                    slot,
                    prompt: job.prompt,
                    read: 0,
                    answer_left: job.answer,
                };
                self.buffer[slot] = (id, 0);
                let beside = self.schedule.readings().iter().filter(|r| r.row.class == job.class);
                assert!(
                    beside.clone().count() < 2
                        && beside
                            .clone()
                            .all(|_| job.class < Class::Batch && self.schedule.is_short(job.prompt)),
                    "one a class, and one that is short and waited for"
                );
                self.schedule.begin(held, job.class, job.prompt);
            }
            let Some(piece) = self.schedule.next(&mut budget) else {
                return (runs, tokens);
            };
            assert!(piece.tokens > 0 && piece.tokens <= self.plan.limits.chunk);
            (runs, tokens) = (runs + 1, tokens + piece.tokens);
            let held = self.schedule.row_mut(piece.reading);
            assert_eq!(
                self.buffer[held.slot],
                (held.id, held.read),
                "the row holds what was read"
            );
            held.read += piece.tokens;
            self.buffer[held.slot].1 += piece.tokens;
            assert_eq!(piece.last, held.read == held.prompt);
            let took = Duration::from_nanos(self.plan.costs.1 * piece.tokens as u64);
            self.schedule.read(piece.tokens, took);
            if piece.last {
                let mut held = self.schedule.end(piece.reading);
                held.answer_left -= 1;
                if held.answer_left == 0 {
                    self.end(held.id);
                } else {
                    let slot = self.slots.begin(held).expect("a slot was reserved");
                    self.buffer[slot] = self.buffer[held.slot];
                }
            }
        }
        (runs, tokens)
    }

    fn step(&mut self) {
        let rows = self.slots.rows().len();
        let mut done = Vec::new();
        for (slot, row) in self.slots.rows_mut().iter_mut().enumerate() {
            assert_eq!(self.buffer[slot].0, row.id, "slot {slot} holds another sequence");
            self.buffer[slot].1 += 1;
            row.answer_left -= 1;
            if row.answer_left == 0 {
                done.push(slot);
            }
        }
        if rows > 0 {
            self.since_whole = self.since_whole.saturating_add(1);
            self.schedule
                .stepped(Duration::from_nanos(self.plan.costs.0 * rows as u64));
        }
        done.into_iter().rev().for_each(|slot| self.leave(slot));
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.schedule.readings().is_empty() && self.slots.rows().is_empty()
    }

    fn round(&mut self) {
        self.arrive();
        self.drop_dead();
        let budget = self.schedule.budget(self.slots.rows().iter().map(|row| row.class));
        let somebody_waits = self.slots.rows().iter().any(|row| row.class < Class::Batch);
        let alone = self.slots.rows().is_empty();
        let asleep = self.is_idle();
        let (runs, tokens) = self.read();
        let mut whole = budget;
        assert!(tokens <= whole.take(usize::MAX).unwrap_or(0), "the budget is kept");
        assert!(runs <= 1 || somebody_waits, "one run where nobody waits for a step");
        assert!(asleep || !alone || runs > 0, "a round does something");
        self.holds();
        self.step();
        self.holds();
        self.round += 1;
    }

    /// No slot is shared, leaked or promised twice.
    fn holds(&self) {
        let Limits {
            slots, prompt_slots, ..
        } = self.plan.limits;
        let (readings, rows) = (self.schedule.readings(), self.slots.rows());
        let batch = readings.iter().filter(|r| r.row.class == Class::Batch).count()
            + rows.iter().filter(|r| r.class == Class::Batch).count();
        assert!(slots < KEPT_OF || batch < slots, "a slot is kept from batches");
        assert!(rows.len() + readings.len() <= slots && readings.len() <= prompt_slots);
        let mut ids: Vec<usize> = readings
            .iter()
            .map(|r| r.row.id)
            .chain(rows.iter().map(|r| r.id))
            .collect();
        let mut places: Vec<usize> = readings.iter().map(|r| r.row.slot).collect();
        assert!(places.iter().all(|slot| (slots..slots + prompt_slots).contains(slot)));
        let (sequences, used) = (ids.len(), places.len());
        ids.sort_unstable();
        ids.dedup();
        places.sort_unstable();
        places.dedup();
        assert_eq!((ids.len(), places.len()), (sequences, used));
        assert_eq!(self.jobs.len(), sequences + self.queue.len(), "somebody was forgotten");
    }
}

/// Runs a schedule until every job of it has ended; gives the rounds that it took.
pub(super) fn run(plan: &Plan) -> u32 {
    let jobs = plan.jobs.len() as u32 + 1;
    let last = plan.jobs.iter().map(|job| job.arrives).max().unwrap_or(0);
    // Each job waits for turns of its class and within it, then for pieces and steps; others have as many between two of its own as
    // patience allows. Far from tight, and finite: what starves under a flood goes past it.
    let bound = last + jobs * (plan.patience + 2).pow(3) * (PROMPT + ANSWER) as u32 * 2;
    let mut engine = Engine::new(plan.clone());
    while engine.ended.contains(&false) {
        engine.round();
        assert!(engine.round <= bound, "starved: {:?} in {plan:?}", engine.ended);
    }
    // What the flood left behind ends as well.
    engine.plan.flood = false;
    while !engine.is_idle() {
        engine.round();
        assert!(
            engine.round <= bound + 64 * (PROMPT + ANSWER) as u32,
            "never idle: {plan:?}"
        );
    }
    assert!(engine.jobs.is_empty() && engine.queue.waiting_tokens() == 0);
    engine.round
}
