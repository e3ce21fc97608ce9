//! The targets by name, and the inputs that were worth keeping.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::seeds;

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its program and of its file of inputs.
    pub name: &'static str,
    /// What is done with an input.
    pub body: fn(&[u8]),
    /// Inputs written by hand.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(
            Target { name: stringify!($name), body: crate::$name, seeds: seeds::$name },
        )*];
    };
}

targets! {
    request frames envelope proxies origin proxy_header keys token answer endpoint_frame restored
    records upgrade body worker claims plane_message
}

impl Target {
    /// The target of that name.
    pub fn find(name: &str) -> Option<Self> {
        TARGETS.iter().copied().find(|target| target.name == name)
    }

    /// What there is to start from: the seeds, and what fuzzers found that reaches further.
    ///
    /// Shape of `inputs/<name>.txt`: one input per line, in base64. Panics on a line that is
    /// something else: the file is ours.
    pub fn inputs(&self) -> Vec<Vec<u8>> {
        let path = format!("{}/inputs/{}.txt", env!("CARGO_MANIFEST_DIR"), self.name);
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let found = found.lines().map(|line| STANDARD.decode(line).expect("a line of base64"));
        (self.seeds)().into_iter().chain(found).collect()
    }
}
