//! Result files of a folder.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// All results of a folder, by name of file.
pub(super) struct Results(Vec<Found>);

/// One result file.
pub(super) struct Found {
    pub(super) file: String,
    pub(super) json: Value,
}

impl Results {
    /// Errors: the folder cannot be read, a file is no JSON, or there is none.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension() != Some("json".as_ref()) {
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            let json = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Found { file, json });
        }
        ensure!(!found.is_empty(), "{} holds no results", folder.display());
        found.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(Self(found))
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, Value)]) -> Self {
        let found =
            files.iter().map(|(file, json)| Found { file: (*file).to_owned(), json: json.clone() });
        Self(found.collect())
    }

    /// Those that have all these members.
    pub(super) fn with<'r>(&'r self, members: &'r [&str]) -> impl Iterator<Item = &'r Found> {
        self.0.iter().filter(|found| members.iter().all(|name| found.json.get(name).is_some()))
    }

    /// That of a scenario.
    pub(super) fn scenario<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r Found> {
        self.with(&["cases"]).filter(move |found| found.json["name"] == name)
    }
}

impl Found {
    /// File and commit.
    pub(super) fn source(&self) -> String {
        format!("{}, {}", self.file, self.json["commit"].as_str().unwrap_or("commit unknown"))
    }

    /// Whether TLS ended in the relay; results that do not say so have it in their name.
    pub(super) fn is_tls(&self) -> bool {
        self.json["tls"].as_bool().unwrap_or_else(|| self.file.contains("tls"))
    }

    pub(super) fn number(&self, pointer: &str) -> Option<f64> {
        self.json.pointer(pointer)?.as_f64()
    }

    pub(super) fn rows<'r>(&'r self, name: &str) -> impl Iterator<Item = &'r Value> + use<'r> {
        self.json[name].as_array().into_iter().flatten()
    }
}
