//! How an outcome lies in a segment file. Pure.
//!
//! ```text
//! length: u32 LE | crc32 of the payload: u32 LE | payload: an encoded shoal.v1.Outcome
//! ```
//!
//! A process that is killed leaves whole frames and perhaps a torn one at the end: a write is a prefix of what was meant. So the
//! first frame that does not fit or does not check ends what can be read.
use std::ops::Range;

/// Bytes before a payload.
pub(crate) const HEADER: usize = 8;

/// A payload's bytes at most: what feedback decodes. A length beyond it is no length but damage.
pub(crate) const MAX_PAYLOAD: usize = 15 << 20;

/// Appends one frame. Its payload is not empty: an outcome that can be delivered has an id.
pub(crate) fn write(payload: &[u8], out: &mut Vec<u8>) {
    // Payloads are held to MAX_PAYLOAD when an outcome is made.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// What stands after the last whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing.
    Clean,
    /// The beginning of a frame whose rest was never written.
    Torn,
    /// Bytes that are no frame, though there are enough of them for one: not what a kill leaves.
    Damaged,
}

/// The payload that begins at `at`, or what is there instead.
pub(crate) fn read(bytes: &[u8], at: usize) -> Result<Range<usize>, Tail> {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Err(Tail::Clean);
    }
    let (Some((length, rest)), true) = (rest.split_first_chunk::<4>(), rest.len() >= HEADER) else {
        return Err(Tail::Torn);
    };
    let (length, sum) = (
        u32::from_le_bytes(*length) as usize,
        rest.first_chunk::<4>().copied().unwrap_or_default(),
    );
    if length == 0 {
        // No frame, though its sum would be right: the crc32 of nothing is 0. A file that a power cut grew before its bytes arrived
        // ends in zeros.
        let zeros = bytes[at..].iter().all(|b| *b == 0);
        return Err(if zeros { Tail::Torn } else { Tail::Damaged });
    }
    if length > MAX_PAYLOAD {
        return Err(Tail::Damaged);
    }
    let payload = at + HEADER..at + HEADER + length;
    match bytes.get(payload.clone()) {
        None => Err(Tail::Torn),
        Some(read) if crc32fast::hash(read) == u32::from_le_bytes(sum) => Ok(payload),
        Some(_) => Err(Tail::Damaged),
    }
}

/// Every whole frame's payload, where they end, and what stands there.
pub(crate) fn scan(bytes: &[u8]) -> (Vec<Range<usize>>, usize, Tail) {
    let (mut payloads, mut at) = (Vec::new(), 0);
    loop {
        match read(bytes, at) {
            Ok(payload) => {
                at = payload.end;
                payloads.push(payload);
            }
            Err(tail) => return (payloads, at, tail),
        }
    }
}

/// Whether a whole frame begins anywhere behind the first byte: what begins at that byte was then not torn by a kill, which leaves nothing behind it.
pub(crate) fn hides(rest: &[u8]) -> bool {
    (1..rest.len()).any(|at| read(rest, at).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for payload in payloads {
            write(payload, &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn a_torn_tail_costs_only_the_frame_that_was_torn(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..8), cut in any::<prop::sample::Index>()) {
            let (bytes, ends) = written(&payloads);
            let cut = cut.index(bytes.len() + 1);
            let (read, end, tail) = scan(&bytes[..cut]);
            let whole = ends.iter().filter(|e| **e <= cut).count();
            prop_assert_eq!(read.iter().map(|r| bytes[r.clone()].to_vec()).collect::<Vec<_>>(), &payloads[..whole]);
            prop_assert_eq!(end, whole.checked_sub(1).map_or(0, |i| ends[i]));
            prop_assert_eq!(tail, if end == cut { Tail::Clean } else { Tail::Torn });
            prop_assert!(!hides(&bytes[end..cut]), "a kill leaves nothing behind what it tore");
        }

        #[test]
        fn a_flipped_bit_never_passes_for_an_outcome(payload in prop::collection::vec(any::<u8>(), 1..60), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let (mut bytes, _) = written(std::slice::from_ref(&payload));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(scan(&bytes).0.is_empty());
        }

        #[test]
        fn a_tail_of_zeros_is_no_frame(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..8), zeros in 1..100usize) {
            let (mut bytes, ends) = written(&payloads);
            bytes.resize(bytes.len() + zeros, 0);
            let (read, end, tail) = scan(&bytes);
            prop_assert_eq!((read.len(), end), (payloads.len(), ends.last().copied().unwrap_or(0)));
            prop_assert_eq!(tail, Tail::Torn);
            // With something behind them they are not what a power cut leaves.
            bytes.resize(bytes.len() + HEADER, 1);
            prop_assert_eq!(scan(&bytes).1, end);
            prop_assert!(zeros < HEADER || scan(&bytes).2 == Tail::Damaged);
        }

        #[test]
        fn any_bytes_are_read_or_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (_, end, _) = scan(&bytes);
            prop_assert!(end <= bytes.len());
        }
    }
}
