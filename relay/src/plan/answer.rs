//! What there is room for, and what ends first.

use std::fmt::{Arguments, Write};

use serde_json::{Value, json};

use super::model::{Core, Observed, Shard};

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
    kind: Kind,
    what: String,
    now: String,
    most: String,
    /// Connections of the whole relay then.
    connections: f64,
}

/// What an end is an end of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Processor,
    Latency,
    Room,
}

impl Answer {
    pub(crate) fn new(observed: Observed, objective_s: f64) -> Self {
        let mut ends = Vec::new();
        for core in observed.cores() {
            ends.extend(of_core(&observed, &core, objective_s));
        }
        ends.extend(observed.shards.iter().flat_map(|shard| of_shard(&observed, shard)));
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

    fn nearest(&self, kind: Kind) -> Option<&End> {
        self.ends.iter().find(|end| end.kind == kind)
    }

    /// The connections that the processors carry, whatever becomes of latency.
    fn saturation(&self) -> Option<f64> {
        self.nearest(Kind::Processor).map(|end| end.connections)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: Arguments<'_>| {
            writeln!(text, "{what}").expect("a string takes everything");
        };
        let observed = &self.observed;
        line(format_args!(
            "observed     {:.1} s, {} shard(s) on {}, {}: {:.0} connections, {:.0} frames/s",
            observed.seconds,
            observed.shards.len(),
            observed.driver,
            processors(observed.processors),
            observed.connections,
            observed.frames_per_s()
        ));
        for shard in &observed.shards {
            line(format_args!("shard {:<6} {}", shard.number, cost_of(shard)));
        }
        line(format_args!("holds        {}", self.room()));
        match self.saturation() {
            Some(most) if observed.frames_per_s() > 0.0 => line(format_args!(
                "at its limit {:.0} frames/s with full processors",
                self.frames_per_s(most)
            )),
            Some(most) => line(format_args!(
                "at its limit {most:.0} connections that say nothing, with full processors"
            )),
            None => line(format_args!("processors   unknown: there is nobody to go by")),
        }
        if observed.is_starved() {
            line(format_args!(
                "but          of 100 receives {:.0} found no buffer: what waits in the kernel is \
                 not in hop latency",
                observed.starved * 100.0
            ));
        }
        line(format_args!("not counted  {NOT_COUNTED}"));
        line(format_args!("ends first   at connections   what               now → most"));
        for end in &self.ends {
            line(format_args!(
                "             {:>14.0}   {:<18} {} → {}",
                end.connections, end.what, end.now, end.most
            ));
        }
        text
    }

    /// The connections there is room for, and what of latency then.
    fn room(&self) -> String {
        let Some(connections) = self.connections() else {
            return "unknown: there is nobody to go by".to_owned();
        };
        let objective_us = self.objective_s * 1e6;
        match self.nearest(Kind::Latency) {
            Some(_) => format!(
                "{connections:.0} connections like these, {:.0} frames/s, with p99 hop latency at \
                 most {objective_us:.0} µs",
                self.frames_per_s(connections)
            ),
            None => format!(
                "{connections:.0} connections like these; latency unknown: nothing was forwarded"
            ),
        }
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
                "upkeepShare": shard.upkeep(),
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
            "processors": observed.processors,
            "connections": observed.connections,
            "framesPerSecond": observed.frames_per_s(),
            "receivesStarvedShare": observed.starved,
            "objectiveUs": self.objective_s * 1e6,
            "holdsConnections": self.connections(),
            "holdsFramesPerSecond": self.connections().map(|most| self.frames_per_s(most)),
            "saturatesAtFramesPerSecond": self.saturation().map(|most| self.frames_per_s(most)),
            "shards": shards.collect::<Vec<_>>(),
            "ends": ends.collect::<Vec<_>>(),
        })
    }
}

/// What ends growth too and is not known here.
const NOT_COUNTED: &str = "memory of sockets in the kernel; clients of one workspace; connections \
                           of one address";

/// The processor of some shards, and latency of each.
fn of_core(observed: &Observed, core: &Core<'_>, objective_s: f64) -> Vec<End> {
    let mut ends = Vec::new();
    let mut end = |kind: Kind, what: String, now: String, most: String, growth: f64| {
        let connections = observed.connections * growth;
        ends.push(End { kind, what, now, most, connections });
    };
    let has_peers = core.shards.iter().any(|shard| shard.connections > 0.0);
    let Some(full) = core.growth().filter(|_| has_peers) else { return Vec::new() };
    let what = match core.shards[..] {
        [shard] => format!("processor, shard {}", shard.number),
        [first, .., last] => format!("processor, shards {} to {}", first.number, last.number),
        [] => return Vec::new(),
    };
    end(Kind::Processor, what, percent(core.used()), percent(1.0), full);
    for shard in &core.shards {
        let Some(growth) = core.latency_growth(shard, objective_s) else { continue };
        // Where receives starve, more is promised to nobody.
        let growth = if observed.is_starved() { growth.min(1.0) } else { growth };
        let hop = shard.hop.quantile(0.99).unwrap_or_default() * 1e6;
        let what = format!("latency, shard {}", shard.number);
        let most = format!("{:.0} µs", objective_s * 1e6);
        end(Kind::Latency, what, format!("{hop:.0} µs"), most, growth.min(full));
    }
    ends
}

