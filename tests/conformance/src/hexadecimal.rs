//! Bytes as hexadecimal digits.

use std::fmt::Write;

use anyhow::{Context, ensure};

/// Lower-case digits, two for each byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(digits, "{byte:02x}").expect("a string takes everything");
    }
    digits
}

/// The bytes of an even number of digits.
pub(crate) fn decode(digits: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(digits.is_ascii() && digits.len().is_multiple_of(2), "not hexadecimal: {digits}");
    (0..digits.len())
        .step_by(2)
        .map(|start| u8::from_str_radix(&digits[start..start + 2], 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("not hexadecimal: {digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_round_trip() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        assert!(decode("0").is_err() && decode("0x").is_err());
    }
}
