//! The command line: every command, what its help says, and which module does it.
use crate::{
    activate, config_check, decompose, demo, eval, exit::Result, feedback, health, model, onnxruntime, process,
    retrain, run, status, supervise, why,
};
use clap::{Args, Parser, Subcommand};

const AFTER: &str = "\
Exit codes: 0 done; 1 the plan failed, or the mesh refused; 3 a retrained model is no better and was not taken; 64 the command line, a file or the configuration is wrong, and
nothing was started; 69 the mesh or a part of it cannot be reached; 70 an internal fault; 74 standard output could not be written. The message
says what to do.
Standard output has what was asked for; logs and progress go to standard error.

Start here:
  shoal demo                            everything at once, on free ports, in ./data
  shoal up                              the mesh of mesh.toml, until Ctrl-C
  shoal run \"play some jazz, and will it rain in Oslo tomorrow\"";

/// A gRPC mesh of small language models for agents: a goal or a plan in, every step on the smallest model that does it well,
/// every outcome kept.
#[derive(Parser, Debug)]
#[command(name = "shoal", version, about, long_about = None, after_help = AFTER, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show what the mesh does: start it, run goals with real models, keep the outcomes
    ///
    /// Finds or fetches ONNX Runtime, starts feedback, the concierge, every specialist of mesh.toml and the gateway as
    /// separate processes on free ports, waits until each is healthy, and runs goals through the gateway over gRPC:
    /// requests joined in one sentence (planner, then parallel calls), conversations whose plan has edges across services
    /// (a table, then a cab to its address), and requests that the specialist is unsure of, which go to the larger model.
    /// Each plan is shown as it runs and judged against what people wrote down as right.
    ///
    /// Exits 0 even if a model answers wrongly (the summary counts it), and with another code if anything else fails.
    /// With --json standard output ends with one object: {plans, succeeded, right, dependent_edges,
    /// answered, outcomes_acknowledged, trace_ids}.
    #[command(
        after_help = "Examples:\n  shoal demo\n  shoal demo --json | tail -1\n  shoal demo --teach\n  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 shoal demo   send the traces to a UI"
    )]
    Demo(demo::DemoArgs),

    /// Run the whole mesh until Ctrl-C, restarting what dies
    ///
    /// Starts feedback, the concierge, every specialist with a folder, and last the gateway, each as a process of its own,
    /// and prints what runs where. A process that dies is started again at the same address after 0.1 s, then after
    /// doubling pauses up to 10 s, and standard error says so. Ctrl-C drains: the gateway first, feedback last.
    #[command(
        after_help = "Examples:\n  shoal up\n  shoal up --config other.toml --verbose\n  SHOAL_GATEWAY__LISTEN=0.0.0.0:7400 shoal up"
    )]
    Up(supervise::UpArgs),

    /// Run a goal in words, or a plan file, and watch it
    ///
    /// A goal is turned into a plan by the planner and runs while the planner still writes. NAME.yaml is a typed plan,
    /// NAME.plan is plan text, one step a line, $1.field referring to an earlier step. On a terminal each node has a line
    /// that is redrawn; in a pipe each event is a line. Ctrl-C cancels the plan, unless --detach is given.
    #[command(after_help = "Examples:
  shoal run \"play some jazz, and will it rain in Oslo tomorrow\"
  shoal run trip.yaml --deadline 20s
  shoal run --turns conversation.txt
  shoal run trip.plan --json | tail -1 | jq .outputs
  shoal run --local \"play some jazz\"        start a mesh for this one goal

