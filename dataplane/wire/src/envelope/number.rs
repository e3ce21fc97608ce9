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

    /// Whether any number of digits may follow without a change of state.
    pub(super) const fn takes_digits(self) -> bool {
        matches!(self, Self::Integer | Self::Fraction | Self::ExponentDigits)
    }

    /// Whether the number may end here.
    pub(super) const fn is_complete(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits)
    }
}

/// What of a number's text decides its value, however long it is: the digits that count are kept by
/// the caller, and here is where they stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Decimal {
    is_negative: bool,
    /// Digits kept, the first of which is not zero.
    kept: usize,
    /// The power of ten of the last of them.
    scale: i64,
    /// Whether a digit that was not kept is not zero.
    goes_on: bool,
    exponent: i64,
    is_exponent_negative: bool,
}

impl Decimal {
    /// Takes bytes that all led to `state`: one of any kind, or some digits.
    pub(super) fn take(&mut self, state: NumberState, bytes: &[u8], digits: &mut Vec<u8>) {
        match state {
            NumberState::Minus => self.is_negative = true,
            NumberState::Integer => {
                let left_out = self.keep(bytes, digits);
                self.scale = self.scale.saturating_add(left_out as i64);
            }
            NumberState::Fraction => {
                let leading = match self.kept {
                    0 => bytes.iter().take_while(|&&byte| byte == b'0').count(),
                    _ => 0,
                };
                let left_out = self.keep(&bytes[leading..], digits);
                self.scale = self.scale.saturating_sub((bytes.len() - left_out) as i64);
            }
            NumberState::ExponentSign => self.is_exponent_negative = bytes == b"-",
            NumberState::ExponentDigits => {
                for &digit in bytes {
                    let exponent = self.exponent.saturating_mul(10);
                    self.exponent = exponent.saturating_add(i64::from(digit - b'0'));
                }
            }
            NumberState::Zero | NumberState::Point | NumberState::Exponent => {}
        }
    }

    /// Keeps the digits that may count. Returns how many it left out.
    fn keep(&mut self, bytes: &[u8], digits: &mut Vec<u8>) -> usize {
        let (kept, rest) = bytes.split_at(bytes.len().min(SIGNIFICANT_MAX - self.kept));
        digits.extend_from_slice(kept);
        self.kept += kept.len();
        self.goes_on |= rest.iter().any(|&byte| byte != b'0');
        rest.len()
    }

    /// Whether its value takes long to find: 10 to 20 µs, where 19 digits do not decide which
    /// double is nearest.
    pub(super) const fn is_long(&self) -> bool {
        self.kept > 19
    }

    /// The double nearest to the number whose digits these are; beyond the largest double it is an
    /// infinity. Allocates nothing.
    pub(super) fn value(&self, digits: &[u8]) -> f64 {
        let mut scale = self.scale.saturating_add(match self.is_exponent_negative {
            true => -self.exponent,
            false => self.exponent,
        });
        let mut text = [b'0'; SIGNIFICANT_MAX + 1 + SCALE_TEXT_BYTES];
        let mut len = digits.len().min(SIGNIFICANT_MAX);
        text[..len].copy_from_slice(&digits[..len]);
        if len == 0 {
            // There is none that is not zero.
            return if self.is_negative { -0.0 } else { 0.0 };
        }
        if self.goes_on {
            // It decides only between two doubles that the rest lies exactly between.
            text[len] = b'1';
            len += 1;
            scale = scale.saturating_sub(1);
        }
        let scale = scale.clamp(-SCALE_MAX, SCALE_MAX);
        text[len] = b'e';
        text[len + 1] = if scale < 0 { b'-' } else { b'+' };
        let mut rest = scale.unsigned_abs();
        for place in text[len + 2..len + SCALE_TEXT_BYTES].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let size = value(&text[..len + SCALE_TEXT_BYTES]).unwrap_or(f64::NAN);
        if self.is_negative { -size } else { size }
    }
}

/// Digits from the first on that is not zero that can decide which double is nearest; of those
/// behind them it only matters whether all are zero. Source: the longest decimal that lies exactly
/// between two doubles has 768.
const SIGNIFICANT_MAX: usize = 800;
/// Powers of ten beyond which a number of so many digits is zero or an infinity.
const SCALE_MAX: i64 = 10_000;
/// `e`, a sign and five digits.
const SCALE_TEXT_BYTES: usize = 7;

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

    /// The value of a text that is read in two parts.
    fn read(text: &[u8], cut: usize) -> f64 {
        let (mut decimal, mut digits) = (Decimal::default(), Vec::new());
        let cut = cut.min(text.len());
        let mut state = NumberState::start(text[0]).expect("a number");
        decimal.take(state, &text[..1], &mut digits);
        let mut at = 1;
        while at < text.len() {
            state = state.step(text[at]).expect("a number");
            let stop = if at < cut { cut } else { text.len() };
            let rest = &text[at + 1..stop.max(at + 1)];
            let run = match state.takes_digits() {
                true => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
                false => 0,
            };
            decimal.take(state, &text[at..=at + run], &mut digits);
            at += 1 + run;
        }
        assert!(digits.len() <= SIGNIFICANT_MAX);
        decimal.value(&digits)
    }

    #[test]
    fn digits_that_are_not_kept_still_count() {
        // Exactly between one and the next double, and a little above it.
        let half = "1.00000000000000011102230246251565404236316680908203125";
        let zeros = "0".repeat(2000);
        let next = 1.0 + f64::EPSILON;
        for (text, expected) in [
            (half.to_owned(), 1.0),
            ([half, &zeros].concat(), 1.0),
            ([half, &zeros, "1"].concat(), next),
            (["1", &zeros, "e-2000"].concat(), 1.0),
            (["0.", &zeros, "1e2001"].concat(), 1.0),
            (["-1", &zeros].concat(), f64::NEG_INFINITY),
            (["1e-", &"9".repeat(2000)].concat(), 0.0),
            (["1e", &"9".repeat(2000)].concat(), f64::INFINITY),
            (["0e", &"9".repeat(2000)].concat(), 0.0),
            (["1e+", &zeros, "1"].concat(), 10.0),
        ] {
            assert_eq!(read(text.as_bytes(), 0), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_number_read_in_parts_has_the_value_of_its_text(
            text in "-?(0|[1-9][0-9]{0,30}|[1-9]0{0,900}[0-9]{0,3})(\\.(0{0,400}|[0-9]{1,900}))?",
            exponent in proptest::option::of(-1500_i32..1500),
            cut in 0_usize..2000,
        ) {
            let text = text.strip_suffix('.').unwrap_or(&text);
            let text = exponent.map_or(text.to_owned(), |exponent| format!("{text}e{exponent}"));
            let expected = value(text.as_bytes()).expect("a number");
            assert_eq!(read(text.as_bytes(), cut).to_bits(), expected.to_bits(), "{text}");
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
