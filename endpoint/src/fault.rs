//! Whose fault an error is.

/// Who must change something for an error to go away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The other end, or whoever altered its bytes on the way.
    Peer,
    /// This process: its configuration, its files, its use of the library.
    Us,
    /// The relay or the network between.
    Upstream,
}
