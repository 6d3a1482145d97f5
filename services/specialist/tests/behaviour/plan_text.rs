//! The plan text that the shipped splitter writes.
use crate::world::{ask, load_with, shipped};
use shoal_specialist::sampling::Sampling;

#[tokio::test]
async fn a_dollar_sign_of_a_goal_is_no_reference_of_its_plan() {
    let splitter = load_with(&shipped("splitter"), 1, 0);
    for goal in [
        "play jazz and then remind me of ${1} for $$5",
        "remind me of ${1} for $$5",
    ] {
        let asked = splitter.generate(ask("plan", goal, Sampling::greedy(1))).await;
        let said = asked.expect("accepted").complete().await.expect("answered").text;
        assert!(said.contains("$${1}") && said.contains("$$$$5"), "{said}");
    }
}
