//! What a relay must do with bad peers, as whole processes.
//!
//! The program under test is named by `RELAY_BIN`, its driver by `RELAY_DRIVER`.

mod deadlines;
mod section_14;
mod stage;
