//! What the two TOML files may say, beyond their keys.
use super::{
    Error,
    manifest::{Card, Classify, Filling, Kind, Manifest, Tag, TagInput},
};
use std::path::Path;

/// Names go into metrics, file names and plan text.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Manifest {
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        let fault = |message: String| {
            Err(Error::Card {
                path: path.to_owned(),
                message,
            })
        };
        if let Some(bad) = [&self.name].into_iter().chain(&self.tasks).find(|n| !is_name(n)) {
            return fault(format!("`{bad}` is no name: use 1 to 64 letters, digits, `_` and `-`"));
        }
        if self.tasks.is_empty() {
            return fault("`tasks` is empty: name at least one task".into());
        }
        if (1..self.tasks.len()).any(|i| self.tasks[..i].contains(&self.tasks[i])) {
            return fault("`tasks` names a task twice".into());
        }
        Ok(())
    }
}

impl Card {
    pub(super) fn check(&self, manifest: &Manifest, path: &Path) -> Result<(), Error> {
        let fault = |message: String| {
            Err(Error::Card {
                path: path.to_owned(),
                message,
            })
        };
        if (self.name.as_str(), self.version) != (manifest.name.as_str(), manifest.active_version) {
            let (is, wanted) = (
                format!("{}@{}", self.name, self.version),
                format!("{}@{}", manifest.name, manifest.active_version),
            );
            return fault(format!(
                "the card is of {is}, the folder of {wanted}: make `name` and `version` agree"
            ));
        }
        let tables = self
            .output
            .keys()
            .chain(self.input.keys())
            .chain(self.calibration.keys())
            .chain(self.fill.keys())
            .chain(self.scores.keys());
        if let Some(stray) = tables.into_iter().find(|t| !manifest.tasks.contains(t)) {
            return fault(format!(
                "a table is of task `{stray}`, which specialist.toml does not serve"
            ));
        }
        let prices = [
            self.price.input_usd_per_million_tokens,
            self.price.output_usd_per_million_tokens,
        ];
        if prices.iter().any(|p| !p.is_finite() || *p < 0.0) {
            return fault("[price] must be 0 or more US dollars".into());
        }
        if self
            .calibration
            .values()
            .any(|c| !(0.0..=1.0).contains(&c.confidence_threshold))
        {
            return fault("confidence_threshold must lie between 0 and 1".into());
        }
        for (task, calibration) in &self.calibration {
            if let Err(reason) = calibration.map() {
                return fault(format!("[calibration.{task}] {reason}"));
            }
        }
        if let Some((name, _)) = self
            .files
            .iter()
            .find(|(_, sum)| sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return fault(format!("[files] \"{name}\" must be a sha256 in 64 hex digits"));
        }
        if self.limits.context_tokens == 0 {
            return fault("[limits] context_tokens must be 1 or more".into());
        }
        let fill = self.fill.iter().next();
        match (self.kind, &self.classify, &self.embed, &self.tag, fill) {
            (Kind::Generate, None, None, None, None) => {
                let (new, context) = (self.limits.max_new_tokens, self.limits.context_tokens);
                if new == 0 || new >= context {
                    return fault(format!(
                        "[limits] max_new_tokens is {new}: it must lie between 1 and context_tokens ({context}), less one"
                    ));
                }
                Ok(())
            }
            (Kind::Classify, Some(c), None, None, None) if !c.labels.is_empty() => c.check().or_else(fault),
            (Kind::Embed, None, Some(e), None, None) if e.dimensions > 0 => Ok(()),
            (Kind::Tag, None, None, Some(t), None) if !t.labels.is_empty() => t
                .check()
                .and_then(|()| self.check_undecoded())
                .and_then(|()| self.check_tagger())
                .or_else(fault),
            (Kind::Fill, None, None, None, Some(_)) => self
                .check_filler(manifest)
                .and_then(|()| self.check_undecoded())
                .or_else(fault),
            (kind, ..) => fault(format!(
                "kind is \"{}\": give [classify] labels for \"classify\", [embed] for \"embed\", [tag] labels for \"tag\", \
                 [fill.TASK] for \"fill\", none of them for \"generate\"",
                kind.name()
            )),
        }
    }

