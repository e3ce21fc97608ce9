//! What whole-process tests need: the relay program as a child, and a real platform for it to ask.
//!
//! The program under test is named by `RELAY_BIN`; `RELAY_DRIVER` and other variables of the test's
//! own environment that begin with `RELAY_` reach it, so the same tests run on every driver.
#![forbid(unsafe_code)]

mod http;
mod platform;
mod process;

pub use http::{Answer, get};
pub use platform::Platform;
pub use process::{Relay, run};
