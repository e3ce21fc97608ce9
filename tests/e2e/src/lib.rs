//! What whole-process tests need: the relay program as a child, and a real platform for it to ask.
//!
//! The program under test is named by `RELAY_BIN`; `RELAY_DRIVER` and other variables of the test's
//! own environment that begin with `RELAY_` reach it, so the same tests run on every driver.
//!
//! Start with [`Relay`], which starts and stops the program, then read `tests/conversation.rs`: a
//! daemon and a client of our own talk through it. `tests/independent_client.rs` puts somebody
//! else's WebSocket implementation in their place, and `tests/program.rs` is about the program
//! itself: arguments, signals, exit codes.
#![forbid(unsafe_code)]

mod certificate;
mod file;
mod http;
mod key_server;
mod platform;
mod process;
mod python;

pub use certificate::write_certificate;
pub use file::replace_file;
pub use http::{
    Answer, ask, connect_from, get, get_over, refused_upgrade, upgrade_from, upgraded_from,
};
pub use key_server::KeyServer;
pub use platform::Platform;
pub use process::{ControlPlane, Relay, free_port, run, run_handed};
pub use python::PythonClient;
