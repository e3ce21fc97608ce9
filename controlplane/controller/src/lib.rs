//! The control plane of one relay: it decides who is admitted, calls the platform, answers
//! operators and keeps the log. It is off the frame path: shards ask and are told over bounded
//! lanes.
//!
//! It does not move frames, and it keeps nothing on disk. Start with [`Controller`], the actor that
//! owns all decisions; [`Settings`] is what the program fills for it. The order of an upgrade's
//! checks is in `judge.rs`, free of I/O; what each event leads to is in `events.rs`.
#![forbid(unsafe_code)]

mod admin;
mod admin_listener;
mod classic;
mod clock;
mod control;
mod controller;
mod damper;
mod date;
mod decide;
mod drain;
mod events;
mod exposition;
mod hdr_log;
mod homes;
mod internal_keys;
mod journal;
mod judge;
mod jwks;
mod ledger;
mod metrics;
mod notices;
mod platform_http;
mod platform_tls;
mod probe;
mod process;
mod protobuf;
mod queries;
mod queue;
mod record;
mod renewal;
mod reporter;
mod settings;
mod shard_series;
mod started;
mod state;
mod upgrade_window;
mod validate;
mod worker;

pub use admin_listener::AdminSocket;
pub use clock::{Clock, SystemClock};
pub use control::{AuditFile, AuditSink, ControlAccess, ControlApi, ControlSocket};
pub use controller::{Controller, Ended, StartError};
pub use drain::{DrainError, DrainOrder, Draining, RedirectUrl, RedirectUrlError};
pub use homes::{HomeTable, HomeTableError};
pub use platform_tls::PlatformTlsError;
pub use probe::{ANSWER_BYTES_MAX, Probe, ProbeAnswer, ProbeError};
pub use reporter::{Report, Reporter, Reports};
pub use settings::{
    AdminAccess, Admission, BackplaneFacts, Caps, ClientCertificate, JwksSettings, LogFormat,
    LogSettings, PlatformTls, Settings, TlsFacts, Verify,
};
pub use validate::ValidatorError;
