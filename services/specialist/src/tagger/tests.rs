//! The queue before a tagger and what runs together, over a model that is held still.
use super::*;
use crate::{
    engine::{
        Done, Event, Ticket,
        queue::{Class, Urgency},
    },
    folder::{Form, Held, manifest::Tag},
    sampling::{Sampling, calibration::Calibration},
    specialist::Ask,
};
use serde_json::json;
use std::{
    sync::{Mutex, atomic::Ordering, mpsc as std_mpsc},
    time::{Duration, Instant},
};

const BERT: &str = include_str!("../../../../tests/fixtures/models/tiny_tag/1/tokenizer.json");

/// Words of label `word` are those that the model knows.
const TEMPLATE: &str = "{% if 'unanswerable' in input %}{{ raise_exception('as the test wants it') }}{% endif %}{{ spans | map(attribute='text') | join('/') }}";

/// Long enough for a busy machine to do what comes before it.
const WAIT: Duration = Duration::from_millis(250);

/// A tagger whose model waits for a permit for each run, and says of each run how many rows and columns it had; of a row of 9 tokens it fails.
struct Still {
    tagger: Tagger,
    task: Task,
    permits: std_mpsc::Sender<()>,
    runs: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl Still {
    fn new(queue_tokens: usize, context_tokens: usize) -> Self {
        Self::of(Limits {
            context_tokens,
            queue_tokens,
            run_tokens: RUN_TOKENS,
        })
    }

    fn of(limits: Limits) -> Self {
        let (permits, wait) = std_mpsc::channel::<()>();
        let runs = Arc::new(Mutex::new(Vec::new()));
        let told = runs.clone();
        let model = move |batch: Padded| {
            wait.recv().map_err(|e| e.to_string())?;
            assert!(batch.columns != 13, "as the test wants it");
            told.lock().expect("whole").push((batch.rows, batch.columns));
            if batch.mask.chunks(batch.columns).any(|row| row.iter().sum::<i64>() == 9) {
                return Err("nine tokens, as the test wants it".into());
            }
            let padding = batch
                .ids
                .iter()
                .zip(&batch.mask)
                .filter(|(id, mask)| (**id == 0) != (**mask == 0));
            assert_eq!(padding.count(), 0, "ids are padded where the mask says so");
            // Every word that is in the vocabulary begins a span.
            let tags = batch
                .ids
                .iter()
                .flat_map(|id| if *id > 3 { [0.0, 9.0, 0.0] } else { [9.0, 0.0, 0.0] });
            Ok(Logits {
                tags: tags.collect(),
                classes: Vec::new(),
            })
        };
        let tagset = Tagset::of(&Tag {
            classes: Vec::new(),
            labels: vec!["word".into()],
            allowed: Default::default(),
            input: None,
        });
        let mut answers = Answers::new().expect("an environment");
        answers.add("x.jinja", TEMPLATE, "t", &tagset).expect("a good template");
        let task = Task {
            name: "t".into(),
            held: Held::To(Form::Free),
            output_schema: Some(json!({"type": "object", "required": ["a"]})),
            required: None,
            template: Some("x.jinja".into()),
            input_schema: None,
            confidence_threshold: 0.0,
            calibration: Calibration::default(),
            scores_split: String::new(),
            scores: Default::default(),
        };
        let tokenizer = Tokenizer::from_bytes(BERT).expect("a tokenizer");
        let tagset = Arc::new(tagset);
        let reads = Spans::of(tagset.clone(), None, std::slice::from_ref(&task)).expect("no schema");
        let (tasks, tags) = (vec![Prepared::of(&task)], Tags { model, tagset, answers });
        Self {
            tagger: OneRun::over("still", tokenizer, limits, tasks, reads, tags).expect("a thread"),
            task,
            permits,
            runs,
        }
    }

    async fn ask(&self, text: &str, change: impl FnOnce(&mut Ask)) -> Result<Ticket, Error> {
        let mut ask = Ask {
            task: String::new(),
            prompt: Prompt::Text(text.to_owned()),
            sampling: Sampling::greedy(1),
            form: None,
            urgency: Urgency::default(),
            span: tracing::Span::none(),
        };
        change(&mut ask);
        self.tagger.generate(ask, &self.task).await
    }

    async fn asked(&self, text: &str) -> Ticket {
        self.ask(text, |_| {}).await.expect("admitted")
    }

    /// Waits until the owner thread has taken what is in the queue, and holds it.
    async fn taken(&self) {
        let live = || self.tagger.counters().live_slots.load(Ordering::Relaxed) > 0;
        while self.tagger.counters().queue_tokens.load(Ordering::Relaxed) > 0 || !live() {
            tokio::task::yield_now().await;
        }
    }

    fn permit(&self) {
        self.permits.send(()).expect("the model is there");
    }

    fn runs(&self) -> Vec<(usize, usize)> {
        self.runs.lock().expect("whole").clone()
    }
}

async fn text(ticket: Ticket) -> String {
    let done: Result<Done, Error> = ticket.complete().await;
    done.expect("answered").text
}

#[tokio::test]
async fn what_waits_runs_together_the_urgent_first_and_each_text_has_its_own_answer() {
    let still = Still::new(1000, 300);
    let first = still.asked("play").await;
    still.taken().await;
    let (many, few) = ("play jazz ".repeat(120), "jazz, miles".to_owned());
    let batch = still
        .ask(&many, |a| a.urgency.class = Class::Batch)
        .await
        .expect("admitted");
    let normal = still.asked(&few).await;
    let beside = still.asked("york").await;
    still.permit();
    assert_eq!(text(first).await, "play");
    still.permit();
    assert_eq!(
        (text(beside).await, text(normal).await),
        ("york".into(), "jazz/,/miles".into())
    );
    still.permit();
    assert_eq!(text(batch).await.split('/').count(), 240);
    // Three rows of 242 columns are more than run together, so the long one ran alone.
    assert_eq!(still.runs(), [(1, 3), (2, 5), (1, 242)]);
}

#[tokio::test]
async fn where_a_run_scales_what_is_in_it_each_text_runs_alone() {
    let still = Still::of(Limits {
        context_tokens: 64,
        queue_tokens: 100,
        run_tokens: 0,
    });
    let mut tickets = Vec::new();
    for said in ["play", "jazz", "york"] {
        tickets.push((said, still.asked(said).await));
        still.permit();
    }
    for (said, ticket) in tickets {
        assert_eq!(text(ticket).await, said);
    }
    assert_eq!(still.runs(), [(1, 3); 3]);
}

#[tokio::test]
async fn an_urgent_text_does_not_wait_for_others_that_are_less_so() {
    let still = Still::new(1000, 300);
    let first = still.asked("play").await;
    still.taken().await;
    let mut batch = Vec::new();
    for _ in 0..20 {
        batch.push(
            still
                .ask("jazz", |a| a.urgency.class = Class::Batch)
                .await
                .expect("admitted"),
        );
    }
    let urgent = still.ask("york", |a| a.urgency.class = Class::Interactive).await;
    (0..3).for_each(|_| still.permit());
    assert_eq!(text(first).await, "play");
    assert_eq!(text(urgent.expect("admitted")).await, "york");
    for ticket in batch {
        assert_eq!(text(ticket).await, "jazz");
    }
    assert_eq!(still.runs(), [(1, 3), (1, 3), (20, 3)]);
}

#[tokio::test]
async fn a_text_that_breaks_the_run_does_not_cost_the_one_beside_it_its_answer() {
    let still = Still::new(100, 64);
    let first = still.asked("play").await;
    still.taken().await;
    let (bad, good) = (still.asked(&"play ".repeat(7)).await, still.asked("some jazz").await);
    (0..4).for_each(|_| still.permit());
    text(first).await;
    let Err(Error::Broken { message }) = bad.complete().await else {
        panic!("the model fails of it")
    };
    assert!(message.contains("nine tokens, as the test wants it"), "{message}");
    assert_eq!(text(good).await, "some/jazz");
    assert_eq!(still.runs(), [(1, 3), (2, 9), (1, 9), (1, 4)]);
}

#[tokio::test]
async fn a_queue_full_of_tokens_refuses_and_what_nobody_waits_for_is_not_run() {
    let still = Still::new(10, 64);
    let first = still.asked(&"play ".repeat(20)).await;
    still.taken().await;
    let leaves = still.asked("play jazz by miles davis").await;
    let Err(Error::Busy { message, retry_after }) = still.ask("play jazz", |_| {}).await else {
        panic!("7 of 9 tokens wait, and 4 more do not fit");
    };
    assert!(message.contains("7 prompt tokens wait, and 9 may") && retry_after > Duration::ZERO);
    drop(leaves);
    still.permit();
    text(first).await;
    while still.tagger.counters().queue_tokens.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    let last = still.asked("play jazz").await;
    still.permit();
    assert_eq!(text(last).await, "play/jazz");
    assert_eq!(still.runs(), [(1, 22), (1, 4)], "nothing was run for the one that left");
    assert_eq!(still.tagger.counters().cancelled.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_text_whose_time_is_up_is_told_so_and_not_run() {
    let still = Still::new(100, 64);
    let first = still.asked("play").await;
    still.taken().await;
    let late = still
        .ask("jazz", |a| a.urgency.deadline = Some(Instant::now() + WAIT))
        .await;
    tokio::time::sleep(WAIT * 2).await;
    still.permit();
    text(first).await;
    let ended = late.expect("admitted").complete().await;
    assert!(matches!(ended, Err(Error::Expired { generated: 0 })), "{ended:?}");
    assert_eq!(still.runs(), [(1, 3)]);
}

#[tokio::test]
async fn a_text_that_the_template_fails_for_does_not_cost_the_one_beside_it_its_answer() {
    let still = Still::new(100, 64);
    let first = still.asked("play").await;
    still.taken().await;
    let (bad, good) = (still.asked("unanswerable jazz").await, still.asked("some jazz").await);
    still.permit();
    still.permit();
    text(first).await;
    let Err(Error::Broken { message }) = bad.complete().await else {
        panic!("the template refuses it")
    };
    assert!(
        message.contains("x.jinja") && message.contains("as the test wants it"),
        "{message}"
    );
    assert_eq!(
        (text(good).await, still.runs()),
        ("some/jazz".into(), vec![(1, 3), (2, 4)])
    );
}

#[tokio::test]
async fn a_stop_string_cuts_the_answer_and_an_empty_one_has_no_delta() {
    let still = Still::new(100, 64);
    let stop = |stop: &str| {
        let stop = vec![stop.to_owned(), "nowhere".to_owned()];
        move |a: &mut Ask| a.sampling.stop = stop
    };
    for (wanted, cut) in [("play", "/ja"), ("", "pl"), ("play/jazz", "jazz/")] {
        let mut ticket = still.ask("play jazz", stop(cut)).await.expect("admitted");
        still.permit();
        let mut delta = String::new();
        let done = loop {
            match ticket.next().await {
                Event::Delta(text) => {
                    assert!(!text.is_empty() && delta.is_empty(), "one, and not for nothing");
                    delta = text;
                }
                Event::Done(done) => break done,
                Event::Failed(error) => panic!("{error}"),
            }
        };
        assert_eq!((delta.as_str(), done.text.as_str()), (wanted, wanted));
        assert!(done.tokens.is_empty() && done.input_tokens == 4 && done.timings.decode == Duration::ZERO);
    }
}

#[tokio::test]
async fn a_form_is_taken_where_the_answer_has_it_anyway() {
    let still = Still::new(1000, 64);
    let own = || still.task.output_schema.clone().expect("a schema");
    for form in [
        None,
        Some(Form::Free),
        Some(Form::Schema(own())),
        Some(Form::Schema(json!({"type": "object"}))),
    ] {
        let ticket = still.ask("play", |a| a.form = form).await.expect("harmless");
        still.permit();
        text(ticket).await;
    }
    for form in [Form::Lark("start: /x/".into()), Form::Schema(json!({"type": "array"}))] {
        let refused = still.ask("play", |a| a.form = Some(form)).await;
        assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "constraint"));
    }
}

#[tokio::test]
async fn a_model_that_panics_stops_the_tagger_and_leaves_nobody_waiting() {
    let still = Still::new(100, 64);
    let running = still.asked(&"play ".repeat(11)).await;
    still.taken().await;
    let waiting = still.asked("jazz").await;
    still.permit();
    assert!(matches!(running.complete().await, Err(Error::Broken { .. })));
    assert!(matches!(waiting.complete().await, Err(Error::Closing)));
    still.tagger.stopped().cancelled().await;
    assert!(still.ask("jazz", |_| {}).await.is_err());
}

#[test]
fn what_the_model_gives_must_be_what_the_card_says() {
    let tagset = Tagset::of(&Tag {
        classes: vec!["a".into(), "b".into()],
        labels: vec!["word".into()],
        allowed: Default::default(),
        input: None,
    });
    let output = |shape: &[usize], value: f32| crate::runtime::Output {
        shape: shape.to_vec(),
        values: vec![value; shape.iter().product()],
    };
    let of = |outputs: Vec<_>| Logits::of(outputs, 2, 3, &tagset);
    let both = of(vec![output(&[2, 3, 3], 0.0), output(&[2, 2], 0.0)]).expect("fits");
    assert_eq!((both.tags.len(), both.classes.len()), (18, 4));
    for (tags, classes, value, wanted) in [
        (&[2, 3, 5][..], &[2, 2][..], 0.0, "tag_logits [2, 3, 5]"),
        (&[2, 3], &[2, 2], 0.0, "makes them [2, 3, 3]"),
        (&[2, 3, 3], &[2, 3], 0.0, "class_logits [2, 3]"),
        (&[2, 3, 3], &[2, 2], f32::NAN, "not finite"),
    ] {
        let told = of(vec![output(tags, 0.0), output(classes, value)])
            .err()
            .expect("refused");
        assert!(told.contains(wanted), "{told}");
    }
}
