//! A walk over received bytes, frame by frame.

use relay_wire::envelope::Scanner;
use relay_wire::websocket::{Decoder, FrameError, Piece, Step};

use crate::received::Received;

/// Received bytes and how far they are read.
///
/// Frames that come in one receive are moved together while they are unmasked: each was longer by
/// its key when it came, and without those gaps all that goes to one connection leaves as one
/// piece. A frame moves into bytes that were read before it and that nobody else was given.
pub(crate) struct Walk {
    input: Received,
    /// Where the next frame begins. Nobody needs the bytes before it.
    at: usize,
    /// Whether something directly before the input was handed out, for the next frame to join.
    joins: bool,
}

impl Walk {
    pub(crate) fn new(input: Received) -> Self {
        Self { input, at: 0, joins: false }
    }

    /// Bytes that were not read yet.
    pub(crate) fn left(&mut self) -> usize {
        self.input.bytes_mut().len() - self.at
    }

    /// What the steps found so far speak of.
    pub(crate) fn bytes(&mut self) -> &[u8] {
        self.input.bytes_mut()
    }

    /// Finds the next step.
    pub(crate) fn next(
        &mut self,
        decoder: &mut Decoder,
        frame_bytes_max: usize,
        scanner: &mut Scanner,
    ) -> Result<Step, FrameError> {
        let (joins, at) = (self.joins, self.at);
        let bytes = self.input.bytes_mut();
        match joins {
            true => decoder.next_close(bytes, 0, at, frame_bytes_max, scanner),
            false => decoder.next(bytes, at, frame_bytes_max, scanner),
        }
    }

    /// Goes on at `at`; nobody needs what lies before.
    pub(crate) fn pass(&mut self, at: usize) {
        self.input.skip(at);
        self.at = 0;
        self.joins = false;
    }

    /// Hands the bytes up to a piece's end out. What lies between them and the next frame stays.
    pub(crate) fn take(&mut self, piece: &Piece) -> Received {
        let taken = self.input.split_to(piece.payload.end);
        self.at = piece.at - piece.payload.end;
        // A part of bytes of our own is a copy, which has no neighbour.
        self.joins = self.input.is_leased();
        taken
    }

    /// What was not read yet.
    pub(crate) fn into_rest(mut self) -> Received {
        self.input.skip(self.at);
        self.input
    }
}
