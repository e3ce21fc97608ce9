//! What was found, as a table.

use std::collections::BTreeMap;
use std::fmt;

use crate::attack::{Attack, Effort};
use crate::control::Stretch;

/// What one attack did.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The attack's name.
    pub name: &'static str,
    /// What was tried.
    pub effort: Effort,
    /// The control pair's pace, a pair of stretches each.
    pub paces: Vec<Pace>,
    /// Resident memory at its highest, KiB; zero when the process is not known.
    pub peak_kib: u64,
    /// How the relay's counters grew.
    pub grown: BTreeMap<String, i64>,
    /// What must not have happened.
    pub faults: Vec<String>,
    /// Whether there is nothing left to attack.
    pub is_fatal: bool,
}

/// The control pair without and with an attack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// Median and 99th percentile without, nanoseconds.
    pub quiet_ns: [u64; 2],
    /// The same with.
    pub loud_ns: [u64; 2],
    /// 99th percentile of a pair without the relay between, without and with.
    pub bare_ns: [u64; 2],
}

/// All findings of one relay.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order they were made.
    pub findings: Vec<Finding>,
    /// Attacks that lacked what they need.
    pub skipped: Vec<&'static str>,
}

impl Pace {
    /// Of a pair of stretches, without and with, through the relay and of the bare pair.
    pub(crate) fn of(control: [&Stretch; 2], bare: [&Stretch; 2]) -> Self {
        let both = |stretch: &Stretch| [50.0, 99.0].map(|percent| stretch.percentile_ns(percent));
        let [quiet_ns, loud_ns] = control.map(both);
        Self { quiet_ns, loud_ns, bare_ns: bare.map(|stretch| stretch.percentile_ns(99.0)) }
    }

    /// How much longer the slowest hundredth took, beyond what the attack cost a pair that has no
    /// relay between.
    pub fn ratio(&self) -> f64 {
        let [_, quiet] = self.quiet_ns;
        let [_, loud] = self.loud_ns;
        let [bare_quiet, bare_loud] = self.bare_ns;
        let own = bare_loud.saturating_sub(bare_quiet);
        let loud = loud.saturating_sub(own).max(quiet.min(loud));
        loud as f64 / quiet.max(1) as f64
    }
}

impl Finding {
    pub(crate) fn new(attack: &Attack) -> Self {
        Self {
            name: attack.name,
            effort: Effort::default(),
            paces: Vec::new(),
            peak_kib: 0,
            grown: BTreeMap::new(),
            faults: Vec::new(),
            is_fatal: false,
        }
    }

    pub(crate) fn add(
        &mut self,
        effort: Effort,
        pace: Option<Pace>,
        peak_kib: u64,
        grown: Vec<(String, i64)>,
        faults: Vec<String>,
    ) {
        self.effort.merge(&effort);
        self.paces.extend(pace);
        self.peak_kib = self.peak_kib.max(peak_kib);
        for (name, growth) in grown {
            *self.grown.entry(name).or_insert(0) += growth;
        }
        self.faults.extend(faults);
    }

    /// Counters that should have grown and have not. A relay that may not be asked is not blamed.
    pub(crate) fn still(&self, attack: &Attack) -> impl Iterator<Item = &'static str> {
        let counters = if self.grown.is_empty() { &[] } else { attack.counters };
        counters.iter().copied().filter(|&counter| !self.grown.contains_key(counter))
    }

    /// Finds fault with counters that should have grown.
    pub(crate) fn judge_counters(&mut self, attack: &Attack) {
        let faults: Vec<_> =
            self.still(attack).map(|counter| format!("{counter} did not grow")).collect();
        self.faults.extend(faults);
    }

    /// The median of the rounds' ratios.
    pub fn ratio(&self) -> Option<f64> {
        let mut ratios: Vec<f64> = self.paces.iter().map(Pace::ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied()
    }

    /// The median of a figure over the rounds, microseconds.
    fn median_us(&self, figure_ns: impl Fn(&Pace) -> u64) -> u64 {
        let mut values: Vec<u64> = self.paces.iter().map(figure_ns).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0) / 1000
    }
}

