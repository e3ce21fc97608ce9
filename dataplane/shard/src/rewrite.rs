//! State written down and restored in place: what a live hand-over will do, long before it ships.

use relay_driver::Driver;
use relay_switchboard::{RestoreError, Switchboard};
use relay_wire::websocket::Decoder;

use crate::connection::Phase;
use crate::shard::Shard;

/// Why written-down state could not be read back: a defect of ours.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The switchboard's part.
    #[error("switchboard: {0}")]
    Switchboard(#[from] RestoreError),
    /// A connection's decoder.
    #[error("decoder: {0}")]
    Decoder(#[from] postcard::Error),
}

impl<D: Driver> Shard<D> {
    /// Replaces the switchboard, every decoder and every scanner of an open message by what was
    /// written down of them; a scanner's state is the bytes it has read. Changes nothing that
    /// anybody could observe: bytes in buffers and queues stay where they lie.
    ///
    /// Errors: a part cannot be read back; the shard is unchanged up to there. Cost: the whole
    /// state, twice.
    pub fn rewrite(&mut self) -> Result<(), RewriteError> {
        let written = self.board.write_down();
        self.board = Switchboard::restore(&written, self.limits.clone())?;
        for key in self.table.keys() {
            if let Some(Phase::Open(open)) = self.phase_mut(key) {
                let written = postcard::to_allocvec(&open.decoder)?;
                open.decoder = postcard::from_bytes::<Decoder>(&written)?;
                if let Some(assembly) = &mut open.assembly {
                    assembly.rescan();
                }
            }
        }
        Ok(())
    }
}
