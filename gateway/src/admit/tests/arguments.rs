//! What a tool call's arguments may be.
use super::*;

#[test]
fn arguments_are_held_to_their_schema_as_far_as_they_are_known() {
    assert!(said(of_plan(vec![tool("a", "S.M", r#"{"x": 7}"#)])).contains("input schema of S.M"));
    assert!(said(of_plan(vec![tool("a", "S.M", "")])).contains("input schema of S.M"));
    // What `x` will be is known when `a` has answered.
    admit(of_plan(vec![model("a", ""), tool("b", "S.M", r#"{"x": "${a}"}"#)])).expect("admitted");
    admit(of_plan(vec![tool("a", "Client.Tool", r#"{"anything": 1}"#)])).expect("the client answers it");
}

#[test]
fn an_integer_in_arguments_is_the_one_that_was_written_or_is_refused() {
    let of = |x: &str| of_plan(vec![tool("a", "Client.Tool", &format!(r#"{{"x": {x}}}"#))]);
    for large in ["98765432109876543210", "[-9223372036854775809]"] {
        assert_eq!(fields(of(large)), ["plan.nodes[0].tool.arguments_json"], "{large}");
        assert!(said(of(large)).contains("write it as a string"), "{large}");
    }
    for fits in [
        "18446744073709551615",
        "-9223372036854775808",
        "\"98765432109876543210\"",
    ] {
        let Ok(Admitted {
            source: Source::Steps(graph, _),
            ..
        }) = admit(of(fits))
        else {
            panic!("admitted")
        };
        let shoal_plan::Kind::Tool { arguments, .. } = &graph.node(0).kind else {
            panic!("a tool")
        };
        assert_eq!(
            arguments.fill(&|_| None).expect("no references").to_string(),
            format!(r#"{{"x":{fits}}}"#)
        );
    }
}
