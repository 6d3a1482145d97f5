//! The sums against sums made the slow way.
use super::*;
use proptest::prelude::*;

fn ended() -> impl Strategy<Value = Ended> {
    let cause = prop_oneof![Just("NOT_FOUND NO_MATCH".to_owned()), Just("UNAVAILABLE".to_owned())];
    prop_oneof![
        any::<Option<bool>>().prop_map(|right| Ended::Succeeded { right }),
        cause.clone().prop_map(|cause| Ended::TimedOut { cause }),
        cause.prop_map(|cause| Ended::Failed { cause }),
    ]
}

proptest! {
    #[test]
    fn every_plan_is_counted_once_and_every_wait_is_found_again(
        plans in prop::collection::vec((0u64..60_000, 0u64..60_000, ended()), 0..200), shed in 0u64..50,
    ) {
        let mut tally = Tally::new();
        let mut waits = Vec::new();
        for (scheduled, waited, how) in &plans {
            if !matches!(how, Ended::Failed { .. }) {
                waits.push(*waited);
            }
            let [scheduled, waited] = [scheduled, waited].map(|ms| Duration::from_millis(*ms));
            tally.ended(scheduled, scheduled + waited, how.clone());
        }
        (0..shed).for_each(|_| tally.shed());
        let out = tally.to_json(5.0);
        let count = |key: &str| out[key].as_u64().expect("a count");
        prop_assert_eq!(count("sent"), plans.len() as u64);
        prop_assert_eq!(count("succeeded") + count("failed"), count("sent"));
        prop_assert_eq!(tally.arrivals(), plans.len() as u64 + shed);
        let errors: u64 = out["errors"].as_object().expect("object").values().filter_map(Value::as_u64).sum();
        prop_assert_eq!(errors, count("failed"));
        waits.sort_unstable();
        for (key, q) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            let found = out["latency_ms"][key].as_f64();
            prop_assert_eq!(found.is_none(), waits.is_empty());
            let Some(found) = found else { continue };
            // The smallest wait that at least a share q of all reaches.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "200 at most")]
            let rank = ((q * waits.len() as f64).ceil() as usize).clamp(1, waits.len());
            #[expect(clippy::cast_precision_loss, reason = "a minute at most")]
            let slow = waits[rank - 1] as f64;
            prop_assert!((found - slow).abs() <= slow / 500.0 + 0.001, "{key}: {found} is not {slow}");
        }
    }
}

#[test]
fn the_object_has_the_keys_in_their_order_and_right_only_where_there_is_a_target() {
    let mut tally = Tally::new();
    let ms = Duration::from_millis;
    tally.ended(ms(0), ms(500), Ended::Succeeded { right: None });
    let keys = |tally: &Tally| -> Vec<String> {
        tally
            .to_json(2.0)
            .as_object()
            .expect("object")
            .keys()
            .cloned()
            .collect()
    };
    let without = [
        "rate",
        "sent",
        "succeeded",
        "failed",
        "shed",
        "latency_ms",
        "achieved_rate",
        "errors",
    ];
    assert_eq!(keys(&tally), without);
    tally.ended(ms(1000), ms(2000), Ended::Succeeded { right: Some(false) });
    let out = tally.to_json(2.0);
    assert_eq!((&out["right"], &out["achieved_rate"]), (&json!(0), &json!(1.0)));
    assert!(keys(&tally).contains(&"right".to_owned()));
}

#[test]
fn a_wait_counts_from_the_scheduled_time_and_a_refusal_has_none() {
    let mut tally = Tally::new();
    let ms = Duration::from_millis;
    // Sent late, because the generator or the mesh was busy: the wait is charged all the same.
    tally.ended(ms(100), ms(1100), Ended::Succeeded { right: Some(true) });
    let refused = "RESOURCE_EXHAUSTED".to_owned();
    tally.ended(ms(200), ms(201), Ended::Failed { cause: refused });
    let out = tally.to_json(1.0);
    assert_eq!(out["latency_ms"]["p50"], out["latency_ms"]["max"]);
    assert!(
        out["latency_ms"]["max"]
            .as_f64()
            .is_some_and(|ms| (999.0..=1002.0).contains(&ms))
    );
    assert_eq!(out["errors"], json!({"RESOURCE_EXHAUSTED": 1}));
}

#[test]
fn a_peer_that_makes_up_causes_cannot_grow_the_table() {
    let mut tally = Tally::new();
    for n in 0..1000 {
        tally.ended(
            Duration::ZERO,
            Duration::ZERO,
            Ended::Failed {
                cause: format!("UNKNOWN R{n}"),
            },
        );
    }
    let out = tally.to_json(1.0);
    assert_eq!(out["errors"].as_object().map(serde_json::Map::len), Some(KINDS + 1));
    assert_eq!(out["errors"]["OTHER"], json!(1000 - KINDS));
    assert_eq!(out["latency_ms"]["p50"], Value::Null);
}
