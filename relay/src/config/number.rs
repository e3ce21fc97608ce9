//! Numbers as the reference relay reads them: `Number(text)` of JavaScript.

/// A whole number above zero, or nothing.
///
/// Blanks around it do not count; `0x`, `0o` and `0b` prefixes, fractions of zero and exponents
/// are fine. Zero, negative numbers, fractions, infinities and everything else are nothing.
/// Numbers beyond `u64` saturate. Source: relay specification, section 1; ECMA-262 §7.1.4.1.
pub(crate) fn whole_above_zero(text: &str) -> Option<u64> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let value = match prefixed(text) {
        Some((digits, radix)) => radix_number(digits, radix)?,
        None => decimal(text)?,
    };
    (value.is_finite() && value.fract() == 0.0 && value >= 1.0).then_some(value as u64)
}

fn prefixed(text: &str) -> Option<(&str, u32)> {
    let radix = match text.get(..2)? {
        "0x" | "0X" => 16,
        "0o" | "0O" => 8,
        "0b" | "0B" => 2,
        _ => return None,
    };
    Some((&text[2..], radix))
}

fn radix_number(digits: &str, radix: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    digits
        .chars()
        .try_fold(0.0, |value, c| Some(value * f64::from(radix) + f64::from(c.to_digit(radix)?)))
}

/// `f64::from_str` also takes words such as `nan` and `inf`; those are kept out first.
fn decimal(text: &str) -> Option<f64> {
    let is_decimal =
        text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if is_decimal { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_javascript_reads_them() {
        let table: [(&str, Option<u64>); 24] = [
            ("1", Some(1)),
            (" 1e0 ", Some(1)),
            ("0x100", Some(256)),
            ("0b11", Some(3)),
            ("0o17", Some(15)),
            ("1.0", Some(1)),
            ("1.", Some(1)),
            (".5e1", Some(5)),
            ("+7", Some(7)),
            ("\u{feff}8\n", Some(8)),
            ("1e30", Some(u64::MAX)),
            ("", None),
            (" ", None),
            ("0", None),
            ("-1", None),
            ("1.5", None),
            ("1_000", None),
            ("10s", None),
            ("0x", None),
            ("-0x10", None),
            ("NaN", None),
            ("inf", None),
            ("Infinity", None),
            ("1e400", None),
        ];
        for (text, expected) in table {
            assert_eq!(whole_above_zero(text), expected, "{text:?}");
        }
    }
}
