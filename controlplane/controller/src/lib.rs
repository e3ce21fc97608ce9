//! The control plane of one relay: it decides who is admitted, calls the platform, answers operators
//! and keeps the log. It is off the frame path: shards ask and are told over bounded lanes.
//!
//! It does not move frames, and it keeps nothing on disk. Start with [`Controller`], the actor that owns
//! all decisions; [`Settings`] is what the program fills for it.
#![forbid(unsafe_code)]

mod clock;
mod controller;
mod settings;

pub use clock::{Clock, SystemClock};
pub use controller::{Controller, Ended, StartError};
pub use settings::{
    AdminAccess, Admission, BackplaneFacts, Caps, ClientCertificate, JwksSettings, PlatformTls,
    Settings, TlsFacts, Verify,
};
