//! An encoder's output to answers: softmax over labels, or one vector from token vectors.
use super::Answer;
use crate::{
    folder::manifest::{Card, Embed, Pooling},
    runtime::Output,
};

/// What is to come out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    /// As many labels.
    Labels(usize),
    /// A vector.
    Vector {
        pooling: Pooling,
        normalise: bool,
        dimensions: usize,
    },
}

impl Wanted {
    /// What the card says; a card of neither kind wants no numbers at all.
    pub(super) fn of(card: &Card) -> Self {
        match (&card.classify, &card.embed) {
            (Some(classify), _) => Self::Labels(classify.labels.len()),
            (
                None,
                Some(Embed {
                    pooling,
                    normalise,
                    dimensions,
                }),
            ) => Self::Vector {
                pooling: *pooling,
                normalise: *normalise,
                dimensions: *dimensions as usize,
            },
            (None, None) => Self::Labels(0),
        }
    }
}

/// The batch that went in.
pub(super) struct Pooled<'a> {
    pub rows: usize,
    pub columns: usize,
    /// `[rows, columns]`.
    pub mask: &'a [i64],
}

/// One answer per row.
pub(super) fn answers(output: &Output, batch: &Pooled<'_>, wanted: &Wanted) -> Result<Vec<Answer>, String> {
    let expected = match *wanted {
        Wanted::Labels(labels) => labels,
        Wanted::Vector { dimensions, .. } => dimensions,
    };
    let fits = match (wanted, &output.shape[..]) {
        (_, [rows, last]) => (*rows, *last) == (batch.rows, expected),
        // A vector a token: for labels there is no telling which token's would be the text's.
        (Wanted::Vector { .. }, [rows, columns, last]) => {
            (*rows, *columns, *last) == (batch.rows, batch.columns, expected)
        }
        _ => false,
    };
    if !fits || expected == 0 {
        return Err(format!(
            "the model gave {:?} for {} texts; the card says {expected} numbers a text",
            output.shape, batch.rows
        ));
    }
    if output.values.iter().any(|v| !v.is_finite()) {
        return Err("the model gave numbers that are not finite".into());
    }
    let row_length = output.values.len() / batch.rows;
    let rows = output
        .values
        .chunks_exact(row_length)
        .zip(batch.mask.chunks_exact(batch.columns));
    Ok(rows
        .map(|(values, mask)| match *wanted {
            Wanted::Labels(_) => Answer::Labels(softmax(values)),
            Wanted::Vector {
                pooling,
                normalise,
                dimensions,
            } => {
                let mut vector = if values.len() == dimensions {
                    values.to_vec()
                } else {
                    pool(values, mask, pooling, dimensions)
                };
                if normalise {
                    let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                    // A zero vector has no direction to keep.
                    let scale = if length > 0.0 { (1.0 / length) as f32 } else { 0.0 };
                    vector.iter_mut().for_each(|v| *v *= scale);
                }
                Answer::Vector(vector)
            }
        })
        .collect())
}

fn softmax(logits: &[f32]) -> Vec<(usize, f64)> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|l| f64::from(l - best).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut labels: Vec<(usize, f64)> = weights.iter().map(|w| w / total).enumerate().collect();
    labels.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    labels
}

/// `values: [columns, dimensions]`.
fn pool(values: &[f32], mask: &[i64], pooling: Pooling, dimensions: usize) -> Vec<f32> {
    let tokens: Vec<&[f32]> = values
        .chunks_exact(dimensions)
        .zip(mask)
        .filter(|(_, m)| **m == 1)
        .map(|(v, _)| v)
        .collect();
    match pooling {
        Pooling::Cls => tokens.first().map(|v| v.to_vec()).unwrap_or_default(),
        Pooling::Last => tokens.last().map(|v| v.to_vec()).unwrap_or_default(),
        Pooling::Mean => (0..dimensions)
            .map(|d| (tokens.iter().map(|v| f64::from(v[d])).sum::<f64>() / tokens.len().max(1) as f64) as f32)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(pooling: Pooling, normalise: bool) -> Vec<f32> {
        let output = Output {
            shape: vec![1, 3, 2],
            values: vec![3.0, 0.0, 1.0, 4.0, 9.0, 9.0],
        };
        let wanted = Wanted::Vector {
            pooling,
            normalise,
            dimensions: 2,
        };
        let answers = answers(
            &output,
            &Pooled {
                rows: 1,
                columns: 3,
                mask: &[1, 1, 0],
            },
            &wanted,
        )
        .expect("fits");
        let [Answer::Vector(v)] = &answers[..] else {
            panic!("one vector")
        };
        v.clone()
    }

    #[test]
    fn padding_has_no_part_in_any_pooling() {
        assert_eq!(vector(Pooling::Mean, false), [2.0, 2.0]);
        assert_eq!(vector(Pooling::Cls, false), [3.0, 0.0]);
        assert_eq!(vector(Pooling::Last, false), [1.0, 4.0]);
        let unit = vector(Pooling::Mean, true);
        assert!((unit[0] - 0.5f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn labels_are_probabilities_likeliest_first() {
        let output = Output {
            shape: vec![2, 2],
            values: vec![0.0, 1.0, 5.0, 5.0],
        };
        let answers = answers(
            &output,
            &Pooled {
                rows: 2,
                columns: 1,
                mask: &[1, 1],
            },
            &Wanted::Labels(2),
        )
        .expect("fits");
        let Answer::Labels(first) = &answers[0] else {
            panic!("labels")
        };
        assert_eq!(first[0].0, 1);
        assert!((first.iter().map(|l| l.1).sum::<f64>() - 1.0).abs() < 1e-12);
        let Answer::Labels(tie) = &answers[1] else {
            panic!("labels")
        };
        assert_eq!(tie.iter().map(|l| l.0).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn an_output_that_is_not_what_the_card_says_is_an_error() {
        let refused = |shape: &[usize], values: Vec<f32>, wanted: Wanted| {
            let (shape, batch) = (
                shape.to_vec(),
                Pooled {
                    rows: 2,
                    columns: 2,
                    mask: &[1, 1, 1, 0],
                },
            );
            answers(&Output { shape, values }, &batch, &wanted).expect_err("refused")
        };
        let vector = Wanted::Vector {
            pooling: Pooling::Mean,
            normalise: true,
            dimensions: 2,
        };
        refused(&[2, 3], vec![0.0; 6], Wanted::Labels(2));
        refused(&[1, 4], vec![0.0; 4], Wanted::Labels(4));
        refused(&[2, 2, 2], vec![0.0; 8], Wanted::Labels(2));
        refused(&[2, 3, 2], vec![0.0; 12], vector);
        refused(&[4], vec![0.0; 4], vector);
        refused(&[2, 0], vec![], Wanted::Labels(0));
        assert!(refused(&[2, 2], vec![0.0, 1.0, f32::NAN, 1.0], vector).contains("finite"));
    }
}