/// Memory and table of one shard.
fn of_shard(observed: &Observed, shard: &Shard) -> Vec<End> {
    if shard.connections <= 0.0 {
        return Vec::new();
    }
    let number = shard.number;
    let end = |what: &str, now: String, most: String, growth: f64| End {
        kind: Kind::Room,
        what: format!("{what}, shard {number}"),
        now,
        most,
        connections: observed.connections * growth,
    };
    let (used, budget) = (shard.memory_used, shard.memory_budget);
    let (residents, residents_max) = (shard.residents, shard.residents_max);
    vec![
        end("memory", mebibytes(used), mebibytes(budget), budget / used.max(1.0)),
        end(
            "table",
            residents.to_string(),
            residents_max.to_string(),
            residents_max / residents.max(1.0),
        ),
    ]
}

/// What the whole relay has once.
fn of_relay(observed: &Observed) -> Vec<End> {
    let mut ends = Vec::new();
    let growth = observed.growth().filter(|_| observed.connections > 0.0);
    if let Some((growth, most)) = growth.zip(observed.processors) {
        let used = observed.shards.iter().map(Shard::used).sum::<f64>() + observed.beside;
        ends.push(End {
            kind: Kind::Processor,
            what: "processors, all".to_owned(),
            now: percent(used),
            most: percent(most),
            connections: observed.connections * growth,
        });
    }
    if let Some(most) = observed.connections_max {
        ends.push(End {
            kind: Kind::Room,
            what: "configured limit".to_owned(),
            now: format!("{:.0}", observed.connections),
            most: format!("{most:.0} (RELAY_MAX_TOTAL_CONNECTIONS)"),
            connections: most,
        });
    }
    // Connections of the ring lie in tables of their own, others take a descriptor each.
    if let Some((now, most)) = observed.descriptors.filter(|_| observed.driver != "uring") {
        ends.push(End {
            kind: Kind::Room,
            what: "descriptors".to_owned(),
            now: format!("{now:.0}"),
            most: format!("{most:.0}"),
            connections: observed.connections + most - now,
        });
    }
    ends
}

/// What a shard does, and what each part of it costs.
fn cost_of(shard: &Shard) -> String {
    let per_frame = |value: f64| value / shard.frames.max(1.0);
    let used = shard.used() * 100.0;
    if shard.frames <= 0.0 {
        let connections = shard.connections;
        return format!("{used:.1} % of a processor; {connections:.0} connections say nothing");
    }
    format!(
        "{used:.0} % of a processor, {:.0} % for heartbeats; {:.0} frames/s of {:.0} B, {:.2} µs \
         each: a turn {:.2} µs, a frame {:.2} µs, {:.2} frames a turn; p99 hop {:.0} µs",
        shard.upkeep() * 100.0,
        shard.frames / shard.seconds,
        per_frame(shard.message_bytes),
        per_frame(shard.cpu_s) * 1e6,
        shard.cost.turn * 1e6,
        shard.cost.frame * 1e6,
        shard.frames_per_turn(),
        shard.hop.quantile(0.99).unwrap_or_default() * 1e6
    )
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn processors(count: Option<f64>) -> String {
    count.map_or_else(
        || "unknown processors (--processors)".to_owned(),
        |count| format!("{count} processor(s)"),
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
            processors: Some(1.0),
            beside: 0.0,
            starved: 0.0,
            driver: "uring".to_owned(),
            shards: vec![Shard {
                seconds: 1.0,
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
    fn without_traffic_both_forms_say_what_is_known() {
        let answer = Answer::new(observed(), 500e-6);
        let text = answer.text();
        assert!(text.contains("holds        500 connections like these; latency"), "{text}");
        assert!(text.contains("processors   unknown"), "{text}");
        let json = answer.json();
        assert_eq!(json["holdsConnections"], 500.0);
        assert_eq!(json["saturatesAtFramesPerSecond"], Value::Null);
    }

    #[test]
    fn a_shard_that_says_nothing_ends_with_its_processor() {
        let mut observed = observed();
        observed.shards[0].cpu_s = 0.24;
        let answer = Answer::new(observed, 500e-6);
        let ends: Vec<_> = answer.ends.iter().take(2).map(|end| end.what.as_str()).collect();
        assert_eq!(ends, ["processor, shard 0", "processors, all"]);
        assert!((answer.ends[0].connections - 10.0 / 0.24).abs() < 1e-6);
        assert!(answer.text().contains("42 connections that say nothing"), "{}", answer.text());
    }

    #[test]
    fn where_receives_starve_nothing_more_is_promised() {
        let mut observed = observed();
        let mut hop = crate::readings::Distribution::default();
        hop.add(1e-6, 0.0);
        hop.add(10e-6, 100.0);
        observed.shards[0] = Shard {
            frames: 1000.0,
            sends: 1000.0,
            turns: 1000.0,
            cpu_s: 0.1,
            cost: crate::plan::cost::Cost { turn: 0.0, frame: 100e-6 },
            hop,
            ..observed.shards[0].clone()
        };
        let calm = Answer::new(observed.clone(), 1.0);
        assert!(calm.connections().is_some_and(|most| most > 90.0), "{}", calm.text());
        observed.starved = 0.5;
        let starved = Answer::new(observed, 1.0);
        assert_eq!(starved.connections(), Some(10.0));
        assert!(starved.text().contains("50 found no buffer"), "{}", starved.text());
    }
}
