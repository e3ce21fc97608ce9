//! `relay config`: what the configuration means.

use std::fmt::Write;

use crate::config::{Kind, Parsed, Variable};

/// Every effective value with its source, who gets which part of the memory, then the warnings.
/// Secrets show as `[set]`.
pub(crate) fn listing(parsed: &Parsed) -> String {
    let lines = &parsed.effective;
    let name_width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let shown = lines.iter().map(|line| line.shown.chars().count());
    let value_width = shown.filter(|width| *width <= VALUE_WIDTH_MAX).max().unwrap_or(0);
    let mut listing = String::new();
    for line in lines {
        let value = match Variable::named(line.name).kind {
            Kind::Secret if line.shown != "[set]" => "(none)",
            _ => &line.shown,
        };
        // Writing to a String cannot fail.
        let _ =
            writeln!(listing, "{:name_width$}  {value:value_width$}  {}", line.name, line.source);
    }
    let _ = writeln!(listing, "{}", parsed.config.memory.sum());
    for warning in &parsed.warnings {
        let _ = writeln!(listing, "warning: {warning}");
    }
    listing
}

/// Columns the values may take before a long one is allowed to stick out.
const VALUE_WIDTH_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, FlagValue, Machine};

    #[test]
    fn the_listing_names_values_and_sources_and_no_secret() {
        let flags = [
            FlagValue::set("HOST", "127.0.0.1"),
            FlagValue::set("RELAY_LISTEN_PORT", "7999"),
            FlagValue::set("SERVER_URL", "https://api.corp"),
            FlagValue::set("RELAY_MODE", "dev"),
            FlagValue::set("RELAY_INTERNAL_KEY", "hunter2"),
        ];
        let parsed = Config::parse(&flags, &Machine).expect("usable");
        let listing = listing(&parsed);
        let port = listing.lines().find(|line| line.starts_with("RELAY_LISTEN_PORT"));
        assert!(port.is_some_and(|line| line.contains("7999") && line.ends_with("flag --set")));
        assert!(listing.contains("[set]") && !listing.contains("hunter2"));
        assert!(listing.contains("\nmemory: ") && listing.contains(" idle connections\n"));
    }
}
