//! The result as one page that needs nothing beside it.

use std::fmt::Write;

use super::plot::{Axis, Line, Plot, escape};
use super::{CaseReport, Report};

/// The page.
pub(crate) fn render(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title>\
         <style>{STYLE}</style>\n<h1>{0}</h1>\n<p class=\"question\">{1}</p>\n<p>{2}</p>\n",
        escape(&report.name),
        escape(&report.scenario.question),
        escape(&report.scenario.shows)
    );
    page.push_str(&verdict(report));
    page.push_str(&figures(&report.cases));
    page.push_str(&latency_plot(&report.cases));
    page.push_str(&time_plot(&report.cases, "Frames per second over time", "1/s", |slice| {
        slice.frames_per_s
    }));
    page.push_str(&time_plot(
        &report.cases,
        "Processor time of the process under test over time",
        "% of one processor",
        |slice| slice.subject_cpu_share * 100.0,
    ));
    page.push_str(&time_plot(
        &report.cases,
        "Processor time of the load over time",
        "% of one processor",
        |slice| slice.load_cpu_share * 100.0,
    ));
    page.push_str(&judged(&report.cases));
    page.push_str(&settings(report));
    page.push_str("</html>\n");
    page
}

fn verdict(report: &Report) -> String {
    let found: Vec<_> = report.bottlenecks().collect();
    if found.is_empty() {
        return "<p class=\"good\">Neither the load nor the machine set these figures, and every \
                frame sent arrived whole, in its order and as it was sent.</p>\n"
            .to_owned();
    }
    let mut text = "<div class=\"bad\"><p>Not only the process under test set these figures:</p>\
                    <ul>"
        .to_owned();
    for (name, bottleneck) in found {
        push(
            &mut text,
            format_args!(
                "<li>{}: {:?}: {}</li>",
                escape(name),
                bottleneck.who,
                escape(&bottleneck.why)
            ),
        );
    }
    text.push_str("</ul></div>\n");
    text
}

fn figures(cases: &[CaseReport]) -> String {
    let mut table = "<h2>Figures</h2><div class=\"wide\"><table><tr><th>load<th>per second\
                     <th>MB/s<th>µs CPU each<th>slices<th>CPU<th>p50 µs<th>p90<th>p99<th>p99.9\
                     <th>p99.99<th>most<th>resident MiB<th>verified</tr>"
        .to_owned();
    for case in cases {
        let latency = &case.latency;
        let micros = |ns: u64| format!("{:.0}", ns as f64 / 1e3);
        let shown = |ns: f64| format!("{:.3}", ns / 1e3);
        let cost = case.cpu_ns_per_frame.map_or_else(|| "–".to_owned(), shown);
        let spread = case.cpu_ns_per_frame_by_slice.map_or_else(
            || "–".to_owned(),
            |it| format!("{} ({}–{})", shown(it.median), shown(it.least), shown(it.most)),
        );
        push(
            &mut table,
            format_args!(
                "<tr><th>{}<td>{:.0} {}<td>{:.1}<td>{cost}<td>{spread}\
             <td>{:.0} %<td>{}<td>{}\
             <td>{}<td>{}<td>{}<td>{}<td>{:.1}<td>{}</tr>",
                escape(&case.case.name),
                case.frames_per_s,
                case.frame_noun(),
                case.bytes_per_s / 1e6,
                case.facts.subject_cpu_share * 100.0,
                micros(latency.p50_ns),
                micros(latency.p90_ns),
                micros(latency.p99_ns),
                micros(latency.p999_ns),
                micros(latency.p9999_ns),
                micros(latency.max_ns),
                case.resident.total_bytes as f64 / f64::from(1 << 20),
                case.verified
            ),
        );
        for (name, count) in &case.counts {
            push(
                &mut table,
                format_args!(
                    "<tr><td><td class=\"count\" colspan=\"13\">{count} {}</tr>",
                    escape(name)
                ),
            );
        }
    }
    table.push_str("</table></div>\n");
    table
}

fn latency_plot(cases: &[CaseReport]) -> String {
    // A quantile lies where its distance to one lies, on a scale of powers of ten.
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let lines: Vec<Line> = cases
        .iter()
        .map(|case| Line {
            name: case.case.name.clone(),
            points: case
                .latency
                .curve
                .iter()
                .map(|(quantile, ns)| (nines(*quantile), *ns as f64 / 1e3))
                .collect(),
        })
        .collect();
    let last = lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x).fold(1.0, f64::max);
    let ticks = [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")]
        .into_iter()
        .chain([(0.9999, "99.99 %"), (0.99999, "99.999 %")])
        .map(|(quantile, text)| (nines(quantile), text.to_owned()))
        .filter(|(x, _)| *x <= last + 1e-9)
        .collect();
    let x = Axis { label: "of all are faster".into(), from: 0.0, to: last, is_log: false, ticks };
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
    let y = Axis::powers("µs", values);
    Plot { title: "Latency by percentile", x, y, lines, shade: None }.render()
}

