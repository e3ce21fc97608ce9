//! Close codes, as the relay has them.

/// The scope does not take another one of that kind.
pub(crate) const REFUSED: u16 = 4008;
