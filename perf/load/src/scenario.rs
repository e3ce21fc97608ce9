//! A scenario file: a question, and the loads that answer it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::script::Portion;

/// One file below `perf/scenarios`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// What one wants to know.
    pub(crate) question: String,
    /// What the figures tell about it.
    pub(crate) shows: String,
    /// What is under test, one behind the other.
    #[serde(default = "only_the_relay")]
    pub(crate) subjects: Vec<SubjectKind>,
    #[serde(default)]
    pub(crate) relay: RelaySection,
    #[serde(default)]
    pub(crate) window: WindowSection,
    /// Exactly one of the following says what the load is.
    pub(crate) pairs: Option<PairsSection>,
    pub(crate) rooms: Option<RoomsSection>,
    pub(crate) command: Option<CommandSection>,
    /// Beside the pairs.
    pub(crate) slow_readers: Option<SlowSection>,
}

/// What is under test.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SubjectKind {
    Relay,
    /// Bytes from one socket of a pair to the other: the limit of the machine.
    Passthrough,
}

/// How the relay is started.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RelaySection {
    /// `uring` or `epoll`; the relay's own choice where it is not given.
    pub(crate) driver: Option<String>,
    /// Whether TLS ends in the relay.
    #[serde(default)]
    pub(crate) tls: bool,
    /// Variables beyond those every load sets.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Whether it checks tokens by the published key alone.
    #[serde(default)]
    pub(crate) jwks: bool,
}

/// How long it takes, and where it runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WindowSection {
    /// Seconds that are measured.
    pub(crate) seconds: f64,
    /// Seconds of load before.
    pub(crate) warm_up: f64,
    /// Processor of the process under test.
    pub(crate) subject_cpu: usize,
    /// Processors of the load; its processes take turns.
    pub(crate) load_cpus: Vec<usize>,
    /// Processes of the load. There are more where descriptors would not do.
    pub(crate) processes: usize,
    /// Loopback addresses to connect from; zero is the one that the kernel takes.
    pub(crate) sources: usize,
}

impl Default for WindowSection {
    fn default() -> Self {
        Self {
            seconds: 8.0,
            warm_up: 1.0,
            subject_cpu: 0,
            load_cpus: vec![1],
            processes: 1,
            sources: 0,
        }
    }
}

/// Pairs of a client and a daemon. Lists are tried one value after the other, each with each.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairsSection {
    pub(crate) count: OneOrMore<usize>,
    /// Bytes of a message: of the envelope, or of the text in it where `e2ee` is set.
    pub(crate) payload: Option<OneOrMore<usize>>,
    /// Several sizes beside each other instead.
    pub(crate) mix: Option<Vec<Portion>>,
    /// Frames in flight per pair.
    #[serde(default = "one")]
    pub(crate) depth: OneOrMore<usize>,
    /// Frames per second of all pairs together: an open loop. A closed loop where it is not given.
    pub(crate) rate: Option<OneOrMore<f64>>,
    /// Whether daemons send every frame back.
    #[serde(default)]
    pub(crate) echo: bool,
    /// Whether messages are truly encrypted.
    #[serde(default)]
    pub(crate) e2ee: bool,
}

/// Rooms in which one speaks and the others hear.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoomsSection {
    pub(crate) count: OneOrMore<usize>,
    pub(crate) listeners: OneOrMore<usize>,
    pub(crate) payload: OneOrMore<usize>,
    #[serde(default = "one")]
    pub(crate) depth: OneOrMore<usize>,
}

/// Daemons that never read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlowSection {
    pub(crate) count: usize,
    pub(crate) payload: usize,
}

/// Another command of this program, with its arguments.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandSection {
    pub(crate) arguments: Vec<String>,
}

/// One value, or several that are tried one after the other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T: Clone> OneOrMore<T> {
    fn list(&self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value.clone()],
            Self::More(values) => values.clone(),
        }
    }
}

/// One load out of a scenario.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Case {
    /// What tells it from the others.
    pub(crate) name: String,
    pub(crate) subject: SubjectKind,
    pub(crate) load: CaseLoad,
}

/// What the load of one case is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CaseLoad {
    Pairs {
        count: usize,
        portions: Vec<Portion>,
        depth: usize,
        rate: Option<f64>,
        echo: bool,
        e2ee: bool,
    },
    Rooms {
        count: usize,
        listeners: usize,
        bytes: usize,
        depth: usize,
    },
}

impl Scenario {
    /// Reads a scenario. Errors name the line.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| shown.clone())?;
        Self::parse(&text).context(shown)
    }

    fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        let loads =
            [scenario.pairs.is_some(), scenario.rooms.is_some(), scenario.command.is_some()];
        ensure!(
            loads.iter().filter(|is_given| **is_given).count() == 1,
            "exactly one of [pairs], [rooms] and [command] says what the load is"
        );
        ensure!(
            scenario.slow_readers.is_none() || scenario.pairs.is_some(),
            "[slow_readers] stand beside [pairs]"
        );
        ensure!(!scenario.window.load_cpus.is_empty(), "`load_cpus` names no processor");
        ensure!(scenario.window.seconds > 0.0, "`seconds` is more than zero");
        if scenario.command.is_none() {
            ensure!(!scenario.cases()?.is_empty(), "a list without values is no load");
        }
        Ok(scenario)
    }

    /// Every load of this scenario.
    pub(crate) fn cases(&self) -> Result<Vec<Case>> {
        let loads = match (&self.pairs, &self.rooms) {
            (Some(pairs), _) => pairs.loads()?,
            (None, Some(rooms)) => rooms.loads(),
            (None, None) => Vec::new(),
        };
        let several = self.subjects.len() > 1;
        let cases = loads.into_iter().flat_map(|(name, load)| {
            self.subjects.iter().map(move |subject| {
                let prefix = match (several, subject) {
                    (false, _) => "",
                    (true, SubjectKind::Relay) => "relay, ",
                    (true, SubjectKind::Passthrough) => "pass-through, ",
                };
                let name = format!("{prefix}{name}");
                Case { name, subject: *subject, load: load.clone() }
            })
        });
        Ok(cases.collect())
    }
}

