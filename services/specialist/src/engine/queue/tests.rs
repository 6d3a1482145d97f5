//! Who is next, what is refused, and that every token is counted.
use super::*;
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
    let mut queue = Queue::new(10, 100);
    queue.offer('a', 6, Class::Interactive, None).expect("fits");
    assert_eq!(
        queue.offer('b', 5, Class::Interactive, None),
        Err(Refused {
            waiting_tokens: 6,
            full: Full::Tokens(10)
        })
    );
    queue.offer('c', 4, Class::Interactive, None).expect("fits exactly");
    assert_eq!(queue.take(), Some('a'));
    queue
        .offer('b', 5, Class::Interactive, None)
        .expect("there is room again");
    assert_eq!((queue.take(), queue.take(), queue.take()), (Some('c'), Some('b'), None));
    assert_eq!(queue.waiting_tokens(), 0);
}

#[test]
fn what_is_not_waited_for_fills_no_queue_and_leaves_room_for_who_is() {
    // Bound by tokens, then by requests.
    for mut queue in [Queue::new(160, 1000), Queue::new(1000, 160)] {
        let mut fill = |class: Class| std::iter::from_fn(|| queue.offer((), 1, class, None).ok()).count();
        assert_eq!(
            Class::ALL.map(|class| (fill(Class::Batch), fill(class))),
            [(120, 40), (0, 0), (0, 0)],
            "an urgent one may always fill what a batch had to leave"
        );
        queue.remove(|()| true);
        let mut fill = |class: Class| std::iter::from_fn(|| queue.offer((), 1, class, None).ok()).count();
        assert_eq!(
            (fill(Class::Normal), fill(Class::Batch), fill(Class::Interactive)),
            (140, 0, 20)
        );
    }
}

#[test]
fn a_queue_full_of_small_requests_says_so() {
    let mut queue = Queue::new(10, 2);
    queue.offer('a', 1, Class::Normal, None).expect("fits");
    queue.offer('b', 1, Class::Normal, None).expect("fits");
    let full = Full::Requests(2);
    assert_eq!(
        queue.offer('c', 1, Class::Normal, None),
        Err(Refused {
            waiting_tokens: 2,
            full
        })
    );
}

#[test]
fn a_prompt_larger_than_the_whole_queue_may_wait_alone() {
    let mut queue = Queue::new(10, 100);
    queue.offer('a', 50, Class::Normal, None).expect("alone");
    assert!(queue.offer('b', 1, Class::Normal, None).is_err() && queue.take() == Some('a'));
}

#[test]
fn what_is_not_wanted_stays_the_next() {
    let mut queue = Queue::new(10, 100);
    queue.offer('a', 4, Class::Normal, None).expect("fits");
    queue.offer('b', 4, Class::Interactive, None).expect("fits");
    assert_eq!(queue.take_of(Class::Batch.and_above(), |next| *next == 'a'), None);
    assert_eq!((queue.waiting_tokens(), queue.len()), (8, 2));
    assert_eq!(
        (
            queue.take_of(Class::Batch.and_above(), |next| *next == 'b'),
            queue.take()
        ),
        (Some('b'), Some('a'))
    );
}

#[test]
fn a_batch_is_served_after_sixteen_urgent_ones() {
    let mut queue = Queue::new(1000, 1000);
    queue.offer(0, 1, Class::Batch, None).expect("fits");
    (1..100).for_each(|i| queue.offer(i, 1, Class::Interactive, None).expect("fits"));
    let order: Vec<i32> = std::iter::from_fn(|| queue.take()).collect();
    assert_eq!(order.iter().position(|i| *i == 0), Some(PATIENCE as usize));
}

#[test]
fn within_a_class_what_is_due_first_is_next_and_the_oldest_waits_for_sixteen_at_most() {
    let start = Instant::now();
    let due = |seconds| Some(start + Duration::from_secs(seconds));
    let mut queue = Queue::new(1000, 1000);
    queue.offer("none", 1, Class::Normal, None).expect("fits");
    queue.offer("late", 1, Class::Normal, due(9)).expect("fits");
    queue.offer("soon", 1, Class::Normal, due(1)).expect("fits");
    queue.offer("urgent", 1, Class::Interactive, None).expect("fits");
    assert_eq!(
        [(); 4].map(|()| queue.take()),
        ["urgent", "soon", "late", "none"].map(Some)
    );
    queue.offer("oldest", 1, Class::Normal, None).expect("fits");
    (1..100).for_each(|i| queue.offer("due", 1, Class::Normal, due(i)).expect("fits"));
    let order: Vec<&str> = std::iter::from_fn(|| queue.take()).collect();
    assert_eq!(order.iter().position(|i| *i == "oldest"), Some(PATIENCE as usize));
}

#[test]
fn the_turn_of_an_oldest_that_left_is_nobody_elses() {
    let start = Instant::now();
    let due = |seconds| Some(start + Duration::from_secs(seconds));
    let mut queue = Queue::new(1000, 1000);
    queue.offer("oldest", 1, Class::Normal, None).expect("fits");
    queue.offer("next", 1, Class::Normal, None).expect("fits");
    (0..20).for_each(|i| queue.offer("due", 1, Class::Normal, due(i)).expect("fits"));
    assert!((0..PATIENCE).all(|_| queue.take() == Some("due")));
    assert_eq!(queue.remove(|item| *item == "oldest").len(), 1);
    assert_eq!(
        queue.take(),
        Some("due"),
        "nobody had passed over this one as the oldest"
    );
}

