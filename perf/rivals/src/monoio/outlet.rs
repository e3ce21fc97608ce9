//! A socket, and what it did not take yet.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg,
};

/// System calls that do not wait, and a task that does for what was left.
pub(super) struct Outlet {
    socket: TcpStream,
    left: RefCell<VecDeque<u8>>,
    left_bytes_max: usize,
    is_draining: Cell<bool>,
}

impl Outlet {
    pub(super) fn new(socket: TcpStream, left_bytes_max: usize) -> Self {
        Self { socket, left: RefCell::default(), left_bytes_max, is_draining: Cell::new(false) }
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable(false).await
    }

    /// Waits for bytes and appends them.
    pub(super) async fn receive(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.readable().await?;
        let len = bytes.len();
        bytes.resize(len + RECEIVE_BYTES, 0);
        let received = self.receive_now(&mut [], &mut bytes[len..])?;
        bytes.truncate(len + received);
        Ok(())
    }

    /// Reads what is there into one buffer and then the other; 0 when there is nothing.
    ///
    /// Errors: the connection has ended, or failed.
    pub(super) fn receive_now(&self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        let mut slices = [IoSliceMut::new(first), IoSliceMut::new(second)];
        let mut nothing = RecvAncillaryBuffer::default();
        match recvmsg(self.fd(), &mut slices, &mut nothing, RecvFlags::DONTWAIT) {
            Ok(message) if message.bytes == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(message) => Ok(message.bytes),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends some bytes, now or when the socket takes them.
    pub(super) fn send_bytes(self: &Rc<Self>, bytes: &[u8]) -> io::Result<()> {
        self.send(&[IoSlice::new(bytes)])
    }

    /// Sends some slices, now or when the socket takes them. A receiver for whom too much waits is
    /// cut.
    pub(super) fn send(self: &Rc<Self>, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut left = self.left.borrow_mut();
        let mut sent = if left.is_empty() { self.send_now(slices)? } else { 0 };
        for slice in slices {
            let skipped = sent.min(slice.len());
            sent -= skipped;
            left.extend(&slice[skipped..]);
        }
        if left.len() > self.left_bytes_max {
            self.shutdown(Shutdown::Both);
        } else if !left.is_empty() && !self.is_draining.replace(true) {
            let outlet = Rc::clone(self);
            monoio::spawn(async move {
                // The connection's own task notices as well.
                drop(outlet.drain().await);
                outlet.is_draining.set(false);
            });
        }
        Ok(())
    }

    pub(super) fn shutdown(&self, how: Shutdown) {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        // It may be gone already.
        let _ = rustix::net::shutdown(self.fd(), how);
    }

    /// Sends what was left, until nothing is.
    async fn drain(&self) -> io::Result<()> {
        loop {
            self.socket.writable(false).await?;
            let mut left = self.left.borrow_mut();
            let (first, second) = left.as_slices();
            let sent = self.send_now(&[IoSlice::new(first), IoSlice::new(second)])?;
            left.drain(..sent);
            if left.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends as much as the socket takes.
    fn send_now(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(self.fd(), slices, &mut SendAncillaryBuffer::default(), flags) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            result => Ok(result?),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket stays open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

/// Bytes of a read outside of the frame path.
const RECEIVE_BYTES: usize = 4096;
