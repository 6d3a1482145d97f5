use super::*;

fn opening(plan_id: &str, content: u64) -> Opening {
    Opening {
        plan_id: plan_id.into(),
        trace_id: String::new(),
        deadline: Duration::from_secs(9),
        content,
        detach: false,
    }
}

fn begin(plans: &Plans, plan_id: &str) -> (Arc<Plan>, Running) {
    match plans.begin(opening(plan_id, 1)) {
        Ok(Begun::New(plan, running)) => (plan, running),
        other => panic!("not begun: {other:?}"),
    }
}

fn end(plans: &Plans, plan: &Arc<Plan>) {
    plan.log.push(Event::Finished(v1::PlanFinished {
        state: v1::State::Succeeded.into(),
        ..v1::PlanFinished::default()
    }));
    plans.ended(plan);
}

#[tokio::test]
async fn as_many_plans_run_as_may_and_one_more_is_told_when_to_come_back() {
    let plans = Plans::new(2, 9, Instruments::default());
    let (_first, running) = begin(&plans, "a");
    let _second = begin(&plans, "b");
    match plans.begin(opening("c", 1)) {
        Err(Error::Full { retry_after, .. }) => assert!(!retry_after.is_zero()),
        other => panic!("{other:?}"),
    }
    // A repetition is no further plan.
    assert!(matches!(plans.begin(opening("a", 1)), Ok(Begun::Same(_))));
    drop(running);
    begin(&plans, "c");
}

#[tokio::test]
async fn an_id_is_taken_by_other_content_and_free_again_once_forgotten() {
    let plans = Plans::new(9, 1, Instruments::default());
    let (a, running) = begin(&plans, "a");
    assert!(matches!(plans.begin(opening("a", 2)), Err(Error::PlanTaken { .. })));
    end(&plans, &a);
    drop(running);
    assert!(matches!(plans.begin(opening("a", 1)), Ok(Begun::Same(_))), "kept");
    let (b, _running) = begin(&plans, "b");
    end(&plans, &b);
    assert!(
        plans.get("a").is_none() && plans.get("b").is_some(),
        "the oldest is forgotten"
    );
}

#[tokio::test]
async fn the_last_client_to_leave_cancels_the_plan_and_an_earlier_one_does_not() {
    let plans = Plans::new(9, 9, Instruments::default());
    let (plan, _running) = begin(&plans, "a");
    let (first, second) = (plan.clone().attach(), plan.clone().attach());
    drop(first);
    assert!(!plan.cancelled.is_cancelled());
    drop(second);
    assert_eq!(plan.cancelled().await.to_string(), "its client has gone");
    plan.cancel(Error::Cancelled { why: "too late".into() });
    assert_eq!(plan.cancelled().await.to_string(), "its client has gone");
}

#[tokio::test]
async fn a_detached_plan_outlives_its_clients_and_the_store_waits_for_it() {
    let plans = Plans::new(9, 9, Instruments::default());
    let detached = Opening {
        detach: true,
        ..opening("a", 1)
    };
    let Ok(Begun::New(plan, running)) = plans.begin(detached) else {
        panic!("begun")
    };
    drop(plan.clone().attach());
    assert!(!plan.cancelled.is_cancelled());
    let waiting = tokio::time::timeout(Duration::from_millis(5), plans.idle()).await;
    assert!(waiting.is_err(), "it still runs");
    plans.cancel_all(&Error::Cancelled { why: "shutdown".into() });
    assert_eq!(plan.cancelled().await.to_string(), "shutdown");
    drop(running);
    plans.idle().await;
}
