//! Adding up what processes told, and showing it.

use std::collections::BTreeMap;

use super::*;
use crate::outcome::Outcome;
use crate::processor;

fn span() -> Span {
    Span { start_ns: 0, measure_ns: 1_000_000_000, end_ns: 3_000_000_000 }
}

/// One process that got a frame per microsecond, the process under test having used half of it.
fn told(latency_ns: u64) -> Told {
    let mut latency = outcome::histogram();
    latency.record_n(latency_ns, 2_000_000).expect("in bounds");
    let sample = |ms: u64, frames: u64| Sample {
        at_ns: ms * 1_000_000,
        frames,
        subject_used_ns: ms * 500_000,
        used_ns: ms * 250_000,
    };
    Told {
        samples: vec![sample(500, 500_000), sample(1100, 100_000), sample(2100, 1_100_000)],
        outcome: Outcome {
            frames: 2_000_000,
            bytes: 2_000_000 * 260,
            elapsed_ns: 2_000_000_000,
            used_ns: 500_000_000,
            waited_ns: 20_000_000,
            subject_used_ns: 1_000_000_000,
            verified: 3_000_000,
            latency: outcome::encode(&latency).expect("text"),
            counts: BTreeMap::from([("things".to_owned(), 4)]),
            ..Outcome::default()
        },
    }
}

fn scenario() -> Scenario {
    let text = "question = 'is <this> true?'\nshows = 'it'\n[pairs]\ncount = 2\npayload = 256\n";
    toml::from_str(text).expect("a scenario")
}

fn calm() -> Seen {
    Seen {
        stall_worst_ns: 0,
        stall_p99_ns: 0,
        stall_count: 0,
        steal_share: 0.0,
        is_canary_first: true,
    }
}

fn case_report(processors: &[usize], told: &[Told]) -> CaseReport {
    let case = scenario().cases().expect("cases").remove(0);
    CaseReport::new(case, &span(), processors, told, calm(), Resident::default()).expect("a report")
}

#[test]
fn processes_add_up_and_histograms_merge() {
    let report = case_report(&[1], &[told(1000), told(9000)]);
    assert_eq!((report.frames, report.verified), (4_000_000, 6_000_000));
    assert_eq!(report.frames_per_s, 2e6);
    // Both processes look at the same process under test: its time counts once.
    assert_eq!(report.cpu_ns_per_frame, Some(250.0));
    assert_eq!(report.load_cpu_ns_per_frame, 250.0);
    assert_eq!(report.latency.count, 4_000_000);
    assert!((1000..1002).contains(&report.latency.p50_ns), "{}", report.latency.p50_ns);
    assert!((9000..9010).contains(&report.latency.p99_ns), "{}", report.latency.p99_ns);
    assert_eq!(report.counts["things"], 8);
}

#[test]
fn processes_on_one_processor_fill_it_together_and_may_wait_for_each_other() {
    let shared = case_report(&[1], &[told(1000), told(1000)]);
    assert_eq!(shared.facts.load_cpu_share, 0.5);
    assert_eq!(shared.facts.load_waited_share, 0.0);
    let apart = case_report(&[1, 2], &[told(1000), told(1000)]);
    assert_eq!(apart.facts.load_cpu_share, 0.25);
    assert_eq!(apart.facts.load_waited_share, 0.01);
}

#[test]
fn slices_leave_out_where_counts_begin_anew() {
    let slices = case_report(&[1], &[told(1000)]).slices;
    let [slice] = slices[..] else { panic!("{slices:?}") };
    assert!(slice.is_measured);
    assert_eq!(slice.frames_per_s, 1e6);
    assert_eq!((slice.subject_cpu_share, slice.load_cpu_share), (0.5, 0.25));
    assert_eq!(slice.cpu_ns_per_frame(), Some(500.0));
}

#[test]
fn both_forms_are_written_and_the_page_needs_nothing_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut report = Report {
        name: "sample".to_owned(),
        scenario: scenario(),
        header: Header {
            machine: processor::machine(),
            program: "0.1.0 (abc)".to_owned(),
            commit: "abc".to_owned(),
            command: "relay-load run".to_owned(),
        },
        cases: vec![case_report(&[1], &[told(1000)])],
    };
    let html = report.write(folder.path(), true).expect("written");
    let page = std::fs::read_to_string(html).expect("the page");
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(page.contains("is &lt;this&gt; true?"));
    for outside in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let json = std::fs::read_to_string(folder.path().join("sample.json")).expect("the data");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["cases"][0]["frames"], 2_000_000);
    let mut again = outcome::histogram();
    let text = json["cases"][0]["latency"]["histogram"].as_str().expect("a text");
    outcome::add(&mut again, text).expect("a histogram");
    assert_eq!(again.len(), 2_000_000);
}
