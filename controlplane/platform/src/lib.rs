//! The platform side for those who have none: issues relay tokens and validates them.
//!
//! It answers the two requests a relay makes before it admits anybody: the validate call and the
//! key set. Everything is kept in memory; a restart with the same key file accepts the same tokens.
//! It has no users and no policy: whoever holds the key, or the right to start it, decides who gets
//! a token. Presence, bus and persistent stores are not here.
//!
//! Start with [`Issuer`], which makes and judges tokens, and [`router`], which serves it.
#![forbid(unsafe_code)]

mod issuer;
mod key;
mod server;
mod token;

pub use issuer::{Issuer, Refused};
pub use key::{KeyError, SigningKey};
pub use server::{JWKS_PATH, Service, VALIDATE_PATH, router, serve};
pub use token::{AUDIENCE, ISSUER, TokenClaims};
