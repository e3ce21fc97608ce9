//! Whether keys can be guessed.

use relay_contract::Secret;

use super::finding::Finding;
use crate::config::{Config, is_strong};

/// One finding per key that is configured, and one for an admin port without any.
pub(crate) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let admin = &config.admin;
    if admin.enabled && admin.token.is_none() {
        findings.push(Finding::warn(
            "admin token",
            "RELAY_ENABLE_ADMIN_HTTP=1 without RELAY_ADMIN_TOKEN: nobody is authorised",
            "RELAY_ADMIN_TOKEN=$(openssl rand -base64 32)",
        ));
    }
    let keys = [
        ("admin token", "RELAY_ADMIN_TOKEN", admin.token.as_ref().filter(|_| admin.enabled)),
        ("internal key", "RELAY_INTERNAL_KEY", config.platform.key.as_ref()),
        ("bus key", "RELAY_BUS_HMAC_KEY", config.backplane.bus_key.as_ref()),
    ];
    for (check, variable, key) in keys {
        findings.extend(key.map(|key| judge(check, variable, key)));
    }
    findings
}

fn judge(check: &'static str, variable: &str, key: &Secret) -> Finding {
    if !is_strong(key.expose()) {
        return Finding::warn(
            check,
            format!("{variable} has fewer than 24 characters, or is a placeholder"),
            format!("{variable}=$(openssl rand -base64 32)"),
        );
    }
    let mut letters: Vec<char> = key.expose().chars().collect();
    letters.sort_unstable();
    letters.dedup();
    if letters.len() < DISTINCT_MIN {
        return Finding::warn(
            check,
            format!("{variable} repeats a few characters"),
            format!("{variable}=$(openssl rand -base64 32)"),
        );
    }
    Finding::ok(check, format!("{variable} is long enough"))
}

/// Twenty-four random hexadecimal digits have fewer different ones once in ten thousand times.
const DISTINCT_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_key_that_can_be_guessed_is_worth_a_look_and_never_shown() {
        for (key, verdict) in [
            ("short", Verdict::Warn),
            ("change-me-change-me-change-me", Verdict::Warn),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Verdict::Warn),
            ("0f9e8d7c6b5a49382716051423324150", Verdict::Ok),
        ] {
            let finding = judge("internal key", "RELAY_INTERNAL_KEY", &Secret::from(key));
            assert_eq!(finding.verdict, verdict, "{key}");
            assert!(!format!("{finding:?}").contains(key));
        }
    }
}
