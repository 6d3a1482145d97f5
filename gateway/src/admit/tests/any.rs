//! Whatever comes: a refusal by field, or a plan; never a panic.
use super::*;
use proptest::prelude::*;
use shoal_kit::status::Reason;

fn any_node() -> impl Strategy<Value = v1::Node> {
    let kind = prop_oneof![
        ("\\PC{0,8}", "(\\PC|\\$|\\{|\\}|a|\\.){0,20}", "\\PC{0,12}").prop_map(|(task, input, output_schema_json)| {
            Some(NodeKind::Model(v1::ModelCall {
                task,
                input,
                output_schema_json,
                ..v1::ModelCall::default()
            }))
        }),
        ("[A-Za-z.]{0,8}", "(\\PC|\"|\\{|\\}|\\$){0,20}")
            .prop_map(|(name, arguments_json)| Some(NodeKind::Tool(v1::ToolCall { name, arguments_json }))),
        Just(None)
    ];
    let numbers = (any::<u32>(), any::<i64>(), any::<i32>(), any::<i32>());
    (
        "\\PC{0,6}",
        kind,
        prop::collection::vec("[a-c]{0,2}", 0..3),
        numbers,
        any::<bool>(),
    )
        .prop_map(
            |(id, kind, after, (max_attempts, seconds, nanos, action), flag)| v1::Node {
                id,
                kind,
                after,
                timeout: flag.then_some(prost_types::Duration { seconds, nanos }),
                max_attempts,
                on_failure: Some(v1::FailurePolicy {
                    action,
                    ..v1::FailurePolicy::default()
                }),
                human_facing: flag,
                private: flag,
            },
        )
}

proptest! {
    #[test]
    fn any_plan_is_admitted_or_refused_by_field_and_never_panics(nodes in prop::collection::vec(any_node(), 0..6), priority: i32, cost: f64, seconds: i64) {
        let limits = v1::PlanLimits {
            deadline: Some(prost_types::Duration { seconds, nanos: 0 }),
            max_cost_usd: cost,
            priority,
            ..v1::PlanLimits::default()
        };
        let request = v1::ExecutePlanRequest { limits: Some(limits), ..of_plan(nodes) };
        match admit(request) {
            Ok(admitted) => prop_assert!(matches!(admitted.source, Source::Steps(..))),
            Err(Error::Invalid(violations)) => prop_assert!(!Reason::Invalid(violations).to_string().is_empty()),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn any_plan_text_is_admitted_or_refused_and_never_panics(text in "([0-9]{1,2}\\. [A-Za-z.]{0,6}[:(]?[a-z=$\"{}.,)0-9 ]{0,30}\n?){0,4}") {
        let source = Some(Wire::PlanText(text));
        drop(admit(v1::ExecutePlanRequest { source, ..v1::ExecutePlanRequest::default() }));
    }
}
