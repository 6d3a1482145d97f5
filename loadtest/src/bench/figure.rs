//! The figures: what each is called, and what it has to be.
use clap::ValueEnum;

/// Which command measures a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// `shoal-loadtest engine`.
    Engine,
    /// `shoal-loadtest specialist`.
    Specialist,
    /// `shoal-loadtest colocated`.
    Colocated,
    /// `shoal-loadtest gpu`.
    Gpu,
}

impl Command {
    /// As it is typed.
    fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Specialist => "specialist",
            Self::Colocated => "colocated",
            Self::Gpu => "gpu",
        }
    }
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Ours over theirs.
    Ratio,
    /// A part of 1.
    Share,
    /// Microseconds.
    Micros,
    /// Megabytes of 10^6 bytes.
    Megabytes,
}

/// A figure's name, as `--only` takes it and the object has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Name {
    /// One sequence, tokens/s, against genai's Generator
    SingleVsGenai,
    /// 16 sequences of 16 to 256 new tokens, tokens/s, against genai's static batch
    #[value(name = "skewed16_vs_genai_static")]
    Skewed16VsGenaiStatic,
    /// The same against genai's Engine
    #[value(name = "skewed16_vs_genai_engine")]
    Skewed16VsGenaiEngine,
    /// 16 live rows against one, tokens/s, as a share of the same ratio of a bare ONNX Runtime loop
    #[value(name = "rows16_vs_bare")]
    Rows16VsBare,
    /// The part of 16 rows' decoding that is not ONNX Runtime's own run
    StepOverhead,
    /// Decoding held to a JSON schema against free decoding, tokens/s
    ConstrainedVsFree,
    /// First token with a kept 512-token prefix against one that is new
    PrefixFirstToken,
    /// p99 of the time between two tokens of 8 rows while long prompts arrive, against the same rows alone
    #[value(name = "inter_token_p99_beside_prompts")]
    InterTokenP99BesidePrompts,
    /// What gRPC adds to the first token
    FirstTokenAddedUs,
    /// Classifying over the Open Inference Protocol, requests/s, against MLServer with the same ONNX file
    ClassifyVsMlserver,
    /// Memory of a specialist at rest, beyond its weights
    RssBeyondWeightsMb,
    /// Processor time of six specialists that nobody asks anything, as a share of one core
    #[value(name = "idle6_cpu")]
    Idle6Cpu,
    /// Six busy specialists of one thread, tokens/s together, against one that has the machine
    #[value(name = "busy6_vs_one")]
    Busy6VsOne,
    /// p99 of requests to one specialist beside one that decodes in the background, against the same alone
    #[value(name = "interactive_p99_beside_batch")]
    InteractiveP99BesideBatch,
    /// On a GPU: 64 rows of a decoder of half a billion parameters against one, tokens/s
    #[value(name = "gpu_batch64_vs_1")]
    GpuBatch64Vs1,
}

/// What is asked of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// What it is called.
    pub(crate) name: Name,
    /// Who measures it.
    pub(crate) command: Command,
    /// What it must reach.
    pub(crate) bar: f64,
    /// What it should reach.
    pub(crate) stretch: f64,
    /// What it counts.
    pub(crate) unit: Unit,
}

impl Name {
    /// As in the object.
    pub(crate) fn key(self) -> String {
        self.to_possible_value()
            .map(|v| v.get_name().to_owned())
            .unwrap_or_default()
    }

