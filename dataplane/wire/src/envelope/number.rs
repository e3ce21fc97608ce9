//! JSON numbers: their grammar, their value, and how JavaScript writes them.

/// Where inside a number the scanner is. Source: RFC 8259 §6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NumberState {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl NumberState {
    /// The state after a number's first byte.
    pub(super) const fn start(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Self::Minus),
            b'0' => Some(Self::Zero),
            b'1'..=b'9' => Some(Self::Integer),
            _ => None,
        }
    }

    /// The state after another byte, or `None` when that byte is not part of the number.
    pub(super) const fn step(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Some(Self::Integer),
            (Self::Zero | Self::Integer, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Some(Self::ExponentDigits)
            }
            _ => None,
        }
    }

    /// Whether the number may end here.
    pub(super) const fn is_complete(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits)
    }
}

/// The double nearest to a number's text; beyond the largest double it is an infinity.
pub(super) fn value(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `Number.isInteger`: every double without a fraction, however large.
pub(super) fn is_integer(number: f64) -> bool {
    // Doubles of that size have no bits left for a fraction.
    const FRACTIONLESS: f64 = (1_u64 << 53) as f64;
    number.is_finite() && (number.abs() >= FRACTIONLESS || number as i64 as f64 == number)
}

/// Writes a finite double as `Number.prototype.toString` does. Source: ECMA-262,
/// "Number::toString".
pub(super) fn write_js(number: f64, out: &mut Vec<u8>) {
    // The shortest digits that name the double, and its decimal exponent.
    let text = format!("{:e}", number.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    let point = exponent.parse::<i32>().unwrap_or_default() + 1;
    if number < 0.0 {
        out.push(b'-');
    }
    let count = digits.len() as i32;
    if number == 0.0 {
        out.push(b'0');
    } else if count <= point && point <= 21 {
        out.extend_from_slice(&digits);
        out.resize(out.len() + (point - count) as usize, b'0');
    } else if 0 < point && point <= 21 {
        let (whole, fraction) = digits.split_at(point as usize);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else if -6 < point && point <= 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(&digits);
    } else {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let sign = if point > 0 { '+' } else { '-' };
        out.extend_from_slice(format!("e{sign}{}", (point - 1).unsigned_abs()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str) -> bool {
        let mut bytes = text.bytes();
        let Some(mut state) = bytes.next().and_then(NumberState::start) else {
            return false;
        };
        for byte in bytes {
            match state.step(byte) {
                Some(next) => state = next,
                None => return false,
            }
        }
        state.is_complete()
    }

    #[test]
    fn the_grammar_is_that_of_json() {
        for good in ["0", "-0", "1", "10", "-12.5", "0.0", "1e5", "1E+5", "1.5e-05", "0e0"] {
            assert!(accepts(good), "{good}");
        }
        for bad in [
            "", "-", "+1", "01", "-01", ".5", "1.", "1.e1", "1e", "1e+", "0x1", "1_0", "NaN",
            "Infinity", "1e1.5", "--1",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
    }

    #[test]
    fn values_are_those_json_parse_gives() {
        for (text, expected, integer) in [
            ("1.0", 1.0, true),
            ("1e0", 1.0, true),
            ("10E-1", 1.0, true),
            ("1.0000000000000000000001", 1.0, true),
            ("1.5", 1.5, false),
            ("-0", 0.0, true),
            ("1e400", f64::INFINITY, false),
            ("1e308", 1e308, true),
            ("123456789012345678901234567890", 123_456_789_012_345_680_000_000_000_000.0, true),
            ("9007199254740993", 9_007_199_254_740_992.0, true),
            ("1e-400", 0.0, true),
        ] {
            let value = value(text.as_bytes()).expect("the text is a number");
            assert_eq!(value, expected, "{text}");
            assert_eq!(is_integer(value), integer, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (7.0, "7"),
            (-1.5, "-1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.25e22, "1.25e+22"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (0.000_001, "0.000001"),
            (1e-7, "1e-7"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            let mut out = Vec::new();
            write_js(number, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
