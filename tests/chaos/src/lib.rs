//! The attack kit: everything a bad peer can do to a relay, while a control pair keeps talking.
//!
//! `cargo xtask chaos` runs all of it against a relay of its own, on both drivers, plain and behind
//! TLS; `relay-chaos --target 127.0.0.1:7781` runs it against any relay on loopback, and against
//! nothing else.
//! `relay-chaos --list` says what each class does and what the reference relay did.
//!
//! Start with [`Attack`]; the classes are in [`attacks`], one file per noun. [`Campaign`] runs them
//! and judges: the same process, memory within the budget, no message of the control pair lost.
//! `tests/` holds each defect of the reference to a precise outcome.
#![forbid(unsafe_code)]

mod attack;
pub mod attacks;
mod campaign;
mod control;
mod door;
mod exposition;
pub mod frame;
mod held;
mod line;
pub mod message;
mod pass;
mod peer;
mod platform;
mod processors;
mod report;
mod subject;

pub use attack::{Attack, Effort, Needs, Scene, Supply};
pub use campaign::{Campaign, Plan};
pub use control::{Control, Stretch};
pub use door::Door;
pub use exposition::Exposition;
pub use pass::{EXECUTOR, Mint, Pass, TARGET};
pub use peer::{Answer, End, Goodbye, Peer};
pub use platform::{Mood, Platform};
pub use processors::Processors;
pub use report::{Finding, Pace, Report};
pub use subject::Subject;
