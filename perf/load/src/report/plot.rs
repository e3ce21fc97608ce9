//! Line plots as inline SVG: no script, no file beside the page.

use std::fmt::Write;

/// Some lines over one pair of axes.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    /// A part of the x axis to set apart, in its own values.
    pub(crate) shade: Option<(f64, f64)>,
}

/// Where values lie, and what stands there.
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) is_log: bool,
    pub(crate) ticks: Vec<(f64, String)>,
}

/// One line. Its colour follows from its place among the others.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Axis {
    /// From zero to a round number that holds all values.
    pub(crate) fn linear(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max);
        let rough = (most / TICKS).max(f64::MIN_POSITIVE);
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let count = (most / step).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step);
        Self {
            label: label.to_owned(),
            from: 0.0,
            to: count * step,
            is_log: false,
            ticks: ticks.map(|value| (value, short(value))).collect(),
        }
    }

    /// Whole powers of ten around all values above zero.
    pub(crate) fn powers(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::MAX, f64::MIN_POSITIVE);
        for value in values.filter(|value| *value > 0.0) {
            least = least.min(value);
            most = most.max(value);
        }
        let first = least.min(most).log10().floor();
        let last = most.log10().ceil().max(first + 1.0);
        let powers = first as i32..=last as i32;
        Self {
            label: label.to_owned(),
            from: 10_f64.powf(first),
            to: 10_f64.powf(last),
            is_log: true,
            ticks: powers.map(|power| 10_f64.powi(power)).map(|v| (v, short(v))).collect(),
        }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let (from, to, value) = if self.is_log {
            (self.from.log10(), self.to.log10(), value.max(f64::MIN_POSITIVE).log10())
        } else {
            (self.from, self.to, value)
        };
        ((value - from) / (to - from)).clamp(0.0, 1.0)
    }
}

impl Plot<'_> {
    /// The plot with its legend.
    pub(crate) fn render(&self) -> String {
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">",
            escape(self.title)
        );
        if let Some((from, to)) = self.shade {
            let (left, right) = (self.left(from), self.left(to));
            push(
                &mut svg,
                format_args!(
                    "<rect class=\"shade\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" \
                 height=\"{:.1}\"/>",
                    right - left,
                    BOTTOM - TOP
                ),
            );
        }
        for (value, text) in &self.x.ticks {
            let x = self.left(*value);
            push(
                &mut svg,
                format_args!(
                    "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/><text x=\"{x:.1}\" \
                 y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    BOTTOM + 16.0,
                    escape(text)
                ),
            );
        }
        for (value, text) in &self.y.ticks {
            let y = self.top(*value);
            push(
                &mut svg,
                format_args!(
                    "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT - 6.0,
                    y + 4.0,
                    escape(text)
                ),
            );
        }
        push(
            &mut svg,
            format_args!(
                "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"label\" x=\"0\" y=\"{:.1}\">{}</text>",
                f64::midpoint(LEFT, RIGHT),
                HEIGHT - 6.0,
                escape(&self.x.label),
                TOP - 8.0,
                escape(&self.y.label)
            ),
        );
        for (index, line) in self.lines.iter().enumerate() {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", self.left(*x), self.top(*y)))
                .collect();
            push(
                &mut svg,
                format_args!(
                    "<polyline class=\"line\" stroke=\"{}\" points=\"{}\"><title>{}</title>\
                     </polyline>",
                    colour(index),
                    points.join(" "),
                    escape(&line.name)
                ),
            );
        }
        svg.push_str("</svg><p class=\"legend\">");
        for (index, line) in self.lines.iter().enumerate() {
            push(
                &mut svg,
                format_args!(
                    "<span><i style=\"background:{}\"></i>{}</span> ",
                    colour(index),
                    escape(&line.name)
                ),
            );
        }
        svg.push_str("</p></figure>\n");
        svg
    }

    fn left(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (RIGHT - LEFT)
    }

    fn top(&self, value: f64) -> f64 {
        BOTTOM - self.y.place(value) * (BOTTOM - TOP)
    }
}

/// A number in few characters.
pub(crate) fn short(value: f64) -> String {
    let trim = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => trim(value / 1e6, "M"),
        size if size >= 1e3 => trim(value / 1e3, "k"),
        size if size >= 0.01 => trim(value, ""),
        _ => format!("{value:e}"),
    }
}

/// Text that may stand in a page.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes all text");
}

/// Colours that tell apart by lightness too; after the last one they begin anew.
fn colour(index: usize) -> &'static str {
    const COLOURS: [&str; 8] =
        ["#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#666666"];
    COLOURS[index % COLOURS.len()]
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 744.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 268.0;
/// Distances between ticks, about.
const TICKS: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_all_values_and_end_at_round_numbers() {
        let axis = Axis::linear("y", [3.0, 87.0].into_iter());
        assert_eq!((axis.from, axis.to), (0.0, 100.0));
        assert_eq!(axis.ticks.len(), 6);
        let axis = Axis::powers("y", [30.0, 870.0].into_iter());
        assert_eq!((axis.from, axis.to), (10.0, 1000.0));
        assert_eq!(axis.place(100.0), 0.5);
        let none = Axis::linear("y", [].into_iter());
        assert!(none.place(0.0).is_finite());
        let none = Axis::powers("y", [].into_iter());
        assert!(none.place(1.0).is_finite());
    }

    #[test]
    fn a_plot_is_one_svg_with_a_line_and_a_name_for_each() {
        let line = |name: &str| Line { name: name.into(), points: vec![(0.0, 1.0), (1.0, 2.0)] };
        let plot = Plot {
            title: "a & b",
            x: Axis::linear("x", [1.0].into_iter()),
            y: Axis::linear("y", [2.0].into_iter()),
            lines: vec![line("<one>"), line("two")],
            shade: Some((0.2, 0.8)),
        };
        let svg = plot.render();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;one&gt;") && !svg.contains("<one>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.25, 12.0, 1500.0, 2_000_000.0].map(short);
        assert_eq!(texts, ["0", "0.25", "12", "1.5k", "2M"]);
    }
}
