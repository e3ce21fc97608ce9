//! Which program this is.

/// The version alone, as peers and metrics see it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, or `unknown`.
pub(crate) const COMMIT: &str = env!("RELAY_COMMIT");

/// What `--version` prints.
pub(crate) fn line() -> String {
    format!("{VERSION} ({COMMIT})")
}
