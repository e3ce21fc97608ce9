//! Metrics as families of samples, and their text.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};
use std::time::Duration;

use relay_contract::Histogram;

use crate::classic::Edges;

/// Samples of one name.
#[derive(Debug)]
pub(crate) struct Family<'a> {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) samples: Vec<Sample<'a>>,
}

/// What a family's values mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Grows, and starts at zero with the process.
    Counter,
    /// The value of this moment.
    Gauge,
    /// How values are distributed, since start.
    Histogram,
}

/// One value with its labels.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    pub(crate) labels: Vec<(&'static str, Cow<'a, str>)>,
    pub(crate) value: Value<'a>,
}

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// A whole number.
    Whole(u64),
    /// Shown in seconds.
    Time(Duration),
    /// A distribution, and where its classic buckets end.
    Histogram(&'a Histogram, Edges),
}

impl<'a> Family<'a> {
    pub(crate) fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, help, kind, samples: Vec::new() }
    }

    /// A family of one sample without labels.
    pub(crate) fn plain(name: &'static str, kind: Kind, help: &'static str, value: u64) -> Self {
        let sample = Sample { labels: Vec::new(), value: Value::Whole(value) };
        Self { samples: vec![sample], ..Self::new(name, kind, help) }
    }

    pub(crate) fn push(&mut self, labels: Vec<(&'static str, Cow<'a, str>)>, value: Value<'a>) {
        self.samples.push(Sample { labels, value });
    }
}

/// The text of all families. Source: Prometheus text format 0.0.4.
pub(crate) fn text(families: &[Family<'_>]) -> String {
    let mut text = String::with_capacity(TEXT_BYTES);
    for family in families {
        let (name, help) = (family.name, family.help);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        line(&mut text, format_args!("# HELP {name} {help}"));
        line(&mut text, format_args!("# TYPE {name} {kind}"));
        for sample in &family.samples {
            write_sample(&mut text, name, sample);
        }
    }
    text
}

fn write_sample(text: &mut String, name: &str, sample: &Sample<'_>) {
    let labels = Labels { labels: &sample.labels, le: None };
    match sample.value {
        Value::Whole(value) => line(text, format_args!("{name}{labels} {value}")),
        Value::Time(time) => line(text, format_args!("{name}{labels} {}", Seconds(time))),
        Value::Histogram(histogram, edges) => {
            let mut count = 0;
            for bucket in edges.buckets(histogram) {
                count = bucket.count;
                let labels = Labels { le: Some(&bucket.le), ..labels };
                line(text, format_args!("{name}_bucket{labels} {count}"));
            }
            line(text, format_args!("{name}_sum{labels} {}", edges.sum(histogram)));
            line(text, format_args!("{name}_count{labels} {count}"));
        }
    }
}

/// Labels in braces, or nothing when there are none.
#[derive(Clone, Copy)]
struct Labels<'l> {
    labels: &'l [(&'static str, Cow<'l, str>)],
    le: Option<&'l str>,
}

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut opening = '{';
        for (name, value) in self.labels {
            write!(f, "{opening}{name}=\"{}\"", escaped(value))?;
            opening = ',';
        }
        if let Some(le) = self.le {
            write!(f, "{opening}le=\"{le}\"")?;
            opening = ',';
        }
        if opening == ',' { f.write_char('}') } else { Ok(()) }
    }
}

/// A time in seconds, exactly, without zeros at its end.
pub(crate) struct Seconds(pub(crate) Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:09}", self.0.as_secs(), self.0.subsec_nanos());
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

fn line(text: &mut String, content: fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a string takes everything");
}

/// A label's value, escaped.
fn escaped(value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', r#"\""#);
    escaped.replace('\n', r"\n")
}

/// Room for the text of a relay with one shard, so that it grows rarely.
const TEXT_BYTES: usize = 48 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_exactly_in_seconds() {
        for (nanoseconds, shown) in
            [(0, "0"), (2048, "0.000002048"), (1_500_000_000, "1.5"), (10_000_000_000, "10")]
        {
            assert_eq!(Seconds(Duration::from_nanos(nanoseconds)).to_string(), shown);
        }
    }

    #[test]
    fn labels_are_escaped_and_absent_when_there_are_none() {
        let mut family = Family::new("relay_x", Kind::Gauge, "An x.");
        family.push(vec![("a", "1\"\\\n".into()), ("b", "2".into())], Value::Whole(3));
        family.push(Vec::new(), Value::Whole(4));
        assert_eq!(
            text(&[family]),
            "# HELP relay_x An x.\n# TYPE relay_x gauge\nrelay_x{a=\"1\\\"\\\\\\n\",b=\"2\"} 3\n\
             relay_x 4\n"
        );
    }
}
