//! Stop strings: text is held back as long as it may be the start of one, so that no part of one is ever sent.

/// Watches one answer for its stop strings.
#[derive(Debug, Clone)]
pub struct Stops {
    stops: Vec<String>,
    held: String,
}

/// What may be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// This, and the answer goes on.
    On(String),
    /// This, and a stop string came: the answer ends here.
    Stop(String),
}

impl Stops {
    /// Empty strings are not stop strings.
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        Self {
            stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(),
            held: String::new(),
        }
    }

    /// Takes new text in and lets through what cannot be part of a stop string any more.
    pub fn push(&mut self, text: &str) -> Passed {
        if self.stops.is_empty() {
            return Passed::On(text.to_owned());
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.held.truncate(at);
            return Passed::Stop(std::mem::take(&mut self.held));
        }
        let longest = self.stops.iter().map(|s| started(&self.held, s)).max().unwrap_or(0);
        let keep = self.held.split_off(self.held.len() - longest);
        Passed::On(std::mem::replace(&mut self.held, keep))
    }

    /// The answer ended otherwise: what was held back was text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that is a beginning of `stop`.
fn started(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len() - 1);
    // Both are UTF-8: an end of `text` that equals a beginning of `stop` starts where a character starts.
    (1..=most)
        .rev()
        .find(|n| text.as_bytes()[text.len() - n..] == stop.as_bytes()[..*n])
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[String], parts: &[String]) -> (String, bool) {
        let mut watch = Stops::new(stops);
        let mut sent = String::new();
        for part in parts {
            match watch.push(part) {
                Passed::On(text) => sent.push_str(&text),
                Passed::Stop(text) => return (sent + &text, true),
            }
        }
        sent.push_str(&watch.finish());
        (sent, false)
    }

    #[test]
    fn a_stop_string_in_pieces_is_not_sent_and_a_false_start_is() {
        let stops = ["</end>".to_owned()];
        let parts = |p: &[&str]| p.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(run(&stops, &parts(&["a<", "/e", "nd>b"])), ("a".into(), true));
        assert_eq!(run(&stops, &parts(&["a<", "/e", "h"])), ("a</eh".into(), false));
        assert_eq!(run(&stops, &parts(&["a</en"])), ("a</en".into(), false));
        assert_eq!(
            run(&["é!".to_owned()], &parts(&["caf", "é", "!"])),
            ("caf".into(), true)
        );
    }

    proptest! {
        #[test]
        fn however_it_is_cut_what_is_sent_is_the_text_before_the_first_stop(
            parts in prop::collection::vec("[abé]{0,4}", 0..12), stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let whole: String = parts.concat();
            let first = stops.iter().filter_map(|s| whole.find(s.as_str())).min();
            let (sent, stopped) = run(&stops, &parts);
            // A longer stop string that starts earlier may be completed later than a shorter one: whichever completes first
            // ends the answer, and nothing of either is sent.
            prop_assert_eq!(stopped, first.is_some());
            prop_assert!(whole.starts_with(&sent));
            prop_assert!(stops.iter().all(|s| !sent.contains(s.as_str())));
            if first.is_none() {
                prop_assert_eq!(sent, whole);
            }
        }
    }
}
