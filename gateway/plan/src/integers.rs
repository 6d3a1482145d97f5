//! Integers in JSON text. A reader of JSON makes of one past 64 bits the nearest float, which is another number, and an account's number
//! or an order's is not to be another: such an integer is refused where values are carried on.

/// Digits of an integer that an error repeats at most.
const SHOWN: usize = 40;

/// An integer that would not keep its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the integer {shown} has more than 64 bits; write it as a string")]
pub struct TooLarge {
    shown: String,
}

/// Whether every integer of a JSON text is one of `i64` or `u64`. Numbers with a point or an exponent are floats to whoever wrote them.
///
/// # Errors
/// With the first that is not. What is no JSON is somebody else's to refuse.
pub fn fit(json: &str) -> Result<(), TooLarge> {
    let bytes = json.as_bytes();
    let end = |from: usize, of: fn(u8) -> bool| {
        bytes[from..]
            .iter()
            .position(|b| !of(*b))
            .map_or(bytes.len(), |n| from + n)
    };
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = past_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let from = at;
                at = end(from, |b| {
                    b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E')
                });
                let number = &json[from..at];
                let integer = !number.contains(['.', 'e', 'E']);
                if integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    let shown = number.chars().take(SHOWN).collect();
                    return Err(TooLarge { shown });
                }
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// The position after a string's closing quote.
fn past_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn integers_of_64_bits_fit_and_one_more_does_not() {
        for fits in [
            "18446744073709551615",
            "-9223372036854775808",
            "[0, -1, {\"98765432109876543210\": \"98765432109876543210\"}]",
            r#""a \\ \" 98765432109876543210""#,
            "1e30",
            "98765432109876543210.5",
            "",
        ] {
            assert_eq!(fit(fits), Ok(()), "{fits}");
        }
        for large in [
            "18446744073709551616",
            "[1,-9223372036854775809]",
            r#"{"a":"\\","b":98765432109876543210}"#,
        ] {
            assert!(
                fit(large).expect_err(large).to_string().contains("as a string"),
                "{large}"
            );
        }
        let long = fit(&"9".repeat(100_000)).expect_err("long").to_string();
        assert!(long.len() < 120, "{long}");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_never_a_panic(text in "(\\PC|\"|\\\\|[0-9eE.-]){0,60}") {
            let _ = fit(&text);
        }

        #[test]
        fn what_fits_keeps_its_value(unsigned: u64, signed: i64, float: f64, text in "(\\PC|\"|\\\\){0,20}") {
            let value = json!([unsigned, {text: signed}, float]);
            let written = value.to_string();
            prop_assert_eq!(fit(&written), Ok(()));
            let read: Value = serde_json::from_str(&written).expect("JSON");
            prop_assert_eq!(&read[0], &value[0]);
        }
    }
}
