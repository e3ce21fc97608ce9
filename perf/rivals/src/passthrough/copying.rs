//! read(2) and write(2) through one buffer of the thread.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;

use rustix::io::Errno;

use super::{Carrier, Outcome};

/// Bytes that were read and did not go.
pub(crate) struct Copying {
    left: Vec<u8>,
}

impl Carrier for Copying {
    fn new() -> io::Result<Self> {
        Ok(Self { left: Vec::new() })
    }

    fn carry(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<Outcome> {
        BUFFER.with_borrow_mut(|buffer| {
            let len = match rustix::io::read(from, &mut buffer[..]) {
                Ok(0) => return Ok(Outcome::Ended),
                Ok(len) => len,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Outcome::Moved),
                Err(error) => return Err(error.into()),
            };
            let written = write(to, &buffer[..len])?;
            if written == len {
                return Ok(Outcome::Moved);
            }
            self.left.extend_from_slice(&buffer[written..len]);
            Ok(Outcome::Full)
        })
    }

    fn resume(&mut self, to: &TcpStream) -> io::Result<Outcome> {
        let written = write(to, &self.left)?;
        self.left.drain(..written);
        Ok(if self.left.is_empty() { Outcome::Moved } else { Outcome::Full })
    }
}

fn write(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match rustix::io::write(to, bytes) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        result => Ok(result?),
    }
}

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_BYTES].into_boxed_slice());
}

/// Bytes of one read, at most.
const BUFFER_BYTES: usize = 256 << 10;
