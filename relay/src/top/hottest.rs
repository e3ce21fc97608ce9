//! Who sends most.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::screen;

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
        let text = |scope: &Value, name: &str| scope[name].as_str().map(screen::printable);
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
    fn a_relay_without_traffic_has_none() {
        assert_eq!(Hottest::parse("{}").expect("it is one"), Hottest::default());
        assert!(Hottest::parse("no").is_err());
    }
}