trip.yaml:
  nodes:
    - {id: find, tool: Restaurants_2.FindRestaurants, arguments: {category: Coffeehouse, location: Newark}}
    - {id: ride, tool: RideSharing_1.GetRide, arguments: {destination: \"${find.address}\", number_of_riders: \"2\",
       shared_ride: \"True\"}, on_failure: skip}
trip.plan:
  1. Restaurants_2.FindRestaurants(category=\"Coffeehouse\", location=\"Newark\")
  2. RideSharing_1.GetRide(destination=$1.address, number_of_riders=\"2\", shared_ride=\"True\")
  3. tool_call: play some jazz while we wait")]
    Run(run::RunArgs),

    /// Show the plan that the planner makes of a goal, and run nothing
    #[command(
        after_help = "Examples:\n  shoal decompose \"play some jazz, and will it rain in Oslo tomorrow\"\n  shoal decompose --turns conversation.txt --json"
    )]
    Decompose(decompose::DecomposeArgs),

    /// Show how a plan went: waterfall, critical path, edges, where each node ran and why
    ///
    /// Nodes on the critical path, which decided how long the plan took, are marked with *. Under the waterfall stand every
    /// target that was considered for each node and what came of it. Plans that the gateway has forgotten are rebuilt from
    /// the feedback store.
    #[command(after_help = "Example:\n  shoal why 0193a5c2-7d1e-7f00-8000-000000000000")]
    Why(why::WhyArgs),

    /// Watch a plan from its first event on, running or ended
    Watch(run::PlanArgs),

    /// Cancel what still runs of a plan
    Cancel(run::PlanArgs),

    /// Show what runs where: process, pid, address, state, version, provider in use, requests in flight
    ///
    /// Exits 69 if the gateway, or any process that it is configured with, cannot be reached.
    Status(status::StatusArgs),

    /// Switch a specialist to another of its versions, or show which there are
    ///
    /// The version's folder is checked, then `active_version` in the specialist's specialist.toml is written; a process that
    /// runs sees that within a second, loads the version beside the one that serves, and switches without a stop. Going back
    /// is the same command with the number of before. Without VERSION every version is shown with the scores of its card.
    ///
    /// Exits 64 if the folder is at fault, with nothing changed; 1 if a process refused the version and went on with its own,
    /// which specialist.toml then names again; 69 if none had switched in time.
    #[command(
        after_help = "Examples:\n  shoal activate tool_call                which versions there are, and which serves\n  shoal activate tool_call 2              switch, and wait until it serves\n  shoal activate tool_call 1 --wait 0     back again, without waiting"
    )]
    Activate(activate::ActivateArgs),

    /// Put a model of your own in service
    #[command(subcommand)]
    Model(ModelCommand),

    /// Score the mesh on rows of the task data
    ///
    /// Every row goes through the running mesh over gRPC: tool_call, route, extract, compose and summarize as a plan of one
    /// node; plan as a goal, its nodes run; episode is only decomposed, no tool is called. Prints one JSON object with
    /// --json, else the figures, a 95 % bootstrap interval of the score, and the commonest confusions; rows of services that
    /// training never saw stand apart. A missing or malformed answer is wrong, never skipped. compose has BLEU too, as
    /// sacrebleu computes it, and needs no Python for it; score.py has it only where sacrebleu is installed.
    #[command(after_help = "Examples:
  shoal eval tool_call tool_call.dev.jsonl.gz --limit 100
  shoal eval plan plan.dev.jsonl.gz --json --predictions plan.predictions.jsonl
  shoal eval episode episode.dev.jsonl.gz --from episode.predictions.jsonl     score a file, ask nobody")]
    Eval(eval::EvalArgs),

    /// Retrain a task's model on what people corrected, and put the new version in service if it is better
    ///
    /// Exports the corrections from feedback; sets aside those that break the task's schema, that its form could never say, that
    /// contradict each other or that flood; trains the active version's own weights further on the rest, mixed with the training
    /// data; and judges both versions on corrections that were held out and on dev rows. Only if the held-out corrections got better,
    /// dev lost at most half a point over all turns, and no bar of the task is broken, the new version gets its folder, becomes active, and a
    /// running mesh serves it. If it is no better, it exits 3; if another version was activated while it trained, 1. In both cases nothing was
    /// changed, and the candidate is in the work folder.
    #[command(after_help = "Examples:
  shoal retrain tool_call --data data/corpus
  shoal retrain tool_call --dry-run                 how many corrections there are, and what is wrong with the others
  shoal retrain tool_call --dry-run --data DIR      and which of them DIR contradicts
  shoal retrain plan --data DIR --minutes 10 --json | tail -1

Once: python3 -m venv .venv && .venv/bin/pip install --editable services/trainer")]
    Retrain(retrain::RetrainArgs),

    /// Run the feedback service, or use the store: export training rows, submit a word on an outcome
    ///
    /// Without a subcommand this runs the service that keeps outcomes (one process of the mesh).
    #[command(args_conflicts_with_subcommands = true)]
    Feedback(FeedbackArgs),

    /// Run the gateway: agent plan in, subtask calls out
    #[command(after_help = PROCESS)]
    Gateway(process::ProcessArgs),

    /// Run one specialist: an ONNX model behind gRPC
    #[command(
        after_help = "Examples:\n  shoal specialist tool_call\n  shoal specialist mine --folder models/mine --listen 127.0.0.1:7500 --http-listen 127.0.0.1:7501\n  shoal specialist tool_call --provider cuda"
    )]
    Specialist(process::SpecialistArgs),

    /// Run the concierge: a tool server over recorded data
    #[command(after_help = PROCESS)]
    Concierge(process::ProcessArgs),

    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Find ONNX Runtime, fetching it if it is nowhere, and print where it is
    ///
    /// Looks where every specialist looks, in this order: onnxruntime.path or ORT_DYLIB_PATH, the system's library folders,
    /// the cache (onnxruntime.cache), and last the wheel on PyPI, by pip, checked by its sha256 and kept in the cache. For
    /// images and machines that are prepared before they are cut off from the network.
    #[command(
        after_help = "Examples:\n  shoal onnxruntime\n  cp \"$(shoal onnxruntime)\" image/libonnxruntime.so\n  shoal onnxruntime --json   {\"path\": ..., \"source\": \"cache\"}"
    )]
    Onnxruntime(onnxruntime::LibraryArgs),

    /// Ask one process whether it is healthy (grpc.health.v1), for containers' health checks
    #[command(after_help = "Example:\n  shoal health 127.0.0.1:7400")]
    Health(health::HealthArgs),
}

const PROCESS: &str =
    "Runs until SIGINT, SIGTERM or SIGHUP, then drains. Exits 64 before anything is served if the configuration is wrong or an
