//! State written down and restored in place: what a live hand-over will do, long before it ships.

use std::sync::Arc;

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
    Decoder(postcard::Error),
    /// A connection's TLS session.
    #[error("TLS session: {0}")]
    Tls(postcard::Error),
}

impl<D: Driver> Shard<D> {
    /// Replaces the switchboard, every established TLS session, every decoder and every scanner of
    /// an open message by what was written down of them; a scanner's state is the bytes it has
    /// read. Changes nothing that anybody could observe: bytes in buffers and queues stay where
    /// they lie.
    ///
    /// Errors: a part cannot be read back; the shard is unchanged up to there. Cost: the whole
    /// state, twice.
    pub fn rewrite(&mut self) -> Result<(), RewriteError> {
        let written = self.board.write_down();
        let routes = Arc::clone(self.board.routes());
        self.board = Switchboard::restore(&written, self.limits.clone(), routes)?;
        for key in self.table.keys() {
            if let Some(session) = self.table.get_mut(key).and_then(|c| c.tls.as_mut()) {
                session.rewrite().map_err(RewriteError::Tls)?;
            }
            if let Some(Phase::Open(open)) = self.phase_mut(key) {
                open.decoder = rewritten(&open.decoder).map_err(RewriteError::Decoder)?;
                if let Some(assembly) = &mut open.assembly {
                    assembly.rescan(&open.decoder);
                }
            }
            self.charge(key);
        }
        Ok(())
    }
}

fn rewritten(decoder: &Decoder) -> Result<Decoder, postcard::Error> {
    postcard::from_bytes(&postcard::to_allocvec(decoder)?)
}
