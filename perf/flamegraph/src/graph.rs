//! The picture: one box per function and caller, as wide as its share of the samples.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::stacks::{Function, Place, Stacks};

/// Stacks merged from their feet up.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    sample_count: u64,
    callees: BTreeMap<Function, Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Samples in it and everything it called.
    samples: u64,
    /// Samples in itself.
    own: u64,
    callees: BTreeMap<Function, Node>,
}

/// A box to draw.
struct Cell<'a> {
    function: &'a Function,
    first: u64,
    samples: u64,
    level: u32,
}

impl Graph {
    pub(crate) fn new(stacks: &Stacks) -> Self {
        let mut graph = Self { sample_count: stacks.sample_count(), ..Self::default() };
        for (stack, &samples) in &stacks.0 {
            let mut callees = &mut graph.callees;
            for (index, function) in stack.iter().enumerate() {
                let node = callees.entry(function.clone()).or_default();
                node.samples += samples;
                if index + 1 == stack.len() {
                    node.own += samples;
                }
                callees = &mut node.callees;
            }
        }
        graph
    }

    /// The picture as SVG, without script: hovering over a box shows its name and share. Boxes
    /// that would be narrower than [`PIXELS_MIN`] are left out.
    pub(crate) fn draw(&self, title: &str, load: &str) -> String {
        let mut cells = Vec::new();
        collect(&self.callees, 0, 0, self.least(), &mut cells);
        let levels = cells.iter().map(|cell| cell.level + 1).max().unwrap_or(1);
        let height = TOP + levels * ROW + 8;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fdfdf8\"/>\n\
             <text x=\"8\" y=\"18\" font-size=\"14\">{}</text>\n\
             <text x=\"8\" y=\"34\">relay-load {}: {} samples of the relay's processor time. \
             <tspan fill=\"#4c8a2b\">the relay</tspan> \
             <tspan fill=\"#3b6ea8\">libraries in it</tspan> \
             <tspan fill=\"#8a6db1\">the C library</tspan> \
             <tspan fill=\"#c06f1d\">the kernel</tspan></text>\n",
            escape(title),
            escape(load),
            self.sample_count,
        );
        for cell in &cells {
            self.draw_cell(cell, height, &mut svg);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_cell(&self, cell: &Cell<'_>, height: u32, svg: &mut String) {
        let left = self.pixels(cell.first);
        let width = self.pixels(cell.first + cell.samples) - left;
        let top = height - 8 - (cell.level + 1) * ROW;
        let name = &cell.function.name;
        writeln!(
            svg,
            "<g><title>{}: {:.2} %</title><rect x=\"{left:.1}\" y=\"{top}\" width=\"{:.1}\" \
             height=\"{}\" fill=\"{}\"/>{}</g>",
            escape(name),
            self.percent(cell.samples),
            (width - 0.3).max(0.3),
            ROW - 1,
            colour(cell.function),
            label(name, left, width, top),
        )
        .expect("strings grow");
    }

    /// The shares of threads and places, and the functions that took most themselves.
    pub(crate) fn summary(&self) -> String {
        let mut own = BTreeMap::new();
        let mut places = BTreeMap::new();
        add_own(&self.callees, &mut own);
        for (function, samples) in &own {
            *places.entry(owner(function)).or_insert(0) += samples;
        }
        let mut text = String::new();
        for (thread, node) in &self.callees {
            writeln!(text, "  {:>6.2} %  thread {}", self.percent(node.samples), thread.name)
                .expect("strings grow");
        }
        for (what, of) in [("in all of", places), ("in", by_name(own))] {
            let mut all: Vec<(String, u64)> = of.into_iter().collect();
            all.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
            for (name, samples) in all.iter().take(LISTED) {
                writeln!(text, "  {:>6.2} %  {what} {name}", self.percent(*samples))
                    .expect("strings grow");
            }
        }
        text
    }

    /// Samples below which a box is too narrow.
    fn least(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number of samples"
        )]
        let least = (PIXELS_MIN * self.sample_count as f64 / f64::from(WIDTH - 16)).ceil() as u64;
        least
    }

    fn pixels(&self, samples: u64) -> f64 {
        8.0 + f64::from(WIDTH - 16) * self.percent(samples) / 100.0
    }

    fn percent(&self, samples: u64) -> f64 {
        samples as f64 * 100.0 / self.sample_count.max(1) as f64
    }
}

fn collect<'a>(
    callees: &'a BTreeMap<Function, Node>,
    first: u64,
    level: u32,
    least: u64,
    cells: &mut Vec<Cell<'a>>,
) {
    let mut first = first;
    for (function, node) in callees {
        if node.samples >= least {
            cells.push(Cell { function, first, samples: node.samples, level });
            collect(&node.callees, first, level + 1, least, cells);
        }
        first += node.samples;
    }
}

