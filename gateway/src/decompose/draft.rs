//! What a planner has written so far, and the steps in it. Filled from within the planner's call, read by the plan's driver.
use crate::route::Sink;
use shoal_plan::{
    Node,
    text::{Garbled, Lines},
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

#[derive(Debug, Default)]
struct Inner {
    lines: Lines,
    /// What this attempt has written.
    text: String,
    /// Steps of this attempt so far.
    read: usize,
    /// Steps of the attempt that got furthest.
    steps: Vec<Node>,
    garbled: Option<String>,
    heard: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

impl Draft {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps from the `from`th on, and what is wrong with the text, if anything is.
    pub(crate) fn steps(&self, from: usize) -> (Vec<Node>, Option<String>) {
        let inner = self.lock();
        (
            inner.steps.get(from..).unwrap_or_default().to_vec(),
            inner.garbled.clone(),
        )
    }

    /// What has been written so far.
    pub(crate) fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// Tells whenever there may be more.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Inner {
    fn take(&mut self, text: &str) -> Result<(), String> {
        self.text.push_str(text);
        let garbled = |g: Garbled| g.to_string();
        for node in self.lines.push(text).map_err(garbled)? {
            match self.steps.get(self.read) {
                None => self.steps.push(node),
                // A second attempt that says the same goes on where the first broke off.
                Some(known) if *known == node => {}
                Some(known) => {
                    return Err(format!(
                        "a second attempt wrote another step {} than the first",
                        known.id
                    ));
                }
            }
            self.read += 1;
        }
        Ok(())
    }
}

impl Sink for Draft {
    fn begin(&self) {
        let mut inner = self.lock();
        (inner.lines, inner.read) = (Lines::default(), 0);
        inner.text.clear();
    }

    fn delta(&self, text: &str) {
        let mut inner = self.lock();
        if inner.garbled.is_none()
            && let Err(why) = inner.take(text)
        {
            inner.garbled = Some(why);
        }
        inner.heard = true;
        drop(inner);
        self.changed.send_replace(());
    }

    fn heard(&self) -> bool {
        self.lock().heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(steps: &[Node]) -> Vec<&str> {
        steps.iter().map(|n| n.id.as_str()).collect()
    }

    #[test]
    fn a_second_attempt_goes_on_where_the_first_broke_off_and_may_not_change_what_has_joined() {
        let draft = Draft::default();
        draft.begin();
        draft.delta("1. t: a\n2. t:");
        assert_eq!((ids(&draft.steps(0).0), draft.steps(0).1), (vec!["1"], None));
        draft.begin();
        draft.delta("1. t: a\n2. t: b\n3");
        assert_eq!(ids(&draft.steps(1).0), ["2"]);
        draft.begin();
        draft.delta("1. t: another\n");
        assert!(draft.steps(0).1.expect("told").contains("another step 1"));
        assert!(draft.steps(9).0.is_empty());
    }

    #[test]
    fn a_garbled_line_is_told_and_the_steps_before_it_stay() {
        let draft = Draft::default();
        draft.delta("1. t: a\n");
        draft.delta("nonsense\n2. t: b\n");
        let (steps, garbled) = draft.steps(0);
        assert_eq!(ids(&steps), ["1"]);
        assert!(garbled.expect("told").starts_with("line 2"));
    }
}
