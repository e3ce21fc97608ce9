//! Every fuzz target over its inputs and seeded mutations of them, without a fuzzing engine.
//!
//! `FUZZ_SMOKE_ROUNDS` sets how many mutations each target sees, `FUZZ_SMOKE_SEED` where they
//! start. A failure prints the seed and the input.

use std::sync::Arc;

use relay_contract::Limits;
use relay_fuzz::{Target, seeds};
use relay_switchboard::Switchboard;

/// Deterministic numbers, good enough to pick mutations. Source: Marsaglia, "Xorshift RNGs".
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Bytes that matter to one parser or another.
const SPICE: &[u8] = b"{}[]\",:\\ue0-9.\r\n;\x00\x7f\x80\xc3\xed\xff\x81\x88\xfe\x01";

fn mutate(input: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(6) {
            0 => input.insert(at, SPICE[numbers.below(SPICE.len())]),
            1 => input.insert(at, numbers.next() as u8),
            2 if at < input.len() => input[at] = SPICE[numbers.below(SPICE.len())],
            3 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            4 if at < input.len() => {
                let end = at + numbers.below(input.len() - at);
                input.drain(at..end);
            }
            _ => {
                let from = numbers.below(other.len());
                let part = &other[from..from + numbers.below(other.len() - from)];
                input.splice(at..at, part.iter().copied());
            }
        }
        input.truncate(4096);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn smoke(name: &str) {
    let found = Target::find(name).expect("a target");
    let (target, seeds) = (found.body, found.inputs());
    let rounds = setting("FUZZ_SMOKE_ROUNDS", 20_000);
    let seed = setting("FUZZ_SMOKE_SEED", 1).max(1);
    let mut numbers = Numbers(seed);
    for input in &seeds {
        target(input);
    }
    let mut inputs = seeds.to_vec();
    for _ in 0..rounds {
        let index = numbers.below(inputs.len());
        let other = inputs[numbers.below(inputs.len())].clone();
        // Some mutations pile up, most start from a seed again.
        let mut input = inputs[index].clone();
        mutate(&mut input, &other, &mut numbers);
        let result = std::panic::catch_unwind(|| target(&input));
        assert!(result.is_ok(), "seed {seed}, input {:?}", input.escape_ascii().to_string());
        if numbers.below(8) == 0 {
            let place = numbers.below(inputs.len().max(64));
            match inputs.get_mut(place) {
                Some(slot) if place >= seeds.len() => *slot = input,
                Some(_) => {}
                None => inputs.push(input),
            }
        }
    }
}

#[test]
fn requests_keep_their_claims() {
    smoke("request");
}

#[test]
fn upgrades_keep_their_claims() {
    smoke("upgrade");
}

#[test]
fn bodies_keep_their_claims() {
    smoke("body");
}

#[test]
fn calls_of_workers_keep_their_claims() {
    smoke("worker");
}

#[test]
fn claims_of_tokens_keep_theirs() {
    smoke("claims");
}

#[test]
fn frames_keep_their_claims() {
    smoke("frames");
}

#[test]
fn envelopes_keep_their_claims() {
    smoke("envelope");
}

#[test]
fn proxies_keep_their_claims() {
    smoke("proxies");
}

#[test]
fn origins_keep_their_claims() {
    smoke("origin");
}

#[test]
fn proxy_headers_keep_their_claims() {
    smoke("proxy_header");
}

#[test]
fn key_sets_keep_their_claims() {
    smoke("keys");
}

#[test]
fn tokens_keep_their_claims() {
    smoke("token");
}

#[test]
fn answers_keep_their_claims() {
    smoke("answer");
}

#[test]
fn endpoint_frames_keep_their_claims() {
    smoke("endpoint_frame");
}

#[test]
fn records_keep_their_claims() {
    smoke("records");
}

#[test]
fn restored_states_keep_their_claims() {
    smoke("restored");
}

#[test]
fn messages_between_the_planes_keep_their_claims() {
    smoke("plane_message");
}

#[test]
fn states_as_they_were_written_are_restored() {
    for state in seeds::restored() {
        let restored = Switchboard::restore(&state, Arc::new(Limits::default()), Arc::default());
        assert!(restored.is_ok(), "{:?}", restored.err());
    }
}
