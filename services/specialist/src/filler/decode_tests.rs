//! Calls of logits that are worked out by hand, and what holds of any logits.
use super::*;
use crate::filler::{asked::Asked, read::Token};
use proptest::prelude::*;

const TEXT: &str = "> book a cab to Oslo .";

fn slots() -> Slots {
    let text = r#"{"values": ["1", "2", "Oslo"], "slots": {"Cab_1.riders": [0, 1], "Bus_1.none": []}, "fields": ["street"], "returns": {"Cab_1.Get": ["street", "to"]}}"#;
    Slots::parse(text).expect("good")
}

fn given() -> Given {
    let name = |s: &str, m: &str| (s.to_owned(), m.to_owned());
    let words: Vec<usize> = TEXT
        .match_indices(|c: char| c != ' ')
        .map(|(i, _)| i)
        .filter(|i| *i == 0 || TEXT.as_bytes()[i - 1] == b' ')
        .collect();
    let end = |start: usize| TEXT[start..].find(' ').map_or(TEXT.len(), |n| start + n);
    Given {
        asked: Asked {
            methods: vec![name("Bus_1", "Find"), name("Cab_1", "Get")],
            parameters: vec![(0, "to".into()), (1, "to".into()), (1, "riders".into())],
            names: String::new(),
            method_starts: Vec::new(),
            parameter_starts: Vec::new(),
            text: TEXT.into(),
            runs_from: 0,
        },
        ids: vec![7; 9],
        method_at: vec![0, 1],
        parameter_at: vec![0, 1, 2],
        text: words
            .iter()
            .enumerate()
            .map(|(i, start)| Token {
                at: i + 2,
                start: *start,
                end: end(*start),
            })
            .collect(),
    }
}

/// Logits of [`given`]: two methods, three parameters, nine tokens.
#[derive(Debug, Clone)]
struct Made {
    called: Vec<f32>,
    order: Vec<f32>,
    source: Vec<f32>,
    value: Vec<f32>,
    first: Vec<f32>,
    last: Vec<f32>,
    origin: Vec<f32>,
    field: Vec<f32>,
}

impl Made {
    fn zero() -> Self {
        let zero = |n: usize| vec![0.0; n];
        Self {
            called: zero(2),
            order: zero(2),
            source: zero(3 * SOURCES),
            value: zero(9),
            first: zero(27),
            last: zero(27),
            origin: zero(6),
            field: zero(6),
        }
    }

    fn read(&self) -> (Vec<Call>, Vec<Choice>) {
        self.read_as(0.5, true)
    }

    fn read_as(&self, called: f64, references: bool) -> (Vec<Call>, Vec<Choice>) {
        self.read_by(&Filling {
            methods: "methods".into(),
            turns: "turns".into(),
            references,
            called,
            input: None,
            single: false,
            literal: false,
        })
    }

    fn read_by(&self, way: &Filling) -> (Vec<Call>, Vec<Choice>) {
        let rows = |values, width| Rows { values, width };
        let logits = Logits {
            called: &self.called,
            order: &self.order,
            source: rows(&self.source, SOURCES),
            value: rows(&self.value, 3),
            first: rows(&self.first, 9),
            last: rows(&self.last, 9),
            origin: rows(&self.origin, 2),
            field: rows(&self.field, 2),
        };
        read(&slots(), way, &given(), &logits)
    }
}

#[test]
fn each_source_gives_what_it_says_and_calls_stand_in_their_order() {
    let mut made = Made::zero();
    made.called = vec![5.0, 5.0];
    // The cab first, though the bus stands first.
    made.order = vec![1.0, -1.0];
    // The bus goes where the cab's `street` was; the cab to a run of words, for a known number of riders.
    for (p, source) in [(0, REFERENCE), (1, RUN), (2, VALUE)] {
        made.source[p * SOURCES + source] = 9.0;
    }
    made.field[1] = 9.0;
    made.first[9 + 7] = 9.0;
    made.last[9 + 8] = 9.0;
    // Likeliest of all would be a value that no number of riders can be.
    made.value[6..9].copy_from_slice(&[1.0, 2.0, 50.0]);
    let (calls, choices) = made.read();
    let texts: Vec<_> = calls
        .iter()
        .map(|c| (c.service.as_str(), c.parameters.clone()))
        .collect();
    let text = |t: &str| Fill::Text(t.into());
    assert_eq!(
        texts,
        [
            ("Cab_1", vec![("to".into(), text("Oslo")), ("riders".into(), text("2"))]),
            ("Bus_1", vec![("to".into(), Fill::Reference(1, "street".into()))]),
        ]
    );
    assert_eq!(choices.len(), 5, "two methods and three parameters");
    assert!(
        choices.iter().all(|c| c.logprob <= 0.0 && c.margin > 0.0),
        "{choices:?}"
    );
}

#[test]
fn a_literal_of_which_none_is_known_is_read_from_what_was_said() {
    let mut made = Made::zero();
    made.called = vec![5.0, -5.0];
    made.source[VALUE] = 9.0;
    // The bus's `to` is of no list: neither is the likeliest of all values its own.
    made.value[0] = 50.0;
    made.first[7] = 9.0;
    made.last[7] = 9.0;
    let (calls, choices) = made.read();
    assert_eq!(calls[0].parameters, [("to".to_owned(), Fill::Text("Oslo".into()))]);
    assert!(
        choices[2].margin < 0.0,
        "that it is not what the source says counts as doubt: {choices:?}"
    );
}