fn time_plot(
    cases: &[CaseReport],
    title: &str,
    unit: &str,
    value: impl Fn(&super::Slice) -> f64,
) -> String {
    let lines: Vec<Line> = cases
        .iter()
        .map(|case| Line {
            name: case.case.name.clone(),
            points: case.slices.iter().map(|slice| (slice.at_s, value(slice))).collect(),
        })
        .collect();
    let all = || lines.iter().flat_map(|line| &line.points);
    let x = Axis::linear("seconds", all().map(|(x, _)| *x));
    let y = Axis::linear(unit, all().map(|(_, y)| *y));
    let measured = || cases.iter().flat_map(|case| &case.slices).filter(|slice| slice.is_measured);
    let from = measured().map(|slice| slice.at_s).fold(f64::MAX, f64::min);
    let to = measured().map(|slice| slice.at_s).fold(0.0, f64::max);
    let shade = (from < to).then_some((from, to));
    Plot { title, x, y, lines, shade }.render()
}

/// What the verdict rests on.
fn judged(cases: &[CaseReport]) -> String {
    let mut table = "<h2>Load and machine</h2><div class=\"wide\"><table><tr><th>load\
                     <th>processes<th>load's CPU<th>µs of it each<th>load waited\
                     <th>subject waited<th>late<th>due, not sent<th>steal<th>stalls over 10 ms\
                     <th>worst stall</tr>"
        .to_owned();
    for case in cases {
        let (facts, seen) = (&case.facts, &case.seen);
        push(
            &mut table,
            format_args!(
                "<tr><th>{}<td>{}<td>{:.0} %<td>{:.3}<td>{:.2} %<td>{:.2} %<td>{:.3} %<td>{}\
             <td>{:.2} %<td>{}<td>{:.1} ms</tr>",
                escape(&case.case.name),
                case.processes,
                facts.load_cpu_share * 100.0,
                case.load_cpu_ns_per_frame / 1e3,
                facts.load_waited_share * 100.0,
                facts.subject_waited_share * 100.0,
                facts.late_share * 100.0,
                facts.unsent,
                seen.steal_share * 100.0,
                seen.stall_count,
                seen.stall_worst_ns as f64 / 1e6
            ),
        );
    }
    table.push_str("</table></div>\n");
    table
}

fn settings(report: &Report) -> String {
    let machine = &report.header.machine;
    let kind = if machine.is_virtual { "virtual" } else { "not said to be virtual" };
    let rows = [
        ("relay", report.header.program.clone()),
        ("command", report.header.command.clone()),
        ("kernel", machine.kernel.clone()),
        ("processor", format!("{} × {}", machine.processor_count, machine.processor)),
        ("machine", kind.to_owned()),
        ("memory", format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30))),
        ("load average before", machine.load_average.clone()),
        ("again", format!("relay-load run perf/scenarios/{}.toml", report.name)),
    ];
    let mut text = "<h2>Machine and settings</h2><table>".to_owned();
    for (name, value) in rows {
        push(&mut text, format_args!("<tr><th>{name}<td>{}</tr>", escape(&value)));
    }
    let scenario = serde_json::to_string_pretty(&report.scenario).unwrap_or_default();
    push(&mut text, format_args!("</table>\n<pre>{}</pre>\n", escape(&scenario)));
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes all text");
}

pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1a1a;--dim:#666;--rule:#ddd;--back:#fff;--shade:#8884}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--dim:#999;--rule:#333;--back:#141414}}\
body{max-width:60rem;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--back);\
font:15px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}\
.question{font-size:1.1rem;color:var(--dim);margin-top:0}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px}\
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--rule);\
font-variant-numeric:tabular-nums;white-space:nowrap}\
tr>:first-child,.count{text-align:left}th{font-weight:600}\
.good{border-left:3px solid #1b9e77;padding-left:.8rem}\
.bad{border-left:3px solid #d95f02;padding-left:.8rem}\
figure{margin:1.5rem 0}figcaption{font-weight:600;margin-bottom:.3rem}\
svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--dim)}\
.grid{stroke:var(--rule)}.line{fill:none;stroke-width:1.6}.shade{fill:var(--shade);opacity:.35}\
.legend{font-size:12px;color:var(--dim);margin:.2rem 0}.legend span{margin-right:1rem}\
.legend i{display:inline-block;width:.8rem;height:.2rem;margin-right:.35rem;vertical-align:middle}\
pre{font-size:12px;overflow-x:auto;border:1px solid var(--rule);padding:.8rem}";
