//! Rewriting of observed text: what differs from run to run becomes a placeholder.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// What this run knows to be particular to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Normaliser {
    /// Token texts and the placeholders for them, longest text first.
    tokens: Vec<(String, String)>,
    /// Ports in decimal and the placeholders for them.
    ports: Vec<(String, String)>,
    certificates_dir: Option<String>,
}

impl Normaliser {
    pub(crate) fn add_token(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.tokens.push((text.to_owned(), format!("{{{{token:{name}}}}}")));
            // A token that contains another one must be recognised whole.
            self.tokens.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        }
    }

    /// `name` is a relay's, `platform` or `redis`.
    pub(crate) fn add_port(&mut self, name: &str, port: u16) {
        self.ports.push((port.to_string(), format!("{{{{port:{name}}}}}")));
    }

    pub(crate) fn set_certificates_dir(&mut self, dir: &str) {
        self.certificates_dir = Some(dir.to_owned());
    }

    /// The rewritten text, or what stands for it when it is long.
    pub(crate) fn observe(&self, text: &str) -> Value {
        shorten(self.text(text))
    }

    /// The rewritten text at full length.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = self.rewrite_ports(&self.rewrite_tokens(text));
        if let Some(dir) = &self.certificates_dir {
            text = text.replace(dir, "{{dir}}");
        }
        text = rewrite_timestamps(&text);
        for name in MILLISECOND_MEMBERS {
            text = rewrite_number_member(&text, name);
        }
        text = rewrite_signatures(&text);
        text = rewrite_quoted(&text, "\"date\":\"", "\"");
        rewrite_quoted(&text, "\\\"date\\\":\\\"", "\\\"")
    }

    /// The same for parsed JSON: every string and number, and members known by name.
    pub(crate) fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.observe(text),
            Value::Number(number) => match self.port_placeholder(&number.to_string()) {
                Some(placeholder) => json!(placeholder),
                None => value.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(members) => {
                let members = members.iter();
                let rewritten: Map<_, _> =
                    members.map(|(name, value)| (name.clone(), self.member(name, value))).collect();
                Value::Object(rewritten)
            }
            Value::Null | Value::Bool(_) => value.clone(),
        }
    }

    fn member(&self, name: &str, value: &Value) -> Value {
        match value {
            Value::Number(_) if MILLISECOND_MEMBERS.contains(&name) => json!("{{ms}}"),
            Value::String(_) if name == "error" => json!("{{text}}"),
            Value::String(_) if name == "date" => json!("{{date}}"),
            Value::String(text) if name == "signature" && is_signature(text) => json!("{{sig}}"),
            _ => self.json(value),
        }
    }

    fn port_placeholder(&self, digits: &str) -> Option<&str> {
        let port = self.ports.iter().find(|(port, _)| port == digits);
        port.map(|(_, placeholder)| placeholder.as_str())
    }

    /// In one pass: a token's text may occur in the placeholder of another.
    fn rewrite_tokens(&self, text: &str) -> String {
        let mut rewritten = String::with_capacity(text.len());
        let mut rest = text;
        loop {
            let found = self.tokens.iter().filter_map(|token| Some((rest.find(&token.0)?, token)));
            // The first of several minima is taken, which is the longest token.
            let Some((start, (token, placeholder))) = found.min_by_key(|(start, _)| *start) else {
                rewritten.push_str(rest);
                return rewritten;
            };
            rewritten.push_str(&rest[..start]);
            rewritten.push_str(placeholder);
            rest = &rest[start + token.len()..];
        }
    }

    fn rewrite_ports(&self, text: &str) -> String {
        let mut rewritten = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
            let (digits, after) = from.split_at(end);
            rewritten.push_str(before);
            rewritten.push_str(self.port_placeholder(digits).unwrap_or(digits));
            rest = after;
        }
        rewritten.push_str(rest);
        rewritten
    }
}

/// Length and hash in place of a text too long to keep in a scenario file.
pub(crate) fn shorten(text: String) -> Value {
    let units = text.encode_utf16().count();
    if units > TEXT_UNITS_MAX {
        json!({"length": units, "sha256": sha256_hex(text.as_bytes())})
    } else {
        Value::String(text)
    }
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    crate::hexadecimal::encode(&Sha256::digest(bytes))
}

fn rewrite_timestamps(text: &str) -> String {
    let mut rewritten = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dash) = rest.find('-') {
        let start = dash.wrapping_sub("2026".len());
        let candidate = rest.get(start..start.wrapping_add(TIMESTAMP_SHAPE.len()));
        if candidate.is_some_and(is_timestamp) {
            rewritten.push_str(&rest[..start]);
            rewritten.push_str("{{iso}}");
            rest = &rest[start + TIMESTAMP_SHAPE.len()..];
        } else {
            rewritten.push_str(&rest[..=dash]);
            rest = &rest[dash + 1..];
        }
    }
    rewritten.push_str(rest);
    rewritten
}

fn is_timestamp(text: &str) -> bool {
    text.bytes().zip(TIMESTAMP_SHAPE.bytes()).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte == shape,
    })
}

/// `"name":123` becomes `"name":"{{ms}}"`.
fn rewrite_number_member(text: &str, name: &str) -> String {
    let prefix = format!("\"{name}\":");
    replace_after(text, &prefix, |from| {
        let end = from
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(from.len());
        (end > 0).then_some((end, "\"{{ms}}\""))
    })
}

