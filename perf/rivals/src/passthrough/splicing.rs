//! splice(2) through a pipe per direction: bytes that are never in user space.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::{Carrier, Outcome};

/// A pipe, and how much is in it.
pub(crate) struct Splicing {
    reader: OwnedFd,
    writer: OwnedFd,
    held_bytes: usize,
}

impl Carrier for Splicing {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A pipe of the usual size works too, where the user may have no larger one.
        let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
        Ok(Self { reader, writer, held_bytes: 0 })
    }

    fn carry(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<Outcome> {
        match step(from, &self.writer, PIPE_BYTES)? {
            Some(0) => return Ok(Outcome::Ended),
            Some(moved) => self.held_bytes += moved,
            None => return Ok(Outcome::Moved),
        }
        self.resume(to)
    }

    fn resume(&mut self, to: &TcpStream) -> io::Result<Outcome> {
        while self.held_bytes > 0 {
            match step(&self.reader, to, self.held_bytes)? {
                Some(moved) => self.held_bytes -= moved,
                None => return Ok(Outcome::Full),
            }
        }
        Ok(Outcome::Moved)
    }
}

/// One splice; `None` when it would have to wait.
fn step(from: impl AsFd, to: impl AsFd, bytes: usize) -> io::Result<Option<usize>> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    match splice(from, None, to, None, bytes, flags) {
        Ok(moved) => Ok(Some(moved)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Bytes of a pipe: the most that a user without privileges may ask for.
const PIPE_BYTES: usize = 1 << 20;
