//! The record layer of an established TLS session: RFC 8446 §5 (TLS 1.3) and RFC 5246 §6.2 with
//! AEAD suites (TLS 1.2). Somebody else does the handshake.
//!
//! [`Session`] is both directions. Records are opened where they lie ([`Session::next`]) and sealed
//! where they are written ([`Session::writer`]); an idle session owns nothing but its keys. It can
//! be written down and restored at any moment ([`Session::write_down`]): all it is made of is two
//! [`Direction`]s and a record's beginning.

mod alert;
mod direction;
mod error;
mod inbound;
mod outbound;
mod record;
mod record_cut;
mod record_key;
mod session;

#[cfg(test)]
mod inbound_tests;
#[cfg(test)]
mod session_tests;

pub use alert::Alert;
pub use direction::{Aead, Direction, Version};
pub use error::RecordError;
pub use inbound::{Content, FRUITLESS_RECORDS_MAX, Taken};
pub use outbound::{LAST_BYTES, RecordWriter};
pub use record::{ContentType, HEADER_BYTES, PLAIN_BYTES_MAX, RECORD_BYTES_MAX};
pub use record_cut::RecordCut;
pub use record_key::RecordKey;
pub use session::{Session, WrittenSession};