fn rewrite_signatures(text: &str) -> String {
    replace_after(text, "\"signature\":\"", |from| {
        let end = from.find('"')?;
        is_signature(&from[..end]).then_some((end, "{{sig}}"))
    })
}

/// The text between `open` and `close` becomes `{{date}}`.
fn rewrite_quoted(text: &str, open: &str, close: &str) -> String {
    replace_after(text, open, |from| from.find(close).map(|end| (end, "{{date}}")))
}

/// Replaces what follows each `prefix`: `rule` says how many bytes go, and what comes.
fn replace_after(
    text: &str,
    prefix: &str,
    rule: impl Fn(&str) -> Option<(usize, &'static str)>,
) -> String {
    let mut rewritten = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find(prefix) {
        let (before, from) = rest.split_at(found + prefix.len());
        rewritten.push_str(before);
        rest = match rule(from) {
            Some((end, replacement)) => {
                rewritten.push_str(replacement);
                &from[end..]
            }
            None => from,
        };
    }
    rewritten.push_str(rest);
    rewritten
}

fn is_signature(text: &str) -> bool {
    text.len() == SIGNATURE_CHARS
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// UTF-16 units of a text that is compared as it is.
const TEXT_UNITS_MAX: usize = 2048;

/// Members that hold milliseconds, of the clock or since the start.
const MILLISECOND_MEMBERS: [&str; 3] = ["uptimeMs", "issuedAtMs", "updatedAtMs"];

/// Base64url characters of an HMAC-SHA256.
const SIGNATURE_CHARS: usize = 43;

/// `0` is any digit.
const TIMESTAMP_SHAPE: &str = "0000-00-00T00:00:00.000Z";

#[cfg(test)]
mod tests {
    use super::*;

    fn normaliser() -> Normaliser {
        let mut normaliser = Normaliser::default();
        normaliser.add_token("short", "tok");
        normaliser.add_token("long", "tok-and-more");
        normaliser.add_port("A", 40123);
        normaliser.add_port("platform", 40124);
        normaliser.set_certificates_dir("/tmp/certificates");
        normaliser
    }

    #[test]
    fn a_token_inside_another_is_not_taken_for_it() {
        assert_eq!(normaliser().text("tok tok-and-more"), "{{token:short}} {{token:long}}");
    }

    #[test]
    fn a_port_is_replaced_only_as_a_whole_number() {
        let text = "http://127.0.0.1:40123/ 140123 401234 x40124y";
        let expected = "http://127.0.0.1:{{port:A}}/ 140123 401234 x{{port:platform}}y";
        assert_eq!(normaliser().text(text), expected);
    }

    #[test]
    fn paths_and_timestamps_are_replaced() {
        let text = "/tmp/certificates/ca.pem -2026-01-31T10:00:00.000Z- 2026-01-31T10:00Z é-";
        assert_eq!(normaliser().text(text), "{{dir}}/ca.pem -{{iso}}- 2026-01-31T10:00Z é-");
    }

    #[test]
    fn milliseconds_become_a_quoted_placeholder() {
        let text = r#"{"uptimeMs":12,"issuedAtMs":-1.5e3,"updatedAtMs":null,"otherMs":1}"#;
        let expected =
            r#"{"uptimeMs":"{{ms}}","issuedAtMs":"{{ms}}","updatedAtMs":null,"otherMs":1}"#;
        assert_eq!(normaliser().text(text), expected);
    }

    #[test]
    fn only_a_signature_of_43_characters_is_replaced() {
        let signature = "A-_".repeat(14) + "z";
        let text = format!(r#"{{"signature":"{signature}","signature":"x"}}"#);
        let expected = r#"{"signature":"{{sig}}","signature":"x"}"#;
        assert_eq!(normaliser().text(&text), expected);
    }

    #[test]
    fn dates_are_replaced_in_json_and_in_json_inside_a_string() {
        let text = r#"{"date":"Mon","body":"{\"date\":\"Tue\",\"a\":\"b\"}"}"#;
        let expected = r#"{"date":"{{date}}","body":"{\"date\":\"{{date}}\",\"a\":\"b\"}"}"#;
        assert_eq!(normaliser().text(text), expected);
    }

    #[test]
    fn length_counts_utf16_units_after_rewriting() {
        let normaliser = normaliser();
        assert!(normaliser.observe(&"é".repeat(2048)).is_string());
        assert_eq!(normaliser.observe(&"😀".repeat(1025))["length"], 2050);
        let hashed = normaliser.observe(&"a".repeat(3000));
        assert_eq!(hashed["length"], 3000);
        assert_eq!(hashed["sha256"], sha256_hex("a".repeat(3000).as_bytes()));
    }

    #[test]
    fn parsed_json_is_rewritten_by_value_and_by_name() {
        let signature = "s".repeat(43);
        let value = json!({
            "port": 40123, "list": [40124, 1, "tok"], "uptimeMs": 5, "error": "any words",
            "signature": signature, "date": "Mon", "nested": {"error": 5, "issuedAtMs": "x"},
        });
        let expected = json!({
            "port": "{{port:A}}", "list": ["{{port:platform}}", 1, "{{token:short}}"],
            "uptimeMs": "{{ms}}", "error": "{{text}}", "signature": "{{sig}}",
            "date": "{{date}}", "nested": {"error": 5, "issuedAtMs": "x"},
        });
        assert_eq!(normaliser().json(&value), expected);
    }
}
