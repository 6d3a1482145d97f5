//! Whole schedules: requests arrive, leave, expire and end in random order, under a flood of more urgent ones too.
mod simulated;

use super::{KEPT_OF, Limits, Schedule};
use crate::engine::queue::{Class, Queue};
use proptest::{prelude::*, test_runner::Config};
use simulated::{ANSWER, Job, PROMPT, Plan, run};
use std::time::Duration;

/// SplitMix64: the same schedules everywhere.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn size(&mut self, most: usize) -> usize {
        1 + self.below(most as u64) as usize
    }

    fn plan(&mut self) -> Plan {
        let jobs = (0..self.size(8)).map(|_| Job {
            arrives: self.below(12) as u32,
            prompt: self.size(PROMPT),
            answer: self.size(ANSWER),
            class: Class::ALL[self.below(3) as usize],
            deadline: (self.below(3) == 0).then(|| self.below(60) as u32),
            leaves: (self.below(4) == 0).then(|| self.below(30) as u32),
        });
        let jobs = jobs.collect();
        Plan {
            jobs,
            limits: Limits {
                // Mostly few, which all want.
                slots: if self.below(5) == 0 { KEPT_OF } else { self.size(4) },
                prompt_slots: self.size(3),
                chunk: self.size(16),
            },
            patience: self.size(3) as u32,
            queue_tokens: 100 + self.below(200) as usize,
            costs: (self.below(2000), self.below(400)),
            together: self.below(2) == 0,
            flood: self.below(4) == 0,
        }
    }
}

fn random_schedules(seed: u64, schedules: u64) {
    let mut seeded = Seeded(seed);
    let (mut rounds, mut floods) = (0u64, 0u64);
    for _ in 0..schedules {
        let plan = seeded.plan();
        floods += u64::from(plan.flood);
        rounds += u64::from(run(&plan));
    }
    assert!(
        rounds > schedules * 10 && floods > schedules / 8,
        "{rounds} rounds, {floods} floods"
    );
}

/// A million of them: a quarter each, for as many threads to run.
const QUARTER: u64 = 250_000;

#[test]
fn the_first_quarter_of_a_million_random_schedules_starves_nobody_and_keeps_every_slot_and_budget() {
    random_schedules(1, QUARTER);
}

#[test]
fn the_second_quarter_of_a_million_random_schedules_starves_nobody_and_keeps_every_slot_and_budget() {
    random_schedules(2, QUARTER);
}

#[test]
fn the_third_quarter_of_a_million_random_schedules_starves_nobody_and_keeps_every_slot_and_budget() {
    random_schedules(3, QUARTER);
}

#[test]
fn the_last_quarter_of_a_million_random_schedules_starves_nobody_and_keeps_every_slot_and_budget() {
    random_schedules(4, QUARTER);
}

/// Rounds until the only job has ended, with everybody else more urgent, or due before it.
fn under_flood(class: Class, prompt: usize) -> u32 {
    run(&Plan {
        limits: Limits {
            slots: 2,
            prompt_slots: 2,
            chunk: 8,
        },
        patience: 2,
        queue_tokens: 400,
        costs: (1000, 100),
        together: true,
        jobs: vec![Job {
            arrives: 9,
            prompt,
            answer: 2,
            class,
            deadline: None,
            leaves: None,
        }],
        flood: true,
    })
}

#[test]
fn whoever_is_less_urgent_or_without_a_deadline_ends_under_a_flood() {
    for class in Class::ALL {
        assert!(under_flood(class, PROMPT) < 400, "{class:?}");
    }
    assert!(
        under_flood(Class::Interactive, 4) < under_flood(Class::Batch, 4),
        "and urgency still counts"
    );
}

#[test]
fn an_urgent_prompt_overtakes_a_long_one_between_two_pieces_and_leaves_it_some() {
    let limits = Limits {
        slots: 4,
        prompt_slots: 3,
        chunk: 10,
    };
    let mut schedule = Schedule::new(limits);
    assert_eq!(schedule.open_classes(1), 3);
    schedule.begin('b', Class::Batch, 500);
    assert_eq!(
        schedule.open_classes(1),
        Class::Batch as usize,
        "nothing of its own class, and nothing less urgent"
    );
    let piece = |schedule: &mut Schedule<char>| {
        let piece = schedule
            .next(&mut schedule.budget([].into_iter()))
            .expect("there is one");
        (schedule.readings()[piece.reading].row, piece.tokens)
    };
    assert_eq!(piece(&mut schedule), ('b', 10));
    schedule.begin('i', Class::Interactive, 500);
    assert_eq!(
        schedule.open_classes(1),
        1,
        "a short one of its class, as `take` sees to"
    );
    let order: String = (0..34).map(|_| piece(&mut schedule).0).collect();
    assert_eq!(order, format!("{0}b{0}b", "i".repeat(16)));
}

