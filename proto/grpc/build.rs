//! Compiles the schemas in pure Rust: a build needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

/// Below `proto/`, where their packages say.
const SCHEMAS: [&str; 2] = ["relay/control/v1/control.proto", "relay/plane/v1/plane.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(SCHEMAS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // A message knows its place in the schemas, where its members have names.
    config.enable_type_names();
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
