//! What a relay exports, read back: the text of `/metrics` as values.

mod distribution;
mod door;
mod interval;

use std::collections::BTreeMap;

pub(crate) use distribution::Distribution;
pub(crate) use door::Door;
pub(crate) use interval::Interval;

/// One reading of all metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings(BTreeMap<String, Vec<Sample>>);

/// One value and its labels.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    labels: Vec<(String, String)>,
    value: f64,
}

/// A line that is no sample.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line} is none of Prometheus' text format")]
pub(crate) struct NoSample {
    line: usize,
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|label| label.0 == name);
        found.map(|label| label.1.as_str())
    }
}

impl Readings {
    /// Reads the text format 0.0.4; comments are skipped.
    ///
    /// Errors: the first line that is no sample.
    pub(crate) fn parse(text: &str) -> Result<Self, NoSample> {
        let mut readings = Self::default();
        for (line, content) in (1..).zip(text.lines()) {
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            let (name, sample) = sample(content).ok_or(NoSample { line })?;
            readings.0.entry(name).or_default().push(sample);
        }
        Ok(readings)
    }

    /// Whether nothing was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a metric without labels.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.first().map(|sample| sample.value)
    }

    /// The value whose label says so.
    pub(crate) fn labelled(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let mut samples = self.0.get(name)?.iter();
        samples.find(|sample| sample.label(label) == Some(value)).map(|sample| sample.value)
    }

    /// The text of a label of a metric that is a fact.
    pub(crate) fn fact(&self, name: &str, label: &str) -> Option<&str> {
        self.0.get(name)?.first()?.label(label)
    }

    /// A shard's value.
    pub(crate) fn of_shard(&self, name: &str, shard: u16) -> Option<f64> {
        self.labelled(name, "shard", &shard.to_string())
    }

    /// The shards there are, in order.
    pub(crate) fn shards(&self) -> Vec<u16> {
        let samples = self.0.get("relay_shard_connections").into_iter().flatten();
        let mut shards: Vec<u16> =
            samples.filter_map(|sample| sample.label("shard")?.parse().ok()).collect();
        shards.sort_unstable();
        shards
    }

    /// A distribution as one shard measured it, or all together.
    pub(crate) fn distribution(&self, name: &str, shard: Option<u16>) -> Distribution {
        let shard = shard.map(|shard| shard.to_string());
        let is_wanted =
            |sample: &&Sample| shard.is_none() || sample.label("shard") == shard.as_deref();
        let mut distribution = Distribution::default();
        for sample in self.0.get(&format!("{name}_bucket")).into_iter().flatten().filter(is_wanted)
        {
            let bound = sample.label("le").and_then(|le| le.parse().ok());
            distribution.add(bound.unwrap_or(f64::INFINITY), sample.value);
        }
        let sums = self.0.get(&format!("{name}_sum")).into_iter().flatten();
        distribution.sum = sums.filter(is_wanted).map(|sample| sample.value).sum();
        distribution
    }
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Option<(String, Sample)> {
    let (name, rest) = match line.split_once('{') {
        Some((name, rest)) => (name, rest),
        None => {
            let (name, value) = line.split_once(' ')?;
            let value = number(value)?;
            return Some((name.to_owned(), Sample { labels: Vec::new(), value }));
        }
    };
    let mut labels = Vec::new();
    let mut rest = rest;
    while let Some((label, after)) = rest.split_once("=\"") {
        let (value, after) = quoted(after)?;
        labels.push((label.trim().to_owned(), value));
        rest = after.strip_prefix(',').unwrap_or(after);
        if rest.starts_with('}') {
            break;
        }
    }
    let value = number(rest.strip_prefix('}')?)?;
    Some((name.to_owned(), Sample { labels, value }))
}

/// The value of a sample; a time behind it is not looked at. The format knows infinities and what
/// is no number; a relay never says them, and nothing can be worked out with them.
fn number(text: &str) -> Option<f64> {
    let number: f64 = text.split_whitespace().next()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// Escaped text up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP relay_x_total An x.\n# TYPE relay_x_total counter\n\
        relay_x_total 3\n\nrelay_shard_connections{shard=\"1\"} 7\n\
        relay_shard_connections{shard=\"0\"} 5 1700000000\n\
        relay_info{version=\"1\",relay_id=\"a\\\"b\\\\c\\nd}\"} 1\n\
        relay_y_seconds_bucket{shard=\"0\",le=\"0.5\"} 1\n\
        relay_y_seconds_bucket{shard=\"0\",le=\"+Inf\"} 2\n\
        relay_y_seconds_bucket{shard=\"1\",le=\"0.5\"} 4\n\
        relay_y_seconds_bucket{shard=\"1\",le=\"+Inf\"} 4\n\
        relay_y_seconds_sum{shard=\"0\"} 1.5\nrelay_y_seconds_sum{shard=\"1\"} 0.25\n";

    #[test]
    fn values_are_found_by_name_and_label() {
        let readings = Readings::parse(TEXT).expect("it is well formed");
        assert_eq!(readings.value("relay_x_total"), Some(3.0));
        assert_eq!(readings.shards(), [0, 1]);
        assert_eq!(readings.of_shard("relay_shard_connections", 0), Some(5.0));
        assert_eq!(readings.of_shard("relay_shard_connections", 2), None);
        assert_eq!(readings.fact("relay_info", "relay_id"), Some("a\"b\\c\nd}"));
    }

    #[test]
    fn distributions_are_of_one_shard_or_of_all() {
        let readings = Readings::parse(TEXT).expect("it is well formed");
        let one = readings.distribution("relay_y_seconds", Some(0));
        assert_eq!((one.count(), one.sum), (2.0, 1.5));
        let all = readings.distribution("relay_y_seconds", None);
        assert_eq!((all.count(), all.sum), (6.0, 1.75));
    }

    #[test]
    fn what_is_no_sample_is_named_by_its_line() {
        for text in ["x", "\nx{a=\"b\" 1", "\nx{a=\"b\"} y", "x NaN", "\nx inf", "x -Inf"] {
            let line = text.lines().count();
            assert_eq!(Readings::parse(text).unwrap_err(), NoSample { line }, "{text}");
        }
    }
}
