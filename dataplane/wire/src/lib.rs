//! Bytes to meaning and back: TLS records, request heads, WebSocket frames and the JSON envelope of
//! a frame.
//!
//! Everything here is a function of its arguments: no I/O, no clock, no thread. Bytes come from
//! peers, so no input panics and no input makes memory grow past a bound named beside the type that
//! grows. It does not decide who may do what: that is the switchboard's and the control plane's.
//!
//! Start with [`http1::parse_head`] (a connection's first bytes, behind those that
//! [`parse_proxy_header`] takes off where a proxy stands in front), then [`websocket::Decoder`]
//! (all bytes after the upgrade), which feeds [`envelope::Scanner`] (what the relay may know of a
//! frame). Where TLS ends here, [`tls::Session`] stands in front of the last three.
#![forbid(unsafe_code)]

pub mod envelope;
pub mod http1;
mod proxy_protocol;
pub mod tls;
pub mod websocket;

pub use proxy_protocol::{
    PROXY_HEADER_BYTES_MAX, ProxyHeader, ProxyHeaderError, parse_proxy_header,
};
