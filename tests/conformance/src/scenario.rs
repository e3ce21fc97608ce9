//! One scenario as its file states it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::members::Members;
use crate::step::Step;

/// A self-contained black-box scenario.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) format: u32,
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) title: String,
    #[serde(default, rename = "notes")]
    _notes: Option<Value>,
    #[serde(default, rename = "authored")]
    _authored: bool,
    #[serde(default)]
    pub(crate) needs: Vec<Need>,
    pub(crate) relays: Members<RelaySpec>,
    #[serde(default)]
    pub(crate) platform: PlatformSpec,
    pub(crate) steps: Vec<Step>,
    /// The steps as written, for reports.
    #[serde(skip)]
    pub(crate) step_texts: Vec<String>,
}

/// Something outside relay and platform that a scenario relies on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Need {
    /// An empty Redis.
    Redis,
    /// Certificate files.
    Tls,
}

/// How one relay is started.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RelaySpec {
    /// Variables; `None` removes one the runner would set.
    #[serde(default)]
    pub(crate) env: Members<Option<String>>,
    /// Not started before the first step.
    #[serde(default)]
    pub(crate) manual: bool,
}

/// How the platform behaves.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PlatformSpec {
    #[serde(default)]
    pub(crate) tokens: Members<TokenSpec>,
    #[serde(default)]
    pub(crate) tls: Option<PlatformTls>,
    #[serde(default)]
    pub(crate) internal_key: Option<String>,
    #[serde(default)]
    pub(crate) responses: Vec<Rule>,
}

/// A token the platform knows (`claims`) or a text it may not know (`literal`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum TokenSpec {
    Claims(Value),
    Literal(String),
}

/// The platform's side of TLS.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PlatformTls {
    Server,
    ClientCertificate,
}

/// A request pattern and the answer to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) path: String,
    pub(crate) method: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) times: Option<u64>,
    pub(crate) response: ResponseSpec,
}

/// An answer of the platform, or one of its ways not to answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResponseSpec {
    pub(crate) status: Option<u16>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) json: Option<Value>,
    pub(crate) text: Option<String>,
    #[serde(default)]
    pub(crate) delay_ms: u64,
    #[serde(default)]
    pub(crate) hang: bool,
    #[serde(default)]
    pub(crate) drop: bool,
    #[serde(default)]
    pub(crate) stall_after_headers: bool,
    #[serde(default)]
    pub(crate) cut_body: bool,
    pub(crate) drip_ms: Option<u64>,
}

impl Scenario {
    /// Parses the text of a scenario file.
    ///
    /// Errors: not JSON, another format, or a member this runner does not know.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Written {
            steps: Vec<Members<Value>>,
        }

        let mut scenario: Self = serde_json::from_str(text)?;
        ensure!(scenario.format == 1, "format {} is not 1", scenario.format);
        let written: Written = serde_json::from_str(text)?;
        scenario.step_texts = written.steps.iter().map(step_text).collect();
        Ok(scenario)
    }

    /// `group/name`, as given to `--scenario`.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    pub(crate) fn needs(&self, need: Need) -> bool {
        self.needs.contains(&need)
    }
}

/// Reads all scenarios below `dir`, sorted by group and name.
pub(crate) fn read_all(dir: &Path) -> anyhow::Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    for group in sorted_entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        for path in sorted_entries(&group)? {
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
                let scenario =
                    Scenario::parse(&text).with_context(|| format!("in {}", path.display()))?;
                scenarios.push(scenario);
            }
        }
    }
    ensure!(!scenarios.is_empty(), "no scenarios below {}", dir.display());
    Ok(scenarios)
}

fn sorted_entries(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(|| format!("listing {}", dir.display()))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The step without its expectation, shortened for a report.
fn step_text(step: &Members<Value>) -> String {
    let members = step.iter().filter(|(name, _)| *name != "expect");
    let text: Vec<_> =
        members.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    let text = format!("{{{}}}", text.join(","));
    match text.char_indices().nth(STEP_TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Characters of a step shown in a report: enough to recognise it.
const STEP_TEXT_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_scenario_is_understood_whole() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let scenarios = read_all(&dir).unwrap();
        assert!(scenarios.len() >= 320, "only {} scenarios", scenarios.len());
    }

    #[test]
    fn an_unknown_member_of_a_step_is_refused() {
        let text = r#"{"format":1,"group":"g","name":"n","title":"","relays":{},
            "steps":[{"do":"sleep","ms":1,"sometimes":true}]}"#;
        let refusal = Scenario::parse(text).unwrap_err().to_string();
        assert!(refusal.contains("sometimes"), "{refusal}");
    }

    #[test]
    fn the_report_shows_a_step_in_its_own_order_without_the_expectation() {
        let step: Members<Value> =
            serde_json::from_str(r#"{"do":"x","b":[1],"a":"q","expect":{}}"#).unwrap();
        assert_eq!(step_text(&step), r#"{"do":"x","b":[1],"a":"q"}"#);
    }
}
