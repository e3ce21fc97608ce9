//! What was written down earlier: answers of `/metrics`, or a result of relay-load.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::readings::Readings;

/// A saved answer of `/metrics`.
pub(super) fn reading(file: &Path) -> Result<Readings> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Readings::parse(&text).with_context(|| file.display().to_string())
}

/// An interval out of one file: the window of a load, or everything since the relay's start.
///
/// Errors: the file is neither, or `case` names not exactly one of its loads.
pub(super) fn interval(file: &Path, case: Option<&str>) -> Result<(Readings, Readings)> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let read = match text.trim_start().starts_with('{') {
        true => window(&text, case),
        false => {
            Readings::parse(&text).map(|later| (Readings::default(), later)).map_err(Into::into)
        }
    };
    read.with_context(|| file.display().to_string())
}

/// The window of one load of a result.
fn window(text: &str, case: Option<&str>) -> Result<(Readings, Readings)> {
    let result: Value = serde_json::from_str(text).context("no result of relay-load")?;
    let loads = result["cases"].as_array().context("no result of relay-load run")?;
    let found: Vec<_> = loads
        .iter()
        // Without metrics where the process under test was no relay, or spoke TLS alone.
        .filter(|load| load["metrics"].is_object())
        .filter_map(|load| Some((load["case"]["name"].as_str()?, &load["metrics"])))
        .filter(|(name, _)| case.is_none_or(|wanted| name.contains(wanted)))
        .collect();
    // A whole name chooses its load, also where another's contains it.
    let whole = found.iter().position(|(name, _)| Some(*name) == case);
    let found = whole.map_or(&found[..], |at| &found[at..=at]);
    match found {
        [(_, metrics)] => Ok((samples(&metrics["before"])?, samples(&metrics["after"])?)),
        [] => bail!("no load of that name in it whose relay could be asked for metrics"),
        _ => {
            let names: String = found.iter().map(|(name, _)| format!("\n  {name}")).collect();
            bail!("several loads: choose one with --case and a part of its name:{names}")
        }
    }
}

/// Lines of the text format.
fn samples(lines: &Value) -> Result<Readings> {
    let lines = lines.as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(Readings::parse(&lines.collect::<Vec<_>>().join("\n"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = r#"{"name":"x","cases":[
        {"case":{"name":"relay, depth 1"},"metrics":{"before":["relay_uptime_seconds 1"],
            "after":["relay_uptime_seconds 3"]}},
        {"case":{"name":"pass-through, depth 1"},"metrics":null},
        {"case":{"name":"relay, depth 16"},"metrics":{"before":["relay_uptime_seconds 5"],
            "after":["relay_uptime_seconds 9"]}}]}"#;

    fn uptimes(case: Option<&str>) -> Result<(Option<f64>, Option<f64>)> {
        let (earlier, later) = window(RESULT, case)?;
        Ok((earlier.value("relay_uptime_seconds"), later.value("relay_uptime_seconds")))
    }

    #[test]
    fn a_load_is_chosen_by_a_part_of_its_name() {
        assert_eq!(uptimes(Some("depth 16")).unwrap(), (Some(5.0), Some(9.0)));
    }

    #[test]
    fn a_whole_name_chooses_before_longer_ones() {
        assert_eq!(uptimes(Some("relay, depth 1")).unwrap(), (Some(1.0), Some(3.0)));
    }

    #[test]
    fn several_loads_are_named_to_choose_from() {
        let error = uptimes(None).unwrap_err().to_string();
        assert!(error.contains("relay, depth 1\n") && error.contains("depth 16"), "{error}");
        assert!(!error.contains("pass-through"), "{error}");
    }

    #[test]
    fn a_load_without_metrics_is_none_to_plan_from() {
        let error = uptimes(Some("pass-through")).unwrap_err().to_string();
        assert!(error.starts_with("no load of that name"), "{error}");
    }
}
