//! The runner of the recorded scenarios in `scenarios/`: black-box conformance of a relay.
//!
//! It starts the relay program, a platform, where needed a Redis, plays the steps of a scenario
//! on raw sockets and compares what it observes with what was recorded. The format is described
//! in `scenarios/README.md`.
//!
//! It deliberately shares no code with the relay: a mistake in the relay's codec must not be
//! answered by the same mistake here. It judges nothing that the scenarios do not state.
//!
//! Start reading at [`run`], then `trial` (one scenario), `world` (its surroundings) and `steps`.
#![forbid(unsafe_code)]

mod bus_frame;
mod certificates;
mod conversation;
mod difference;
mod frame;
mod hexadecimal;
mod http_message;
mod members;
mod normalise;
mod opening;
mod placeholders;
mod platform;
mod port;
mod raw_socket;
mod redis_server;
mod relay_process;
mod report;
mod scenario;
mod step;
mod steps;
mod suite;
mod transport;
mod trial;
mod watched;
mod websocket;
mod world;

#[cfg(test)]
mod rehearsal;

pub use relay_process::Shape;
pub use report::Summary;
pub use suite::{Options, Selection, list, run};
