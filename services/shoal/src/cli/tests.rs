//! The command line as people type it.
use super::*;
use clap::CommandFactory as _;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|c| c.command)
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_worth_reading() {
    fn walk(command: &clap::Command) {
        for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
            assert!(
                sub.get_about().is_some_and(|a| a.to_string().len() > 20),
                "{}: about",
                sub.get_name()
            );
            for argument in sub.get_arguments().filter(|a| !a.is_hide_set()) {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}: help",
                    sub.get_name(),
                    argument.get_id()
                );
            }
            walk(sub);
        }
    }
    walk(&Cli::command());
}

fn long_help(path: &[&str]) -> String {
    let mut command = Cli::command();
    let mut at = &mut command;
    for name in path {
        at = at.find_subcommand_mut(name).expect("a command");
    }
    at.render_long_help().to_string()
}

#[test]
fn helps_say_what_the_commands_do() {
    let eval = long_help(&["eval"]);
    assert!(eval.contains("compose has BLEU") && !eval.contains("no BLEU"), "{eval}");
    let submit = long_help(&["feedback", "submit"]);
    for said in [
        "PLAN_ID planner --correction '\"1. tool_call: play some jazz\\n2. ",
        "PLAN_ID router --correction '\"book_hotel\"'",
    ] {
        assert!(submit.contains(said), "`{said}` is not in: {submit}");
    }
}

#[test]
fn what_is_typed_is_what_is_meant() {
    assert!(
        matches!(parse("shoal run plan.yaml --json"), Ok(Command::Run(a)) if a.json && a.what.as_deref() == Some("plan.yaml"))
    );
    assert!(matches!(parse("shoal run --turns t.txt"), Ok(Command::Run(a)) if a.what.is_none()));
    assert!(
        matches!(parse("shoal status --json --gateway h:1"), Ok(Command::Status(a)) if a.connect.gateway.is_some())
    );
    let specialist = parse("shoal specialist mine --folder m --provider cuda --listen 127.0.0.1:0 --exit-with-parent");
    assert!(matches!(specialist, Ok(Command::Specialist(a)) if a.process.exit_with_parent && a.provider.is_some()));
    assert!(matches!(parse("shoal feedback --listen 127.0.0.1:0"), Ok(Command::Feedback(a)) if a.command.is_none()));
    let export = parse("shoal feedback export --task tool_call --successful --after 2026-11-01 --format task");
    assert!(
        matches!(export, Ok(Command::Feedback(FeedbackArgs { command: Some(FeedbackCommand::Export(a)), .. })) if a.successful)
    );
    assert!(matches!(
        parse("shoal eval tool_call f.jsonl.gz --limit 3"),
        Ok(Command::Eval(_))
    ));
    let add = parse("shoal model add e --name mine --task t --task u --version 2 --pooling cls");
    assert!(matches!(add, Ok(Command::Model(ModelCommand::Add(a))) if a.version == Some(2) && a.task == ["t", "u"]));
    assert!(matches!(parse("shoal retrain tool_call"), Ok(Command::Retrain(a)) if a.data.is_none() && !a.dry_run));
    assert!(matches!(parse("shoal retrain tool_call --dry-run"), Ok(Command::Retrain(a)) if a.dry_run));
    assert!(
        matches!(parse("shoal activate a 2 --wait 5"), Ok(Command::Activate(a)) if a.version == Some(2) && a.wait.as_secs() == 5)
    );
    assert!(matches!(parse("shoal activate a --json"), Ok(Command::Activate(a)) if a.version.is_none()));
    assert!(matches!(parse("shoal onnxruntime --json"), Ok(Command::Onnxruntime(a)) if a.json));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for line in [
        "shoal run",
        "shoal run goal --turns t.txt",
        "shoal run goal --local --gateway h:1",
        "shoal run goal --deadline soon",
        "shoal feedback submit p",
        "shoal feedback submit p --right --wrong",
        "shoal specialist x --provider tpu",
        "shoal eval juggling f.jsonl",
        "shoal model add e --task t",
        "shoal model add e --name mine --task t --version 0",
        "shoal activate",
        "shoal activate a latest",
        "shoal activate a --wait 5",
        "shoal frobnicate",
    ] {
        assert!(parse(line).is_err_and(|e| e.use_stderr()), "{line}");
    }
}