#[test]
fn what_waits_on_is_not_moved_and_is_looked_at_no_more_than_need_be() {
    let mut queue = Queue::new(1000, 1000);
    (0..100).for_each(|i| queue.offer(i, 1, Class::Normal, None).expect("fits"));
    let places = |queue: &Queue<i32>| {
        let waiting = &queue.lines[Line::from(Class::Normal).place()].waiting;
        waiting
            .iter()
            .map(|waiting| std::ptr::from_ref(waiting).addr())
            .collect::<Vec<_>>()
    };
    let before = places(&queue);
    assert!(queue.remove(|_| false).is_empty());
    assert_eq!(places(&queue), before);
    assert_eq!(queue.remove(|i| *i == 60 || *i == 70), [60, 70]);
    assert_eq!(places(&queue)[..60], before[..60], "nor is what stands before who left");
    let looks = std::cell::Cell::new(0);
    let even = |i: &i32| {
        looks.set(looks.get() + 1);
        i % 2 == 0
    };
    assert_eq!((queue.count(Class::Normal, 16, even), looks.get()), (16, 31));
    assert_eq!(queue.count(Class::Normal, 1000, even), 48);
    let order: Vec<i32> = std::iter::from_fn(|| queue.take()).collect();
    assert_eq!(order, (0..100).filter(|i| ![60, 70].contains(i)).collect::<Vec<_>>());
}

#[test]
fn a_slack_comes_before_a_deadline_and_either_before_neither() {
    let now = Instant::now();
    let (soon, late) = (Some(now + Duration::from_secs(1)), Some(now + Duration::from_secs(9)));
    let slack = Urgency {
        start_by: soon,
        ..Urgency::until(late)
    };
    assert_eq!((slack.due(), Urgency::until(late).due()), (soon, late));
    let ends_first = Urgency {
        deadline: soon,
        start_by: late,
        ..slack
    };
    assert_eq!((ends_first.due(), Urgency::default().due()), (soon, None));
}

#[test]
fn the_more_urgent_classes_alone_can_be_asked() {
    let mut queue = Queue::new(10, 100);
    queue.offer('n', 1, Class::Normal, None).expect("fits");
    assert_eq!(queue.take_of(0, |_| true), None);
    assert_eq!(queue.take_of(Class::Interactive.and_above(), |_| true), None);
    queue.offer('i', 1, Class::Interactive, None).expect("fits");
    assert_eq!(queue.take_of(Class::Interactive.and_above(), |_| true), Some('i'));
    assert_eq!(queue.take_of(Class::Normal.and_above(), |_| true), Some('n'));
}

#[test]
fn what_is_taken_in_parts_waits_behind_its_class_and_before_a_lesser_one_and_only_if_it_is_asked_for() {
    for (place, line) in Line::ALL.into_iter().enumerate() {
        assert_eq!(line.place(), place);
    }
    let mut queue = Queue::new(100, 100);
    queue.offer("batch", 1, Class::Batch, None).expect("fits");
    queue.offer("parts", 1, Class::Normal.in_parts(), None).expect("fits");
    queue.offer("normal", 1, Class::Normal, None).expect("fits");
    assert_eq!([(); 3].map(|()| queue.take()), ["normal", "parts", "batch"].map(Some));
    queue.offer("parts", 1, Class::Normal.in_parts(), None).expect("fits");
    assert_eq!(queue.take_of(Class::Batch.and_above(), |_| true), None);
    let urgent = |line: Line| line.class < Class::Normal;
    assert_eq!(queue.take_among(urgent, |_| true), None);
    assert_eq!(queue.take_among(|line| line.in_parts, |_| true), Some("parts"));
}

proptest! {
    #[test]
    fn tokens_are_counted_exactly_and_a_class_keeps_its_order(
        steps in prop::collection::vec((0u8..10, 1usize..20, 0u8..3), 0..200),
    ) {
        let mut queue = Queue::new(60, 12);
        let bounds = [(60, 12), (53, 11), (45, 9)];
        let mut inside: Vec<(usize, usize, Class)> = Vec::new();
        for (id, (what, tokens, class)) in steps.into_iter().enumerate() {
            let class = [Class::Interactive, Class::Normal, Class::Batch][class as usize];
            match what {
                0..=5 => {
                    let (most, requests) = bounds[class as usize];
                    let fits = inside.is_empty()
                        || (inside.len() < requests && inside.iter().map(|i| i.1).sum::<usize>() + tokens <= most);
                    prop_assert_eq!(queue.offer((id, class), tokens, class, None).is_ok(), fits);
                    if fits {
                        inside.push((id, tokens, class));
                    }
                }
                6..=8 => match queue.take() {
                    None => prop_assert!(inside.is_empty()),
                    Some((id, class)) => {
                        let first = inside.iter().position(|i| i.2 == class).expect("known");
                        prop_assert_eq!(inside.remove(first).0, id);
                    }
                },
                _ => {
                    let gone = queue.remove(|(id, _)| id % 3 == 0);
                    prop_assert_eq!(gone.len(), inside.iter().filter(|i| i.0 % 3 == 0).count());
                    inside.retain(|i| i.0 % 3 != 0);
                }
            }
            prop_assert_eq!(queue.waiting_tokens(), inside.iter().map(|i| i.1).sum::<usize>());
            prop_assert_eq!(queue.len(), inside.len());
        }
    }
}