    /// In words.
    pub(crate) fn words(self) -> String {
        let help = self
            .to_possible_value()
            .and_then(|v| v.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }
}

const fn figure(name: Name, command: Command, unit: Unit, bar: f64, stretch: f64) -> Figure {
    Figure {
        name,
        command,
        bar,
        stretch,
        unit,
    }
}

/// All of them, in the order of the table.
pub(crate) const FIGURES: [Figure; 15] = [
    figure(Name::SingleVsGenai, Command::Engine, Unit::Ratio, 0.97, 1.10),
    figure(Name::Skewed16VsGenaiStatic, Command::Engine, Unit::Ratio, 1.8, 2.2),
    figure(Name::Skewed16VsGenaiEngine, Command::Engine, Unit::Ratio, 1.0, 1.3),
    figure(Name::Rows16VsBare, Command::Engine, Unit::Ratio, 0.95, 1.0),
    figure(Name::StepOverhead, Command::Engine, Unit::Share, 0.05, 0.02),
    figure(Name::FirstTokenAddedUs, Command::Specialist, Unit::Micros, 300.0, 150.0),
    figure(Name::ConstrainedVsFree, Command::Engine, Unit::Ratio, 0.90, 0.97),
    figure(Name::PrefixFirstToken, Command::Engine, Unit::Ratio, 0.25, 0.10),
    figure(Name::InterTokenP99BesidePrompts, Command::Engine, Unit::Ratio, 2.0, 1.5),
    figure(Name::ClassifyVsMlserver, Command::Specialist, Unit::Ratio, 10.0, 20.0),
    figure(
        Name::RssBeyondWeightsMb,
        Command::Specialist,
        Unit::Megabytes,
        60.0,
        40.0,
    ),
    figure(Name::Idle6Cpu, Command::Colocated, Unit::Share, 0.02, 0.01),
    figure(Name::Busy6VsOne, Command::Colocated, Unit::Ratio, 0.90, 1.0),
    figure(
        Name::InteractiveP99BesideBatch,
        Command::Colocated,
        Unit::Ratio,
        1.20,
        1.05,
    ),
    figure(Name::GpuBatch64Vs1, Command::Gpu, Unit::Ratio, 10.0, 30.0),
];

impl Figure {
    /// Whether more is better: where the stretch lies above the bar.
    pub(crate) fn more_is_better(&self) -> bool {
        self.stretch > self.bar
    }

    /// Whether a value reaches a bar.
    pub(crate) fn reaches(&self, value: f64, bar: f64) -> bool {
        if self.more_is_better() {
            value >= bar
        } else {
            value <= bar
        }
    }

    /// A value of it, as people write it.
    pub(crate) fn written(&self, value: f64) -> String {
        match self.unit {
            Unit::Ratio => format!("{value:.2}"),
            Unit::Share => format!("{:.1} %", value * 100.0),
            Unit::Micros => format!("{value:.0} µs"),
            Unit::Megabytes => format!("{value:.0} MB"),
        }
    }
}

/// The figures that a command is to measure: those that `only` names, or all of its own.
///
/// # Errors
/// A name that is another command's, which it names.
pub(crate) fn selected(command: Command, only: &[Name]) -> Result<Vec<Name>, String> {
    let own: Vec<Name> = FIGURES
        .iter()
        .filter(|f| f.command == command)
        .map(|f| f.name)
        .collect();
    let others = |name: &Name| FIGURES.iter().find(|f| f.name == *name && f.command != command);
    if let Some(other) = only.iter().find_map(others) {
        let (key, measures) = (other.name.key(), other.command.name());
        return Err(format!("{key} is measured by `shoal-loadtest {measures}`"));
    }
    Ok(own
        .into_iter()
        .filter(|name| only.is_empty() || only.contains(name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_figure_and_words() {
        for name in Name::value_variants() {
            assert_eq!(FIGURES.iter().filter(|f| f.name == *name).count(), 1, "{name:?}");
            assert!(!name.words().is_empty(), "{name:?}");
        }
        let keys: Vec<String> = FIGURES.iter().map(|f| f.name.key()).collect();
        assert_eq!(keys[0], "single_vs_genai");
        assert_eq!(keys[1], "skewed16_vs_genai_static");
        assert_eq!(keys[3], "rows16_vs_bare");
        assert_eq!(keys[5], "first_token_added_us");
        assert_eq!(keys[8], "inter_token_p99_beside_prompts");
        assert_eq!(keys[9], "classify_vs_mlserver");
    }

    #[test]
    fn a_bar_is_reached_from_the_side_where_its_stretch_lies() {
        let [ratio, .., memory, _, _, _, _] = FIGURES;
        assert!(ratio.more_is_better() && ratio.reaches(0.97, ratio.bar) && !ratio.reaches(0.96, ratio.bar));
        assert!(!memory.more_is_better() && memory.reaches(60.0, memory.bar) && !memory.reaches(61.0, memory.bar));
        assert_eq!(FIGURES[4].written(0.05), "5.0 %");
    }

    #[test]
    fn a_command_measures_its_own_figures_alone() {
        assert_eq!(selected(Command::Engine, &[]).map(|s| s.len()), Ok(8));
        let one = selected(Command::Specialist, &[Name::RssBeyondWeightsMb]);
        assert_eq!(one, Ok(vec![Name::RssBeyondWeightsMb]));
        assert!(selected(Command::Engine, &[Name::RssBeyondWeightsMb]).is_err_and(|e| e.contains("specialist")));
        assert_eq!(selected(Command::Colocated, &[]).map(|s| s.len()), Ok(3));
        assert!(selected(Command::Engine, &[Name::Idle6Cpu]).is_err_and(|e| e.contains("colocated")));
    }
}
