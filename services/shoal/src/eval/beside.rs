//! What stands published on a task's corpus, or what a rule gets without a model: for a sense of scale.
use super::score::Task;

/// The trainer's words, which models/README.md shows.
pub(super) fn beside(task: Task) -> &'static str {
    match task {
        Task::ToolCall => {
            "slot-gated 0.755, Stack-Propagation 0.869, joint BERT 0.928; rules without a model (`rules`): score 0.310, tool 0.971, argument_f1 0.798"
        }
        Task::Plan => "score: AGIF on MixSNIPS 0.742; rules without a model (`rules`): splits 0.923",
        Task::Route => "score/oos_recall: SVM 0.910/0.145, MLP 0.935/0.474, BERT 0.969/0.403",
        Task::Extract => {
            "rules without a model (`rules`): score 0.820, exact_nonempty 0.736, false_extraction 0.024, unseen_score 0.701, unseen_exact_nonempty 0.554, unseen_false_extraction 0.019; a quarter of the targets are empty"
        }
        Task::Compose => {
            "a template look-up (`rules`): score 0.993, bleu 27.974, unseen_score 0.995, unseen_bleu 15.830; naming the values scores 1.0"
        }
        Task::Summarize => {
            "rules without a model (`rules`): score 0.728, exact 0.052, unseen_score 0.590, unseen_exact 0.007"
        }
        Task::Episode => {
            "rules without a model (`rules`): score 0.028, nodes_f1 0.9764, edges_f1 0.827, unseen_score 0.003, unseen_nodes_f1 0.926, unseen_edges_f1 0.467"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_words_are_the_trainers() {
        let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/shoal_trainer/tasks");
        for task in Task::ALL {
            let file = tasks.join(format!("{}.py", task.name()));
            let text = std::fs::read_to_string(&file).expect("the task's file");
            let said = text.lines().filter_map(|line| line.strip_prefix("    beside = "));
            let said: Vec<&str> = said.map(|text| text.trim_matches('"')).collect();
            assert_eq!(said, [beside(task)], "{}", file.display());
        }
    }
}
