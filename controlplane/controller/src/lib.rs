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
mod admitting;
mod call_bytes;
mod classic;
mod clock;
mod control;
mod controller;
mod courtesy;
mod damper;
mod date;
mod decide;
mod decisions;
mod dismissal;
#[cfg(test)]
mod dismissal_tests;
mod doubts;
mod drain;
mod events;
mod expiry;
mod exposition;
mod facts;
mod fair_queue;
mod filter;
mod hdr_log;
mod homes;
mod inquiries;
mod internal_keys;
mod journal;
mod judge;
mod jwks;
mod keepers;
mod keeping;
mod key_book;
mod last_reports;
mod ledger;
mod live;
mod metrics;
mod moves;
mod notices;
mod planes;
#[cfg(test)]
mod planes_tests;
mod platform_http;
mod platform_tls;
mod probe;
mod process;
mod protobuf;
mod queries;
mod question;
mod record;
mod reload;
mod renewal;
mod reporter;
mod revocation_file;
mod revocations;
mod settings;
mod shard_series;
mod started;
mod state;
mod undelivered;
mod unheard;
mod upgrade_window;
mod validate;
mod worker;

pub use admin_listener::AdminSocket;
pub use clock::{Clock, SystemClock};
pub use control::{AuditFile, AuditSink, ControlAccess, ControlApi, ControlSocket, ControlTls};
pub use controller::{Controller, Ended, StartError};
pub use drain::{DrainError, DrainOrder, Draining, RedirectUrl, RedirectUrlError};
pub use filter::{ConnectionFacts, ConnectionFilter};
pub use homes::{HomeTable, HomeTableError};
pub use journal::{Journal, Written};
pub use jwks::{KeySchedule, KeySetStatus, KeyStatus};
pub use live::{Applier, ApplyError, LiveSettings};
pub use moves::MoveError;
pub use platform_tls::PlatformTlsError;
pub use probe::{ANSWER_BYTES_MAX, Probe, ProbeAnswer, ProbeError};
pub use reload::{ReloadAsked, ReloadRefused, Reloaded, Reloads};
pub use reporter::{Report, Reporter, Reports};
pub use revocation_file::RevocationFileError;
pub use revocations::{Revocation, RevocationOutcome, Revoked};
pub use settings::{
    AdminAccess, Admission, BackplaneFacts, Caps, ClientCertificate, Ending, IssuerSettings,
    JwksSettings, LogFormat, LogSettings, PlatformTls, Settings, TlsFacts, UnknownKeys, Verify,
};
pub use validate::ValidatorError;
