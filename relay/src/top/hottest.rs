//! Who sends most.

use anyhow::{Context, Result};
use serde_json::Value;

/// Scopes by frames per second, most first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hottest(pub(crate) Vec<HotScope>);

/// One scope's traffic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HotScope {
    pub(crate) name: String,
    pub(crate) frames_per_s: f64,
    pub(crate) bytes_per_s: f64,
}

impl Hottest {
    /// Reads the answer to `/node?hot=1`. Errors: it is no such answer.
    pub(crate) fn parse(body: &str) -> Result<Self> {
        let node: Value =
            serde_json::from_str(body).context("/node is not what a relay answers")?;
        let scopes = node["hottest"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |scope: &Value, name: &str| scope[name].as_str().map(printable);
        let scope = |scope: &Value| HotScope {
            name: [text(scope, "workspaceId"), text(scope, "runtimeTargetId")]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" / "),
            frames_per_s: scope["framesPerSecond"].as_f64().unwrap_or_default(),
            bytes_per_s: scope["bytesPerSecond"].as_f64().unwrap_or_default(),
        };
        Ok(Self(scopes.iter().map(scope).collect()))
    }
}

/// An identifier that a peer chose must not steer a terminal, nor show as another one.
fn printable(text: &str) -> String {
    let is_masked = |letter: char| letter.is_control() || is_invisible(letter);
    text.chars().map(|letter| if is_masked(letter) { '?' } else { letter }).collect()
}

/// Whether a character turns, joins or hides others and shows nothing itself. Source: Unicode's
/// general categories Cf, Zl and Zp, its variation selectors and its joiner of graphemes.
fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        let body = r#"{"hottest":[{"workspaceId":"a\u001b[2J","runtimeTargetId":"t",
            "framesPerSecond":2.5,"bytesPerSecond":1000}]}"#;
        let Hottest(scopes) = Hottest::parse(body).expect("it is one");
        let name = "a?[2J / t".to_owned();
        assert_eq!(scopes, [HotScope { name, frames_per_s: 2.5, bytes_per_s: 1000.0 }]);
    }

    #[test]
    fn names_cannot_show_as_others() {
        let invisible = [
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
        ];
        for letter in invisible {
            assert_eq!(printable(&format!("a{letter}b")), "a?b", "{:x}", u32::from(letter));
        }
        assert_eq!(printable("Zürich-東京_1"), "Zürich-東京_1");
    }

    #[test]
    fn a_relay_without_traffic_has_none() {
        assert_eq!(Hottest::parse("{}").expect("it is one"), Hottest::default());
        assert!(Hottest::parse("no").is_err());
    }
}
