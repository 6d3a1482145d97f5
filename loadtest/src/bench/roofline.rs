//! What memory bandwidth allows a decoder at most. Pure.
//!
//! A decode step reads each weight once, whatever the rows, and each row's past once. On a device whose arithmetic is far from busy, which is
//! every GPU at these sizes, a step can be no faster than those bytes over the bandwidth (Williams, Waterman and Patterson, Roofline, 2009).

/// What a step reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    /// Bytes of the weights.
    pub(crate) weight_bytes: f64,
    /// Bytes of keys and values of one position of one row.
    pub(crate) position_bytes: f64,
}

impl Step {
    /// Tokens/s of `rows` rows at most, over steps whose rows have `positions` positions of past on average, at `bandwidth` bytes/s.
    pub(crate) fn limit(self, rows: f64, positions: f64, bandwidth: f64) -> f64 {
        rows * bandwidth / (self.weight_bytes + rows * positions * self.position_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a billion fp16 weights, 24 layers of two heads of 64 for keys and as many for values.
    const HALF_BILLION: Step = Step {
        weight_bytes: 1e9,
        position_bytes: 24.0 * 2.0 * 2.0 * 64.0 * 2.0,
    };

    #[test]
    fn one_row_is_bound_by_the_weights_and_many_by_their_past() {
        // 1 GB at 3.35 TB/s: 3,350 steps a second, and hardly fewer with a short past.
        assert_eq!(HALF_BILLION.limit(1.0, 0.0, 3.35e12), 3350.0);
        assert!((HALF_BILLION.limit(1.0, 100.0, 3.35e12) - 3345.9).abs() < 0.1);
        // 64 rows of 100 positions read 78.6 MB besides: 59 times one row's, not 64.
        let ratio = HALF_BILLION.limit(64.0, 100.0, 3.35e12) / HALF_BILLION.limit(1.0, 100.0, 3.35e12);
        assert!((ratio - 59.4).abs() < 0.1, "{ratio}");
        // With no end of rows what counts is the past alone.
        let most = HALF_BILLION.limit(1e9, 100.0, 3.35e12);
        assert!((most / (3.35e12 / (100.0 * HALF_BILLION.position_bytes)) - 1.0).abs() < 1e-3);
    }
}
