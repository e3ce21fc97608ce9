//! What a relay must do with bad peers, as whole processes.
//!
//! `docs/survived.md` lists what has to be survived and the tests that show it, here and elsewhere.
//! The program under test is named by `RELAY_BIN`, its driver by `RELAY_DRIVER`.

mod deadlines;
mod hostile;
mod room;
mod section_14;
mod stage;