    /// What is asked of a model that decodes nothing.
    fn check_undecoded(&self) -> Result<(), String> {
        match self.limits.max_new_tokens {
            0 => Ok(()),
            new => Err(format!(
                "[limits] max_new_tokens is {new}: a model of kind \"{}\" decodes nothing, make it 0",
                self.kind.name()
            )),
        }
    }

    /// How each task is filled.
    fn check_filler(&self, manifest: &Manifest) -> Result<(), String> {
        for task in &manifest.tasks {
            let about = self.fill.get(task);
            let about = about.ok_or_else(|| format!("it has no [fill.{task}]: say how the task is read"))?;
            about.check().map_err(|e| format!("[fill.{task}] {e}"))?;
        }
        Ok(())
    }

    /// What other kinds may say and a tagger may not: it would be without effect.
    fn check_tagger(&self) -> Result<(), String> {
        let reads_objects = self.tag.as_ref().is_some_and(|t| t.input.is_some());
        match self.input.keys().next().filter(|_| !reads_objects) {
            None => Ok(()),
            Some(task) => Err(format!(
                "[input.{task}] is of JSON prompts, and a tagger without [tag.input] reads text: take it out, or say which fields are read"
            )),
        }
    }
}

/// The first name that stands in `names` twice.
fn twice(names: &[String]) -> Option<&String> {
    (1..names.len())
        .find(|i| names[..*i].contains(&names[*i]))
        .map(|i| &names[i])
}

impl Tag {
    fn check(&self) -> Result<(), String> {
        for (key, names) in [("classes", &self.classes), ("labels", &self.labels)] {
            if let Some(name) = twice(names) {
                return Err(format!("[tag] {key} names `{name}` twice"));
            }
        }
        for (class, labels) in &self.allowed {
            if !self.classes.contains(class) {
                return Err(format!(
                    "[tag.allowed] \"{class}\" is no class of the model: give one of [tag] classes"
                ));
            }
            if let Some(stray) = labels.iter().find(|l| !self.labels.contains(l)) {
                return Err(format!(
                    "[tag.allowed] \"{class}\" may have `{stray}`, which is no label of the model: give some of [tag] labels"
                ));
            }
        }
        self.input.as_ref().map_or(Ok(()), TagInput::check)
    }
}

impl TagInput {
    fn check(&self) -> Result<(), String> {
        let named = [Some(&self.text), self.before.as_ref(), self.labels.as_ref()];
        let names: Vec<String> = named.into_iter().flatten().cloned().collect();
        if names.iter().any(String::is_empty) {
            return Err("[tag.input] names a field \"\": give the names of an object's fields".into());
        }
        match twice(&names) {
            None => Ok(()),
            Some(name) => Err(format!(
                "[tag.input] names `{name}` twice: a field is read as one thing"
            )),
        }
    }
}

impl Filling {
    fn check(&self) -> Result<(), String> {
        if self.methods.is_empty() || self.turns.is_empty() || self.methods == self.turns {
            return Err("methods and turns must name two fields of an object".into());
        }
        if self.called <= 0.0 || self.called >= 1.0 || self.called.is_nan() {
            return Err(format!("called is {}: it must lie between 0 and 1", self.called));
        }
        if self.references && (self.single || self.literal) {
            return Err(
                "references are of earlier calls, and with single or literal there are none: make it false".into(),
            );
        }
        Ok(())
    }
}

impl Classify {
    fn check(&self) -> Result<(), String> {
        if let [only] = &self.labels[..] {
            return Err(format!(
                "[classify] labels has `{only}` alone: scores are a softmax over the labels, of which one would have 1.0 whatever the text says; give \
                 two or more, and export a model that tells yes from no with a logit for each"
            ));
        }
        if let Some(name) = twice(&self.labels) {
            return Err(format!("[classify] labels names `{name}` twice"));
        }
        match self
            .thresholds
            .iter()
            .find(|(name, least)| !self.labels.contains(name) || !(0.0..=1.0).contains(*least))
        {
            None => Ok(()),
            Some((name, least)) => Err(format!(
                "[classify.thresholds] \"{name}\" = {least}: give one of the labels, and a score between 0 and 1"
            )),
        }
    }
}
