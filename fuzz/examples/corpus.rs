//! Between the inputs that are kept and the directories a fuzzer works in.
//!
//! `corpus unpack` writes the inputs of every target to `corpus/<target>/`, where cargo-fuzz looks
//! for them. `corpus pack <target> <directory>` keeps some of what lies in a directory, best after
//! `cargo fuzz cmin`.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relay_fuzz::{TARGETS, Target};

/// Inputs kept per target. Protects the repository, and the time of the smoke test.
const KEPT_MAX: usize = 150;
/// Bytes of an input worth keeping.
const KEPT_BYTES_MAX: usize = 600;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["unpack"] => TARGETS.iter().for_each(unpack),
        ["pack", name, directory] => {
            pack(&Target::find(name).expect("the name of a target"), Path::new(directory));
        }
        _ => panic!("corpus unpack | corpus pack <target> <directory>"),
    }
}

fn unpack(target: &Target) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    fs::create_dir_all(&directory).expect("the checkout can be written to");
    for (number, input) in target.inputs().iter().enumerate() {
        fs::write(directory.join(format!("kept-{number:03}")), input).expect("written");
    }
}

/// Keeps inputs of all sizes, evenly.
fn pack(target: &Target, directory: &Path) {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut inputs: Vec<Vec<u8>> = entries
        .map(|entry| fs::read(entry.expect("an entry").path()).expect("a file"))
        .filter(|input| input.len() <= KEPT_BYTES_MAX)
        .collect();
    inputs.sort_by(|left, right| (left.len(), left).cmp(&(right.len(), right)));
    inputs.dedup();
    let step = inputs.len().div_ceil(KEPT_MAX).max(1);
    let lines: String =
        inputs.iter().step_by(step).map(|input| STANDARD.encode(input) + "\n").collect();
    let file = format!("{}/inputs/{}.txt", env!("CARGO_MANIFEST_DIR"), target.name);
    fs::write(file, lines).expect("the checkout can be written to");
}
