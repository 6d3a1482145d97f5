//! Specialists' cards: of each the one that it was last seen to serve, and those of the versions around it. A version may change under
//! us, and an answer is judged by the card of the version that gave it.
use super::card::Card;
use dashmap::DashMap;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::OnceCell;

/// Versions of one specialist that are remembered: the one that serves, one that still ends its calls, and as many again for
/// replicas that lag behind. A fifth puts the longest unheard-of out, and would be asked for again.
const VERSIONS: usize = 4;

/// The card of one version, once somebody has asked for it; `None`: it could not be had.
pub(crate) type Version = Arc<OnceCell<Option<Arc<Card>>>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cards {
    known: DashMap<Arc<str>, Known>,
}

#[derive(Debug, Default)]
struct Known {
    current: Option<Arc<Card>>,
    /// By "name@version", the one last heard of at the end.
    versions: VecDeque<(String, Version)>,
}

impl Known {
    fn version(&mut self, model: &str) -> &mut Version {
        let (model, version) = match self.versions.iter().position(|(known, _)| known == model) {
            Some(at) => self.versions.remove(at).unwrap_or_default(),
            None => (model.to_owned(), Version::default()),
        };
        while self.versions.len() >= VERSIONS {
            self.versions.pop_front();
        }
        self.versions.push_back((model, version));
        &mut self.versions.back_mut().expect("just pushed").1
    }
}

impl Cards {
    /// The card that a specialist was last seen with.
    pub(crate) fn current(&self, target: &str) -> Option<Arc<Card>> {
        self.known.get(target)?.current.clone()
    }

    /// Makes this the card.
    pub(crate) fn set(&self, target: &Arc<str>, card: Arc<Card>) {
        let mut known = self.known.entry(target.clone()).or_default();
        *known.version(&card.identity) = Arc::new(OnceCell::new_with(Some(Some(card.clone()))));
        known.current = Some(card);
    }

    /// The place of a version's card. Whoever finds it empty asks, and the others wait for what comes.
    pub(crate) fn version(&self, target: &Arc<str>, model: &str) -> Version {
        self.known.entry(target.clone()).or_default().version(model).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_proto::v1;

    fn card(version: u32) -> Arc<Card> {
        Arc::new(Card::of(v1::DescribeResponse {
            name: "a".into(),
            version,
            ..v1::DescribeResponse::default()
        }))
    }

    #[test]
    fn the_versions_around_the_current_one_are_known_and_the_oldest_makes_room() {
        let (cards, target) = (Cards::default(), Arc::from("a"));
        let known = |cards: &Cards, version: u32| {
            let model = format!("a@{version}");
            let found = cards.version(&target, &model).get().cloned().flatten();
            assert!(found.as_ref().is_none_or(|c| c.identity == model));
            found.is_some()
        };
        assert!(cards.current("a").is_none() && !known(&cards, 1));
        for version in 1..=VERSIONS as u32 {
            cards.set(&target, card(version));
            assert_eq!(cards.current("a").expect("set").identity, format!("a@{version}"));
            assert!(known(&cards, 1), "heard of again and again");
        }
        cards.set(&target, card(9));
        assert!(known(&cards, 1) && known(&cards, 9) && !known(&cards, 2));
        for stranger in 100..200 {
            assert!(!known(&cards, stranger));
        }
        assert_eq!(cards.known.get("a").expect("there").versions.len(), VERSIONS);
        assert_eq!(cards.current("a").expect("stays").identity, "a@9");
    }
}
