//! Frames in a row for one receiver, sent together.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::rc::Rc;

use super::outlet::Outlet;

/// Where the frames lie in the buffer, and who gets them.
#[derive(Default)]
pub(super) struct Run {
    to: Option<Rc<Outlet>>,
    frames: Vec<Range<usize>>,
}

impl Run {
    /// Adds a frame; sends the ones before when they are somebody else's, or enough.
    pub(super) fn push(
        &mut self,
        to: Rc<Outlet>,
        frame: Range<usize>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let is_same = self.to.as_ref().is_some_and(|known| Rc::ptr_eq(known, &to));
        if !is_same || self.frames.len() == FRAMES_MAX {
            self.flush(bytes)?;
            self.to = Some(to);
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Sends what is there. A receiver that fails ends by itself, not its sender.
    pub(super) fn flush(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(to) = self.to.take() else {
            return Ok(());
        };
        let empty = IoSlice::new(&[]);
        let mut slices = [empty; FRAMES_MAX];
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&bytes[frame.clone()]);
        }
        drop(to.send(&slices[..self.frames.len()]));
        self.frames.clear();
        Ok(())
    }
}

/// Slices of one gathered send.
const FRAMES_MAX: usize = 64;