fn add_own(callees: &BTreeMap<Function, Node>, own: &mut BTreeMap<Function, u64>) {
    for (function, node) in callees {
        if node.own > 0 {
            *own.entry(function.clone()).or_default() += node.own;
        }
        add_own(&node.callees, own);
    }
}

fn by_name(own: BTreeMap<Function, u64>) -> BTreeMap<String, u64> {
    own.into_iter().map(|(function, samples)| (function.name, samples)).collect()
}

/// Whose function it is: a crate of the program, or the place.
fn owner(function: &Function) -> String {
    match function.place {
        Place::Program => match function.name.split_once("::") {
            Some((crate_, _)) => crate_.to_owned(),
            None => "C and assembly in the program".to_owned(),
        },
        Place::Thread => "threads".to_owned(),
        Place::Library => "the C library".to_owned(),
        Place::Kernel => "the kernel".to_owned(),
    }
}

/// A hue for whose code it is, a shade for which function.
fn colour(function: &Function) -> String {
    let shade =
        function.name.bytes().fold(17_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
    let light = 62 + shade % 16;
    let hue = match function.place {
        Place::Thread => return "#cccccc".to_owned(),
        Place::Program if function.name.starts_with("relay") => 95,
        Place::Program => 212,
        Place::Library => 265,
        Place::Kernel => 30,
    };
    format!("hsl({hue},55%,{light}%)")
}

/// As much of the end of a name as fits: the last words say most.
fn label(name: &str, left: f64, width: f64, top: u32) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred")]
    let room = ((width - 4.0) / CHARACTER).max(0.0) as usize;
    if room < 4 {
        return String::new();
    }
    let words: Vec<&str> = name.rsplit("::").collect();
    let mut shown = words[0].to_owned();
    for word in &words[1..] {
        if word.len() + 2 + shown.len() > room {
            break;
        }
        shown = format!("{word}::{shown}");
    }
    if shown.chars().count() > room {
        shown = shown.chars().take(room - 2).chain("..".chars()).collect();
    }
    format!("<text x=\"{:.1}\" y=\"{}\">{}</text>", left + 2.0, top + 11, escape(&shown))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const WIDTH: u32 = 1400;
const ROW: u32 = 16;
/// Height of what stands above the boxes.
const TOP: u32 = 46;
/// Width of a character, about.
const CHARACTER: f64 = 6.7;
/// Width of the narrowest box drawn. Keeps a file well below 300 KB.
const PIXELS_MIN: f64 = 1.5;
/// Functions in a summary.
const LISTED: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks(all: &[(&[&str], u64)]) -> Stacks {
        let place = |at| if at == 0 { Place::Thread } else { Place::Program };
        let functions = |names: &[&str]| {
            let named = names.iter().enumerate();
            named.map(|(at, name)| Function { name: (*name).into(), place: place(at) }).collect()
        };
        Stacks(all.iter().map(|(names, count)| (functions(names), *count)).collect())
    }

    #[test]
    fn a_box_is_as_wide_as_its_share_and_stands_on_its_caller() {
        let graph = Graph::new(&stacks(&[
            (&["shard-0", "a::run", "a::turn"], 3),
            (&["shard-0", "a::run"], 1),
        ]));
        let svg = graph.draw("title", "pairs");
        assert!(svg.contains("<title>a::run: 100.00 %</title>"), "{svg}");
        assert!(svg.contains("<title>a::turn: 75.00 %</title>"), "{svg}");
        let mut cells = Vec::new();
        collect(&graph.callees, 0, 0, graph.least(), &mut cells);
        let shape: Vec<_> =
            cells.iter().map(|cell| (cell.level, cell.first, cell.samples)).collect();
        assert_eq!(shape, [(0, 0, 4), (1, 0, 4), (2, 0, 3)]);
    }

    #[test]
    fn what_would_be_too_narrow_is_left_out() {
        let graph =
            Graph::new(&stacks(&[(&["shard-0", "wide"], 99_999), (&["shard-0", "narrow"], 1)]));
        let svg = graph.draw("title", "pairs");
        assert!(svg.contains("wide") && !svg.contains("narrow"), "{svg}");
    }

    #[test]
    fn names_cannot_end_the_picture() {
        let graph = Graph::new(&stacks(&[(&["</svg>"], 1)]));
        let svg = graph.draw("<b>", "&");
        assert_eq!(svg.matches("</svg>").count(), 1);
        assert!(!svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn the_summary_adds_up_a_crate_and_a_function() {
        let graph = Graph::new(&stacks(&[
            (&["shard-0", "a::run", "b::scan"], 2),
            (&["shard-0", "b::scan"], 1),
            (&["shard-0", "a::run"], 1),
        ]));
        let summary = graph.summary();
        assert!(summary.contains("75.00 %  in all of b\n"), "{summary}");
        assert!(summary.contains("75.00 %  in b::scan\n"), "{summary}");
    }
}