impl Report {
    /// Whether something happened that must not.
    pub fn has_faults(&self) -> bool {
        self.findings.iter().any(|finding| !finding.faults.is_empty())
    }

    /// Attacks under which the control pair was slower than this many times its quiet self.
    pub fn slowed(&self, ratio_max: f64) -> Vec<&'static str> {
        let slowed = |finding: &&Finding| finding.ratio().is_some_and(|ratio| ratio > ratio_max);
        self.findings.iter().filter(slowed).map(|finding| finding.name).collect()
    }
}

/// One line: the control pair, memory, verdict; then what was tried, and what the relay says it
/// refused.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.faults.is_empty() { "ok" } else { "FAILED" };
        let ratio = self.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        writeln!(
            f,
            "{:<24} {verdict:<7} p50 {:>6} → {:<6} p99 {:>6} → {:<7} bare {:>5} → {:<6} \
             ×{ratio:<6} {:>7} KiB",
            self.name,
            self.median_us(|pace| pace.quiet_ns[0]),
            self.median_us(|pace| pace.loud_ns[0]),
            self.median_us(|pace| pace.quiet_ns[1]),
            self.median_us(|pace| pace.loud_ns[1]),
            self.median_us(|pace| pace.bare_ns[0]),
            self.median_us(|pace| pace.bare_ns[1]),
            self.peak_kib,
        )?;
        let tried = self.effort.0.iter().map(|(what, count)| format!("{what}: {count}"));
        writeln!(f, "    tried   {}", tried.collect::<Vec<_>>().join(", "))?;
        let refused = self.grown.iter().filter(|(name, _)| !TRAFFIC.contains(&name.as_str()));
        let refused = refused.map(|(name, growth)| format!("{}: {growth}", short(name)));
        writeln!(f, "    counted {}", refused.collect::<Vec<_>>().join(", "))?;
        for fault in &self.faults {
            writeln!(f, "    FAULT   {fault}")?;
        }
        Ok(())
    }
}

/// A counter's name without what all of them have.
fn short(name: &str) -> &str {
    let name = name.strip_prefix("relay_").unwrap_or(name);
    name.strip_suffix("_total").unwrap_or(name)
}

/// What the control pair's own traffic counts.
const TRAFFIC: [&str; 5] = [
    "relay_bytes_client_to_daemon_total",
    "relay_bytes_daemon_to_clients_total",
    "relay_frames_client_to_daemon_total",
    "relay_frames_daemon_to_clients_total",
    "relay_session_frame_routed_local_total",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(ratios: &[u64]) -> Finding {
        let attack = crate::attacks::all()[0];
        let pace = |ratio: &u64| Pace {
            quiet_ns: [50, 100],
            loud_ns: [50, 100 * ratio],
            bare_ns: [20, 20],
        };
        Finding { paces: ratios.iter().map(pace).collect(), ..Finding::new(attack) }
    }

    #[test]
    fn what_the_attack_costs_without_the_relay_is_not_the_relays() {
        let pace = |bare_ns| Pace { quiet_ns: [50, 100], loud_ns: [50, 300], bare_ns };
        assert_eq!(pace([20, 120]).ratio(), 2.0);
        assert_eq!(pace([20, 10]).ratio(), 3.0);
        assert_eq!(pace([20, 900]).ratio(), 1.0, "nor does it make anybody faster");
    }

    #[test]
    fn one_noisy_round_does_not_decide() {
        assert_eq!(finding(&[1, 9, 1]).ratio(), Some(1.0));
        let report = Report { findings: vec![finding(&[3, 3, 1])], skipped: Vec::new() };
        assert_eq!(report.slowed(1.1).len(), 1);
        assert!(!report.has_faults());
    }

    #[test]
    fn a_counter_that_did_not_grow_is_a_fault() {
        let attack = crate::attacks::all()[0];
        let mut silent = finding(&[1]);
        silent.grown.insert("relay_other_total".to_owned(), 1);
        silent.judge_counters(attack);
        assert_eq!(silent.faults, [format!("{} did not grow", attack.counters[0])]);
    }
}