address is taken.";

/// `shoal feedback`, with or without a subcommand.
#[derive(Args, Debug)]
pub struct FeedbackArgs {
    /// What to do with the store; without it, run the service.
    #[command(subcommand)]
    pub command: Option<FeedbackCommand>,
    /// How to run the service.
    #[command(flatten)]
    pub process: process::ProcessArgs,
}

/// Uses of the store.
#[derive(Subcommand, Debug)]
pub enum FeedbackCommand {
    /// Write outcomes as training rows, JSON lines, to standard output
    #[command(
        after_help = "Examples:\n  shoal feedback export --task tool_call --successful > tool_call.jsonl\n  shoal feedback export --corrected --format task --after 2026-11-01"
    )]
    Export(feedback::ExportArgs),
    /// Say whether an output was right, or what it should have been
    ///
    /// The calls ahead of a plan's steps are nodes too, as `shoal why` shows: `planner` made the steps of what was said, and `router` told its
    /// intent. How a request was split is corrected at `planner` with the steps that it should have become, and what a conversation comes to with its
    /// calls: plan text as one JSON string, or the list of the task's data. At `router` the correction is the intent, and where that was followed
    /// the calls are corrected at `intent-planner`. `shoal retrain` learns them as `plan`, `episode` and `route`.
    #[command(after_help = r#"Examples:
  shoal feedback submit PLAN_ID 2 --wrong
  shoal feedback submit PLAN_ID 2 --correction '{"tool": "PlayMusic", "arguments": {"genre": "jazz"}}'
  shoal feedback submit PLAN_ID planner --correction '"1. tool_call: play some jazz\n2. tool_call: book a table for two"'
  shoal feedback submit PLAN_ID planner --correction '[{"task": "tool_call", "input": "play some jazz"}]'
  shoal feedback submit PLAN_ID planner --correction '"1. Hotels_1.SearchHotel(destination=\"Newark\")"'   of a conversation
  shoal feedback submit PLAN_ID router --correction '"book_hotel"'"#)]
    Submit(feedback::SubmitArgs),
}

/// Uses of models.
#[derive(Subcommand, Debug)]
pub enum ModelCommand {
    /// Make a specialist's folder of what an exporter wrote, and say what mesh.toml lacks
    ///
    /// Takes a decoder of onnxruntime_genai.models.builder or of optimum, a classifier that gives `logits`, or an encoder of vectors. What kind it is, how long
    /// a text it takes and which labels it has are read from its own files; they are copied to MODELS/NAME/N, with a card.toml that lists the sha256 of
    /// each, and the copy is started once as the mesh would start it, before it gets its name. The lines that mesh.toml lacks go to standard output, all else to
    /// standard error. A further version (--version 2) goes beside those that are there; `shoal activate` has it served.
    ///
    /// Nothing is ever written over. What cannot be served is refused by name, with 64, and nothing is left of it.
    #[command(
        disable_version_flag = true,
        after_help = "Examples:
  shoal model add exports/qwen --name mine --task chat --licence Apache-2.0
  shoal model add exports/qwen --name mine --task chat >> mesh.toml         and the mesh has it
  shoal model add exports/qwen2 --name mine --version 2                     another version of it
  shoal model add exports/intents --name intents --task route               a classifier; its labels are those of config.json
  shoal model add exports/bge --name vectors --task embed --pooling cls     an embedder whose files do not say how it pools"
    )]
    Add(model::AddArgs),
}

/// Uses of the configuration.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Show every effective value and where it comes from: default, file and line, or environment variable
    ///
    /// Exits 64 with the line if the configuration would be refused.
    Check(config_check::ConfigArgs),
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done, with its exit code.
pub async fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Demo(args) => demo::demo(args).await,
        Command::Up(args) => supervise::up(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Decompose(args) => decompose::decompose(args).await,
        Command::Why(args) => why::why(args).await,
        Command::Watch(args) => run::watch(args).await,
        Command::Cancel(args) => run::cancel(args).await,
        Command::Status(args) => status::status(args).await,
        Command::Activate(args) => activate::command(args).await,
        Command::Model(ModelCommand::Add(args)) => model::add(args).await,
        Command::Eval(args) => eval::eval(args).await,
        Command::Retrain(args) => retrain::retrain(args).await,
        Command::Feedback(FeedbackArgs { command: None, process }) => process::feedback(process).await,
        Command::Feedback(FeedbackArgs {
            command: Some(FeedbackCommand::Export(args)),
            ..
        }) => feedback::export(args).await,
        Command::Feedback(FeedbackArgs {
            command: Some(FeedbackCommand::Submit(args)),
            ..
        }) => feedback::submit(args).await,
        Command::Gateway(args) => process::gateway(args).await,
        Command::Specialist(args) => process::specialist(args).await,
        Command::Concierge(args) => process::concierge(args).await,
        Command::Config(ConfigCommand::Check(args)) => config_check::check(&args),
        Command::Onnxruntime(args) => onnxruntime::print(args).await,
        Command::Health(args) => health::health(args).await,
    }
}

#[cfg(test)]
mod tests;
