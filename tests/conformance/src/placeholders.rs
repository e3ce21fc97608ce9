//! Expansion of `{{…}}` in what a scenario sends.

use std::collections::HashMap;

use anyhow::{Context, bail};
use serde_json::Value;

/// The values placeholders stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placeholders {
    values: HashMap<String, String>,
}

impl Placeholders {
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), value.into());
    }

    /// Replaces every placeholder of `text`.
    ///
    /// Errors: a placeholder without a value, which is a mistake in the scenario.
    pub(crate) fn expand(&self, text: &str) -> anyhow::Result<String> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, from)) = rest.split_once("{{") {
            let (name, after) = from.split_once("}}").context("placeholder without an end")?;
            expanded.push_str(before);
            self.expand_one(name, &mut expanded)?;
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    /// Replaces placeholders in every string of a JSON value.
    pub(crate) fn expand_json(&self, value: &Value) -> anyhow::Result<Value> {
        Ok(match value {
            Value::String(text) => Value::String(self.expand(text)?),
            Value::Array(items) => {
                let items: anyhow::Result<_> =
                    items.iter().map(|item| self.expand_json(item)).collect();
                Value::Array(items?)
            }
            Value::Object(members) => {
                let members: anyhow::Result<_> = members
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), self.expand_json(value)?)))
                    .collect();
                Value::Object(members?)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        })
    }

    fn expand_one(&self, name: &str, expanded: &mut String) -> anyhow::Result<()> {
        if let Some(repeat) = name.strip_prefix("repeat:") {
            let (text, count) = repeat.rsplit_once(':').context("repeat without a count")?;
            let count: usize = count.parse().context("repeat without a count")?;
            expanded.push_str(&text.repeat(count));
        } else if let Some(value) = self.values.get(name) {
            expanded.push_str(value);
        } else {
            bail!("placeholder {{{{{name}}}}} has no value here");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn placeholders() -> Placeholders {
        let mut placeholders = Placeholders::default();
        placeholders.set("port:A", "4711");
        placeholders.set("token:t", "secret");
        placeholders
    }

    #[test]
    fn placeholders_are_replaced_wherever_they_stand() {
        let value = json!({"a": ["x{{port:A}}y{{port:A}}", 1], "b": "{{token:t}}"});
        let expanded = placeholders().expand_json(&value).unwrap();
        assert_eq!(expanded, json!({"a": ["x4711y4711", 1], "b": "secret"}));
    }

    #[test]
    fn repeat_takes_its_count_from_the_end() {
        assert_eq!(placeholders().expand("<{{repeat:a:b:3}}>").unwrap(), "<a:ba:ba:b>");
    }

    #[test]
    fn an_unknown_placeholder_is_a_mistake() {
        assert!(placeholders().expand("{{port:Z}}").is_err());
    }
}
