//! What a token is worth: the platform's answer, or the token itself, becomes claims or a denial.
//!
//! Everything here is a function of its arguments: no I/O, no clock. Fetching keys, calling the
//! platform and counting connections happen in the controller. Start with [`judge_answer`] (the
//! platform was asked) and [`Checker`] (the token is checked against a key set);
//! `docs/admission.md` has the rules for operators.
#![forbid(unsafe_code)]

mod answer;
mod claims;
mod denial;
mod jwt;
mod keys;
mod mapping;

pub use answer::judge_answer;
pub use claims::{ClaimsError, parse_claims};
pub use denial::Denial;
pub use jwt::{Checker, Doubt, Jwt, Proof, Verdict};
pub use keys::{KeyFacts, KeyPrint, KeySet, KeySetError, SkippedKey};
pub use mapping::{Unmapped, VerifiedToken};