#[test]
fn the_first_call_refers_to_nothing_and_one_is_called_at_least() {
    let mut made = Made::zero();
    made.called = vec![-3.0, -2.0];
    for p in 0..3 {
        made.source[p * SOURCES + REFERENCE] = 50.0;
        made.source[p * SOURCES + ABSENT] = 9.0;
    }
    let (calls, choices) = made.read();
    assert_eq!(
        (calls.len(), calls[0].service.as_str(), calls[0].parameters.len()),
        (1, "Cab_1", 0)
    );
    // That it is called against its own logit counts as the doubt that it is.
    assert!(choices[1].logprob < -2.0 && choices[1].margin < 0.0, "{choices:?}");
}

#[test]
fn a_reference_is_to_a_field_that_the_call_returns_if_that_is_known() {
    let mut made = Made::zero();
    made.called = vec![9.0, 9.0];
    made.order = vec![-1.0, 1.0];
    made.source[2 * SOURCES + REFERENCE] = 9.0;
    // `riders`, by the parameter's own name, is likeliest; of the bus nothing is known, so it may return it.
    made.field[4] = 9.0;
    let filled = |made: &Made| {
        made.read().0[1]
            .parameters
            .iter()
            .find(|(n, _)| n == "riders")
            .map(|(_, f)| f.clone())
    };
    assert_eq!(filled(&made), Some(Fill::Reference(1, "riders".into())));
    // The cab is known, and returns no `to` of the bus but its own and a street.
    made.order = vec![1.0, -1.0];
    made.source[REFERENCE] = 9.0;
    made.field[..2].copy_from_slice(&[1.0, 2.0]);
    let to = made.read().0[1].parameters.clone();
    assert_eq!(to, [("to".to_owned(), Fill::Reference(1, "street".into()))]);
    let plain = made.read_as(0.5, false).0;
    assert!(
        plain
            .iter()
            .flat_map(|c| &c.parameters)
            .all(|(_, fill)| matches!(fill, Fill::Text(_)))
    );
    let known = Slots::parse(r#"{"values": [], "slots": {}, "fields": ["street"], "returns": {"Cab_1.Get": ["to"]}}"#);
    assert!(!known.expect("good").may_return("Cab_1", "Get", "street"));
}

#[test]
fn a_card_may_have_methods_called_that_are_not_likely() {
    let mut made = Made::zero();
    made.called = vec![-2.0, 3.0];
    let called = |least| made.read_as(least, true).0.len();
    assert_eq!((called(0.5), called(0.13), called(0.11), called(0.01)), (1, 1, 2, 2));
}

#[test]
fn a_run_that_is_stops_alone_fills_nothing() {
    let mut made = Made::zero();
    made.called = vec![-9.0, 9.0];
    made.source[SOURCES + RUN] = 9.0;
    made.first[9 + 8] = 9.0;
    made.last[9 + 8] = 9.0;
    made.source[2 * SOURCES + ABSENT] = 9.0;
    assert!(made.read().0[0].parameters.is_empty());
}

fn some(n: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-20.0..20.0f32, n)
}

proptest! {
    #[test]
    fn any_logits_make_calls_of_the_input_with_references_that_reach_back(
        called in some(2), order in some(2), source in some(12), value in some(9),
        (first, last, origin, field) in (some(27), some(27), some(6), some(6)),
    ) {
        let made = Made { called, order, source, value, first, last, origin, field };
        let (calls, choices) = made.read();
        prop_assert!(!calls.is_empty() && calls.len() <= 2);
        prop_assert!(choices.iter().all(|c| c.logprob <= 1e-9 && c.logprob.is_finite()));
        for (n, call) in calls.iter().enumerate() {
            prop_assert!(calls[..n].iter().all(|before| before.service != call.service));
            for (name, fill) in &call.parameters {
                match fill {
                    Fill::Reference(of, field) => prop_assert!(*of >= 1 && *of <= n && (field == name || field == "street")),
                    Fill::Text(text) if name == "riders" => prop_assert!(slots().values.contains(text) || TEXT.contains(text.as_str())),
                    Fill::Text(text) => prop_assert!(!text.is_empty()),
                }
            }
        }
    }
}

#[test]
fn one_method_is_called_and_its_values_are_runs_where_the_way_says_so() {
    let mut made = Made::zero();
    // Both would be called, and the cab's riders be a known value.
    made.called = vec![3.0, 5.0];
    made.source[2 * SOURCES + VALUE] = 9.0;
    made.source[2 * SOURCES + RUN] = 5.0;
    made.first[18 + 4] = 9.0;
    made.last[18 + 4] = 9.0;
    let way = Filling {
        methods: "methods".into(),
        turns: "turns".into(),
        references: false,
        called: 0.5,
        input: None,
        single: true,
        literal: true,
    };
    let (calls, choices) = made.read_by(&way);
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].method, "Get");
    assert_eq!(calls[0].parameters, [("riders".to_owned(), Fill::Text("a".into()))]);
    // One choice of the method, and one of each of its parameters.
    assert_eq!(choices.len(), 3);
    assert!((choices[0].logprob - log_softmax(&[3.0, 5.0])[1]).abs() < 1e-12);
    assert!((choices[0].margin - 2.0).abs() < 1e-12);
}
