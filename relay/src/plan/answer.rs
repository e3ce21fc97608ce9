//! What there is room for, and what ends first.

use std::fmt::Write;

use serde_json::{Value, json};

use super::model::{Observed, Shard};

/// Room for more of the same connections.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    observed: Observed,
    objective_s: f64,
    /// What may end growth, the nearest first.
    ends: Vec<End>,
}

/// One thing that ends growth.
#[derive(Clone, Debug, PartialEq)]
struct End {
    what: String,
    now: String,
    most: String,
    /// Connections of the whole relay then.
    connections: f64,
}

impl Answer {
    pub(crate) fn new(observed: Observed, objective_s: f64) -> Self {
        let mut ends = Vec::new();
        for shard in &observed.shards {
            ends.extend(of_shard(&observed, shard, objective_s));
        }
        ends.extend(of_relay(&observed));
        ends.sort_by(|a, b| a.connections.total_cmp(&b.connections));
        Self { observed, objective_s, ends }
    }

    /// Frames per second when `connections` behave like those observed.
    fn frames_per_s(&self, connections: f64) -> f64 {
        self.observed.frames_per_s() * connections / self.observed.connections.max(1.0)
    }

    /// The connections there is room for within the objective.
    fn connections(&self) -> Option<f64> {
        self.ends.first().map(|end| end.connections)
    }

    /// The connections that the processors carry, whatever becomes of latency.
    fn saturation(&self) -> Option<f64> {
        let of_processors = self.ends.iter().filter(|end| end.what.starts_with("processor"));
        of_processors.map(|end| end.connections).min_by(f64::total_cmp)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: std::fmt::Arguments<'_>| {
            writeln!(text, "{what}").expect("a string takes everything");
        };
        let observed = &self.observed;
        line(format_args!(
            "observed     {:.1} s, {} shard(s) on {}: {:.0} connections, {:.0} frames/s",
            observed.seconds,
            observed.shards.len(),
            observed.driver,
            observed.connections,
            observed.frames_per_s()
        ));
        for shard in &observed.shards {
            line(format_args!("shard {:<6} {}", shard.number, cost_of(observed, shard)));
        }
        match (self.saturation(), self.connections()) {
            (Some(saturation), Some(connections)) => {
                line(format_args!(
                    "holds        {:.0} connections like these, {:.0} frames/s, with p99 hop \
                     latency at most {:.0} µs",
                    connections,
                    self.frames_per_s(connections),
                    self.objective_s * 1e6
                ));
                line(format_args!(
                    "at its limit {:.0} frames/s with full processors",
                    self.frames_per_s(saturation)
                ));
            }
            _ => line(format_args!("holds        unknown: there was too little traffic to go by")),
        }
        line(format_args!("ends first   at connections   what               now → most"));
        for end in &self.ends {
            line(format_args!(
                "             {:>14.0}   {:<18} {} → {}",
                end.connections, end.what, end.now, end.most
            ));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let observed = &self.observed;
        let shards = observed.shards.iter().map(|shard| {
            json!({
                "shard": shard.number,
                "frames": shard.frames,
                "turns": shard.turns,
                "cpuSeconds": shard.cpu_s,
                "turnCostNs": shard.cost.turn * 1e9,
                "frameCostNs": shard.cost.frame * 1e9,
                "hopP99Us": shard.hop.quantile(0.99).map(|hop| hop * 1e6),
            })
        });
        let ends = self.ends.iter().map(|end| {
            json!({
                "what": end.what, "now": end.now, "most": end.most, "connections": end.connections,
            })
        });
        json!({
            "seconds": observed.seconds,
            "driver": observed.driver,
            "connections": observed.connections,
            "framesPerSecond": observed.frames_per_s(),
            "objectiveUs": self.objective_s * 1e6,
            "holdsConnections": self.connections(),
            "holdsFramesPerSecond": self.connections().map(|most| self.frames_per_s(most)),
            "saturatesAtFramesPerSecond": self.saturation().map(|most| self.frames_per_s(most)),
            "shards": shards.collect::<Vec<_>>(),
            "ends": ends.collect::<Vec<_>>(),
        })
    }
}

