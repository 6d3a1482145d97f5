//! A classifier's probabilities to named labels, with the card's calibration and thresholds.
use crate::{
    folder::manifest::Classify,
    sampling::calibration::{Calibration, Logprobs},
};

/// `labels`: (index, softmax probability), likeliest first. Gives (name, score), best first. The map of a calibration never
/// falls, so it keeps the order; a label under its threshold goes behind those that are not.
#[must_use]
pub fn named<'a>(labels: &[(usize, f64)], classify: &'a Classify, calibration: &Calibration) -> Vec<(&'a str, f64)> {
    let score = |probability: f64| calibration.score(Logprobs::single(probability.ln()));
    let label = |(i, probability): &(usize, f64)| Some((classify.labels.get(*i)?.as_str(), score(*probability)));
    let mut named: Vec<(&str, f64)> = labels.iter().filter_map(label).collect();
    // Stable: within either half the order stays.
    named.sort_by_key(|(name, score)| classify.thresholds.get(*name).is_some_and(|least| score < least));
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::calibration::Statistic;

    fn classify(thresholds: &[(&str, f64)]) -> Classify {
        Classify {
            labels: ["play", "book", "other"].map(String::from).into(),
            thresholds: thresholds.iter().map(|(n, t)| ((*n).to_owned(), *t)).collect(),
        }
    }

    fn names(of: &[(&str, f64)]) -> Vec<String> {
        of.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    #[test]
    fn a_label_under_its_threshold_gives_way_to_one_that_has_none() {
        let (raw, unsure) = (Calibration::default(), [(1, 0.5), (0, 0.3), (2, 0.2)]);
        let plain = named(&unsure, &classify(&[]), &raw)
            .iter()
            .map(|l| l.1)
            .collect::<Vec<_>>();
        assert!(
            plain.iter().zip([0.5, 0.3, 0.2]).all(|(a, b)| (a - b).abs() < 1e-12),
            "{plain:?}"
        );
        let strict = classify(&[("play", 0.6), ("book", 0.6)]);
        assert_eq!(names(&named(&unsure, &strict, &raw)), ["other", "book", "play"]);
        let sure = [(1, 0.61), (0, 0.29), (2, 0.1)];
        assert_eq!(names(&named(&sure, &strict, &raw)), ["book", "other", "play"]);
    }

    #[test]
    fn a_calibrated_label_scores_by_the_log_of_its_probability_and_order_stays() {
        let knots = [[-2.0, 0.0], [0.0, 1.0]];
        let map = Calibration::new(Statistic::MinLogprob, &knots).expect("monotone");
        let plain = classify(&[]);
        let scores = named(&[(0, (-0.5f64).exp()), (1, 0.3), (2, 0.0)], &plain, &map);
        assert_eq!(names(&scores), ["play", "book", "other"]);
        assert!((scores[0].1 - 0.75).abs() < 1e-12 && scores[2].1 == 0.0);
    }
}
