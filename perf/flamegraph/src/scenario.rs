//! What the relay is recorded at.

/// A name, and the load to put on the relay.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Arguments of `relay-load`, which starts the relay.
    pub(crate) load: &'static [&'static str],
}

/// Frames of the usual sizes in both regimes, where the kernel is shared by many frames and where
/// it is not, and what connections cost before the first frame.
pub(crate) const ALL: &[Scenario] = &[
    loaded("256B-d1", &["pairs", "--payload", "256", "--depth", "1", "--seconds", SECONDS]),
    loaded("256B-d16", &["pairs", "--payload", "256", "--depth", "16", "--seconds", SECONDS]),
    loaded("4KiB-d16", &["pairs", "--payload", "4096", "--depth", "16", "--seconds", SECONDS]),
    loaded("64KiB-d8", &["pairs", "--payload", "65536", "--depth", "8", "--seconds", SECONDS]),
    loaded("4KiB-d16-tls", &one_of(TLS)),
    loaded("fan-out", &one_of(FAN_OUT)),
    loaded("heartbeats", &["idle", "--connections", "9000", "--heartbeat-secs", "1", "--raw"]),
    loaded("admissions", &["admissions", "--through", "jwks", "--rounds", "2"]),
    loaded("storm", &["storm", "--connections", "2000", "--rounds", "5"]),
    loaded("storm-tls", &["storm", "--tls", "--connections", "1000", "--rounds", "5"]),
];

/// The load of a scenario file that has a single case.
const fn one_of(file: &'static str) -> [&'static str; 7] {
    ["run", file, "--allow-bottleneck", "--seconds", SECONDS, "--results", "target/flamegraph"]
}

const TLS: &str = "perf/flamegraph/loads/tls.toml";
const FAN_OUT: &str = "perf/flamegraph/loads/fan-out.toml";

const fn loaded(name: &'static str, load: &'static [&'static str]) -> Scenario {
    Scenario { name, load }
}

/// Long enough for some thousand samples.
const SECONDS: &str = "6";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_name_stands_for_one_scenario() {
        let names: HashSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    /// A second case would have a relay of its own, which nobody samples.
    #[test]
    fn a_file_has_one_case() {
        for file in [TLS, FAN_OUT] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
            let text = std::fs::read_to_string(path).expect("it is there");
            assert!(!text.contains(" = ["), "{file} has a list of values");
        }
    }

    /// A picture nobody explains is decoration.
    #[test]
    fn every_graph_is_small_and_has_a_sentence_in_the_index() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../flamegraphs");
        let index = std::fs::read_to_string(folder.join("README.md")).expect("there is an index");
        let mut graphs = 0;
        for entry in std::fs::read_dir(&folder).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.extension().is_none_or(|extension| extension != "svg") {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            assert!(index.contains(&format!("({name})")), "{name} is not in the index");
            let bytes = path.metadata().expect("it is there").len();
            assert!(bytes < 300_000, "{name} has {bytes} bytes");
            graphs += 1;
        }
        assert!(graphs > 0, "there are graphs");
    }
}