#[test]
fn a_short_prompt_overtakes_a_long_one_of_its_class_alone_and_each_has_every_other_piece() {
    let limits = Limits {
        slots: 16,
        prompt_slots: 3,
        chunk: 64,
    };
    let milliseconds = Duration::from_millis;
    let rows = [Class::Normal; 8];
    let mut schedule = Schedule::new(limits);
    schedule.stepped(milliseconds(2));
    schedule.read(16, milliseconds(2));
    schedule.begin('l', Class::Normal, 500);
    let mut queue = Queue::new(1000, 1000);
    let offer = |queue: &mut Queue<(char, usize)>, who: (char, usize), class: Class| {
        queue.offer(who, who.1, class, None).expect("fits");
    };
    let take = |schedule: &Schedule<char>, queue: &mut Queue<(char, usize)>| {
        schedule.take(queue, schedule.open_classes(rows.len()), 0, |next| next.1)
    };
    offer(&mut queue, ('m', 300), Class::Normal);
    assert_eq!(take(&schedule, &mut queue), None, "it is long itself");
    queue.remove(|_| true);
    offer(&mut queue, ('b', 9), Class::Batch);
    assert_eq!(
        take(&schedule, &mut queue),
        None,
        "nor does what is less urgent overtake"
    );
    offer(&mut queue, ('s', 16), Class::Normal);
    offer(&mut queue, ('t', 16), Class::Normal);
    assert_eq!(take(&schedule, &mut queue), Some(('s', 16)));
    schedule.begin('s', Class::Normal, 16);
    assert_eq!(take(&schedule, &mut queue), None, "one at a time");
    let mut order = String::new();
    while schedule.readings().iter().any(|reading| reading.row == 's') {
        let mut budget = schedule.budget(rows.into_iter());
        while let Some(piece) = schedule.next(&mut budget) {
            order.push(schedule.readings()[piece.reading].row);
            if piece.last {
                schedule.end(piece.reading);
            }
        }
    }
    assert!(order.len() > 2 && order.starts_with("sls"), "{order}");
    assert!(!order.contains("ss") && !order.contains("ll"), "{order}");
    assert_eq!(take(&schedule, &mut queue), Some(('t', 16)));
    schedule.begin('t', Class::Normal, 16);
    // A prompt slot is left for who is more urgent than both.
    offer(&mut queue, ('i', 300), Class::Interactive);
    assert_eq!(take(&schedule, &mut queue), Some(('i', 300)));
}

#[test]
fn a_batch_leaves_a_slot_for_who_is_waited_for_and_has_all_others() {
    let limits = Limits {
        slots: KEPT_OF,
        prompt_slots: 3,
        chunk: 64,
    };
    let schedule: Schedule<()> = Schedule::new(limits);
    let queue = |class: Class| {
        let mut queue = Queue::new(1000, 1000);
        queue.offer(class, 1, class, None).expect("fits");
        queue
    };
    let took = |decoding: usize, batch: usize, class: Class| {
        let open = schedule.open_classes(decoding);
        schedule.take(&mut queue(class), open, batch, |_| 1).is_some()
    };
    assert!(took(KEPT_OF - 2, KEPT_OF - 2, Class::Batch));
    assert!(!took(KEPT_OF - 1, KEPT_OF - 1, Class::Batch), "the last one is kept");
    assert!(took(KEPT_OF - 1, KEPT_OF - 1, Class::Normal) && took(KEPT_OF - 1, KEPT_OF - 1, Class::Interactive));
    assert!(
        took(KEPT_OF - 1, 3, Class::Batch),
        "where others have slots, a batch may have what is free"
    );
    let budget = schedule.budget([].into_iter());
    let crowd = |class: Class| {
        let mut room = schedule
            .room(&budget, [].into_iter(), class, 64)
            .expect("nothing is read");
        (0..64).filter(|_| room.take(1)).count()
    };
    assert_eq!((crowd(Class::Batch), crowd(Class::Normal)), (KEPT_OF - 1, KEPT_OF));
}

#[test]
fn a_crowd_has_a_whole_run_only_if_it_is_waited_for_and_once_in_as_many_steps_as_take_as_long() {
    let limits = Limits {
        slots: 16,
        prompt_slots: 1,
        chunk: 256,
    };
    let mut schedule: Schedule<()> = Schedule::new(limits);
    let milliseconds = Duration::from_millis;
    schedule.stepped(milliseconds(2));
    (0..50).for_each(|_| schedule.read(256, milliseconds(26)));
    // Tokens of a run that so many short prompts have beside these rows.
    let run = |schedule: &mut Schedule<()>, rows: &[Class], class: Class| {
        let mut budget = schedule.budget(rows.iter().copied());
        let left = budget.left();
        let mut room = schedule.room(&budget, rows.iter().copied(), class, 12)?;
        (0..12).for_each(|_| _ = room.take(20));
        schedule.ran_together(&mut budget, room.tokens());
        Some((room.tokens(), left))
    };
    let row = [Class::Interactive];
    let whole = Some(240);
    let tokens = |ran: Option<(usize, usize)>| ran.map(|ran| ran.0);
    let (batch, left) = run(&mut schedule, &row, Class::Batch).expect("nothing is read");
    assert!(batch <= left && left < 240, "{batch} of {left}");
    assert_eq!(tokens(run(&mut schedule, &row, Class::Normal)), whole);
    let mut steps = 0;
    while tokens(run(&mut schedule, &row, Class::Interactive)) != whole {
        schedule.stepped(milliseconds(2));
        steps += 1;
    }
    assert!(
        (10..=16).contains(&steps),
        "{steps} steps of 2 ms, for a run of some 25 ms"
    );
    // Where nobody waits for the rows, a crowd that nobody waits for goes as fast as any.
    for _ in 0..3 {
        assert_eq!(tokens(run(&mut schedule, &[Class::Batch; 3], Class::Batch)), whole);
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    any::<u64>().prop_map(|seed| Seeded(seed).plan())
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    /// With no flood and nobody leaving, a schedule takes at most one round for every token that there is.
    #[test]
    fn every_round_reads_or_decodes_something_of_somebody(mut plan in plans()) {
        plan.flood = false;
        plan.jobs.iter_mut().for_each(|job| (job.leaves, job.deadline, job.arrives) = (None, None, 0));
        let work: usize = plan.jobs.iter().map(|job| job.prompt + job.answer).sum();
        prop_assert!(run(&plan) as usize <= work);
    }
}