/// Processor, latency, memory and table of one shard.
fn of_shard(observed: &Observed, shard: &Shard, objective_s: f64) -> Vec<End> {
    let mut ends = Vec::new();
    let number = shard.number;
    let mut end = |what: String, now: String, most: String, growth: f64| {
        let connections = observed.connections * growth;
        ends.push(End { what, now, most, connections });
    };
    if let Some(growth) = shard.growth(observed.seconds, objective_s) {
        let used = shard.cpu_s / observed.seconds * 100.0;
        let what = format!("processor, shard {number}");
        end(what, format!("{used:.0} %"), "100 %".to_owned(), growth.processor);
        let hop = shard.hop.quantile(0.99).unwrap_or_default() * 1e6;
        let what = format!("latency, shard {number}");
        let most = format!("{:.0} µs", objective_s * 1e6);
        end(what, format!("{hop:.0} µs"), most, growth.latency.min(growth.processor));
    }
    if shard.connections > 0.0 {
        let what = format!("memory, shard {number}");
        let (now, most) = (mebibytes(shard.memory_used), mebibytes(shard.memory_budget));
        end(what, now, most, shard.memory_budget / shard.memory_used.max(1.0));
        let what = format!("table, shard {number}");
        let (now, most) = (shard.residents.to_string(), shard.residents_max.to_string());
        end(what, now, most, shard.residents_max / shard.residents.max(1.0));
    }
    ends
}

/// What the whole relay has once.
fn of_relay(observed: &Observed) -> Vec<End> {
    let mut ends = Vec::new();
    if let Some(most) = observed.connections_max {
        ends.push(End {
            what: "configured limit".to_owned(),
            now: format!("{:.0}", observed.connections),
            most: format!("{most:.0} (RELAY_MAX_TOTAL_CONNECTIONS)"),
            connections: most,
        });
    }
    // Connections of the ring lie in tables of their own, others take a descriptor each.
    if let Some((now, most)) = observed.descriptors.filter(|_| observed.driver != "uring") {
        ends.push(End {
            what: "descriptors".to_owned(),
            now: format!("{now:.0}"),
            most: format!("{most:.0}"),
            connections: observed.connections + most - now,
        });
    }
    ends
}

/// What a shard does, and what each part of it costs.
fn cost_of(observed: &Observed, shard: &Shard) -> String {
    let per_frame = |value: f64| value / shard.frames.max(1.0);
    format!(
        "{:.0} % of a processor; {:.0} frames/s of {:.0} B, {:.2} µs each: a turn {:.2} µs, a \
         frame {:.2} µs, {:.2} frames a turn; p99 hop {:.0} µs",
        shard.cpu_s / observed.seconds * 100.0,
        shard.frames / observed.seconds,
        per_frame(shard.message_bytes),
        per_frame(shard.cpu_s) * 1e6,
        shard.cost.turn * 1e6,
        shard.cost.frame * 1e6,
        shard.frames / shard.turns.max(1.0),
        shard.hop.quantile(0.99).unwrap_or_default() * 1e6
    )
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        Observed {
            seconds: 1.0,
            driver: "uring".to_owned(),
            shards: vec![Shard {
                connections: 10.0,
                memory_used: 1000.0,
                memory_budget: 50_000.0,
                residents: 10.0,
                residents_max: 1000.0,
                ..Shard::default()
            }],
            connections: 10.0,
            connections_max: Some(2000.0),
            descriptors: Some((50.0, 100.0)),
        }
    }

    #[test]
    fn what_has_least_left_ends_first() {
        let answer = Answer::new(observed(), 500e-6);
        let ends: Vec<_> =
            answer.ends.iter().map(|end| (end.what.as_str(), end.connections)).collect();
        assert_eq!(
            ends,
            [("memory, shard 0", 500.0), ("table, shard 0", 1000.0), ("configured limit", 2000.0)]
        );
    }

    #[test]
    fn without_a_ring_every_connection_takes_a_descriptor() {
        let answer = Answer::new(Observed { driver: "epoll".to_owned(), ..observed() }, 500e-6);
        assert_eq!(
            (answer.ends[0].what.as_str(), answer.ends[0].connections),
            ("descriptors", 60.0)
        );
    }

    #[test]
    fn without_traffic_it_says_so() {
        let text = Answer::new(observed(), 500e-6).text();
        assert!(text.contains("too little traffic"), "{text}");
    }
}
