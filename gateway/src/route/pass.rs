//! Who is not even asked, and why. Pure.
use std::time::Duration;

/// What decides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// How the target cannot be used at all, as it is configured.
    pub(crate) unusable: Option<String>,
    /// The target serves the task, as far as anybody knows.
    pub(crate) serves: bool,
    /// The target's model neither generates nor classifies.
    pub(crate) embeds: bool,
    pub(crate) external: bool,
    pub(crate) machine_only: bool,
    /// The node's content must not leave the mesh.
    pub(crate) private: bool,
    /// A person reads the node's output.
    pub(crate) human_facing: bool,
    /// Every breaker is open.
    pub(crate) broken: bool,
    /// The least time that an answer takes.
    pub(crate) least: Option<Duration>,
    /// What it would be given.
    pub(crate) time: Duration,
}

/// Why a target is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It must not or cannot be asked.
    Never(String),
    /// It should not be asked while somebody else can be: its breaker is open.
    Broken(String),
    /// It should not be asked while somebody else can be: it was never fast enough.
    Late(String),
    /// The plan's budget does not allow it.
    Spent(String),
}

impl Obstacle {
    /// Whether it stands even if nobody else is left.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Never(_) | Self::Spent(_))
    }

    /// In words.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Never(why) | Self::Broken(why) | Self::Late(why) | Self::Spent(why) => why,
        }
    }
}

/// The first thing that speaks against asking.
pub(crate) fn obstacle(facts: &Facts) -> Option<Obstacle> {
    let never = |why: &str| Some(Obstacle::Never(why.to_owned()));
    if let Some(why) = &facts.unusable {
        return never(why);
    }
    if !facts.serves {
        return never("it does not serve this task");
    }
    if facts.embeds {
        return never("it embeds, and a plan's node wants text or a label");
    }
    if facts.private && facts.external {
        return never("private content does not leave the mesh");
    }
    if facts.human_facing && facts.machine_only {
        return never("people read this, and it is machine_only");
    }
    if facts.broken {
        return Some(Obstacle::Broken("its breaker is open".into()));
    }
    match facts.least {
        Some(least) if least > facts.time => {
            let (least, time) = (least.as_millis(), facts.time.as_millis());
            Some(Obstacle::Late(format!(
                "it was never faster than {least} ms lately, and would have {time} ms"
            )))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_passes_a_target_over_and_says_which() {
        let able = Facts {
            serves: true,
            time: Duration::from_secs(1),
            ..Facts::default()
        };
        assert_eq!(obstacle(&able), None);
        type Change = fn(&mut Facts);
        let cases: [(Change, &str, bool); 7] = [
            (|f| f.unusable = Some("no key".into()), "no key", true),
            (|f| f.serves = false, "does not serve", true),
            (|f| f.embeds = true, "embeds", true),
            (|f| (f.private, f.external) = (true, true), "private", true),
            (
                |f| (f.human_facing, f.machine_only) = (true, true),
                "machine_only",
                true,
            ),
            (|f| f.broken = true, "breaker", false),
            (|f| f.least = Some(Duration::from_secs(2)), "2000 ms", false),
        ];
        for (change, says, is_final) in cases {
            let mut facts = able.clone();
            change(&mut facts);
            let found = obstacle(&facts).expect(says);
            assert!(found.reason().contains(says), "{found:?}");
            assert_eq!(found.is_final(), is_final, "{says}");
        }
        // Each of the pairs alone is no obstacle.
        let alone: [Change; 4] = [
            |f| f.private = true,
            |f| f.external = true,
            |f| f.human_facing = true,
            |f| f.machine_only = true,
        ];
        for change in alone {
            let mut facts = able.clone();
            change(&mut facts);
            assert_eq!(obstacle(&facts), None);
        }
    }
}