impl PairsSection {
    fn loads(&self) -> Result<Vec<(String, CaseLoad)>> {
        let mixes: Vec<Vec<Portion>> = match (&self.payload, &self.mix) {
            (Some(payload), None) => {
                payload.list().into_iter().map(|bytes| vec![Portion { bytes, weight: 1 }]).collect()
            }
            (None, Some(mix)) => vec![mix.clone()],
            _ => bail!("[pairs] has a `payload` or a `mix`"),
        };
        let rates = match &self.rate {
            None => vec![None],
            Some(rates) => rates.list().into_iter().map(Some).collect(),
        };
        ensure!(rates.iter().all(|rate| rate.is_none_or(|rate| rate > 0.0)), "a rate above zero");
        let mut loads = Vec::new();
        for count in self.count.list() {
            ensure!(count > 0, "`count` is at least 1");
            for portions in &mixes {
                for depth in self.depth.list() {
                    ensure!((1..=DEPTH_MAX).contains(&depth), "`depth` is 1 to {DEPTH_MAX}");
                    for rate in &rates {
                        let size = match portions[..] {
                            [Portion { bytes, .. }] => bytes_text(bytes),
                            _ => "mixed".to_owned(),
                        };
                        let pace = rate.map_or_else(String::new, |rate| format!(", {rate} /s"));
                        let name = format!("{count} pairs, {size}, depth {depth}{pace}");
                        let load = CaseLoad::Pairs {
                            count,
                            portions: portions.clone(),
                            depth,
                            rate: *rate,
                            echo: self.echo,
                            e2ee: self.e2ee,
                        };
                        loads.push((name, load));
                    }
                }
            }
        }
        Ok(loads)
    }
}

impl RoomsSection {
    fn loads(&self) -> Vec<(String, CaseLoad)> {
        let mut loads = Vec::new();
        for count in self.count.list() {
            for listeners in self.listeners.list() {
                for bytes in self.payload.list() {
                    for depth in self.depth.list() {
                        let size = bytes_text(bytes);
                        let name = format!(
                            "{count} rooms of {listeners} listeners, {size}, depth {depth}"
                        );
                        loads.push((name, CaseLoad::Rooms { count, listeners, bytes, depth }));
                    }
                }
            }
        }
        loads
    }
}

/// A size as people say it.
pub(crate) fn bytes_text(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => {
            format!("{} MiB", bytes >> 20)
        }
        bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => {
            format!("{} KiB", bytes >> 10)
        }
        bytes => format!("{bytes} B"),
    }
}

fn only_the_relay() -> Vec<SubjectKind> {
    vec![SubjectKind::Relay]
}

fn one() -> OneOrMore<usize> {
    OneOrMore::One(1)
}

/// Frames in flight per pair, at most.
const DEPTH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "question = 'q'\nshows = 's'\n";

    fn parse(rest: &str) -> Result<Scenario> {
        Scenario::parse(&format!("{HEAD}{rest}"))
    }

    #[test]
    fn lists_are_tried_each_with_each() {
        let text = "subjects = ['relay', 'passthrough']\n\
                    [pairs]\ncount = [1, 64]\npayload = [256, 65536]\ndepth = 8\n";
        let cases = parse(text).expect("a scenario").cases().expect("cases");
        assert_eq!(cases.len(), 8);
        assert_eq!(cases[0].name, "relay, 1 pairs, 256 B, depth 8");
        assert_eq!(cases[7].name, "pass-through, 64 pairs, 64 KiB, depth 8");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            "",
            "[pairs]\ncount = 1\n",
            "[pairs]\ncount = 0\npayload = 256\n",
            "[pairs]\ncount = 1\npayload = 256\ndepth = 0\n",
            "[pairs]\ncount = []\npayload = 256\n",
            "[pairs]\ncount = 1\npayload = 256\nrate = 0.0\n",
            "[pairs]\ncount = 1\npayload = 256\nmix = [{ bytes = 256, weight = 1 }]\n",
            "[pairs]\ncount = 1\npayload = 256\n[command]\narguments = []\n",
            "[command]\narguments = []\n[slow_readers]\ncount = 1\npayload = 256\n",
            "[pairs]\ncount = 1\npayload = 256\n[window]\nload_cpus = []\n",
            "[pairs]\ncount = 1\npayload = 256\npace = 3\n",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_scenario_of_the_tree_is_valid() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios");
        let files = std::fs::read_dir(folder).expect("perf/scenarios");
        let mut count = 0;
        for file in files {
            Scenario::read(&file.expect("readable").path()).expect("a valid scenario");
            count += 1;
        }
        assert!(count > 0);
    }
}
