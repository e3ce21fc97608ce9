//! When bytes arrived, by the kernel's own note rather than by when somebody came to read them.
//!
//! On loopback the note is made while the sender's system call still runs, on the sender's
//! processor. So whatever else keeps the reader's processor busy is not in a latency that ends
//! with it, as long as the reader comes before the next message: of bytes that are read together
//! the kernel keeps the last note. Whoever reads should therefore [`run_first`], which is the other
//! thing this crate is for.

mod precedence;

use std::mem::{MaybeUninit, size_of};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use anyhow::{Result, bail};
use rustix::io::Errno;

pub use precedence::{run_first, run_thread_first};

/// Bytes that were read, and when the last of them arrived, in the terms of [`now_ns`].
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// How many.
    pub len: usize,
    /// When the last of them came.
    pub at_ns: u64,
}

/// Nanoseconds of the clock that arrivals are noted by, `CLOCK_REALTIME`.
pub fn now_ns() -> u64 {
    nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::Realtime))
}

/// Has the kernel note arrivals at this socket, beginning a moment later. Source: socket(7),
/// `SO_TIMESTAMPNS`.
///
/// # Errors
/// A kernel that makes no notes.
pub fn note_arrivals(socket: &TcpStream) -> Result<()> {
    let on: libc::c_int = 1;
    #[expect(unsafe_code, reason = "no safe wrapper is among the dependencies")]
    // SAFETY: setsockopt(2) reads one integer during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result != 0 {
        bail!("the kernel does not note arrivals: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Reads what has arrived; `None` when there is nothing at the moment, which a blocking socket
/// waits for.
///
/// # Errors
/// The connection was closed, or failed.
pub fn read(socket: &TcpStream, buffer: &mut [u8]) -> Result<Option<Arrived>> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = MaybeUninit::<[libc::cmsghdr; CONTROL_HEADERS]>::uninit();
    // SAFETY: msghdr is integers and pointers, for which zero is a value.
    #[expect(unsafe_code, reason = "as above")]
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<[libc::cmsghdr; CONTROL_HEADERS]>();
    // SAFETY: recvmsg(2) writes into the buffer and the control block, which outlive the call.
    #[expect(unsafe_code, reason = "as above")]
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    match usize::try_from(len) {
        Ok(0) => bail!("the connection was closed"),
        // The kernel begins to make notes a moment after it was asked to.
        Ok(len) => Ok(Some(Arrived { len, at_ns: note_of(&message).unwrap_or_else(now_ns) })),
        Err(_) => match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::AGAIN | Errno::INTR) => Ok(None),
            _ => Err(std::io::Error::last_os_error().into()),
        },
    }
}

/// The note in a received message's control block.
fn note_of(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel has filled the block that the message names, up to its length.
    #[expect(unsafe_code, reason = "as above")]
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or the first header of that block, which nobody changes any more.
    #[expect(unsafe_code, reason = "as above")]
    let header = unsafe { header.as_ref() }?;
    let is_note =
        header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_TIMESTAMPNS;
    if !is_note {
        return None;
    }
    // SAFETY: the data of a header that the kernel wrote lies in the same block.
    #[expect(unsafe_code, reason = "as above")]
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: a header of this type carries one timespec, wherever it is aligned.
    #[expect(unsafe_code, reason = "as above")]
    let time = unsafe { data.cast::<rustix::time::Timespec>().read_unaligned() };
    Some(nanoseconds(time))
}

fn nanoseconds(time: rustix::time::Timespec) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Room for the one note and its header, aligned like a header.
const CONTROL_HEADERS: usize = 4;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_arrival_is_noted_when_it_happens_and_not_when_it_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut sender =
            TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (receiver, _) = listener.accept().expect("somebody connected");
        note_arrivals(&receiver).expect("Linux does");
        // Until the kernel makes notes, the time of reading stands in, which is later than `after`.
        let mut buffer = [0; 16];
        for _ in 0..ATTEMPTS {
            let before = now_ns();
            sender.write_all(b"x").expect("there is room");
            let after = now_ns();
            let arrived = read(&receiver, &mut buffer).expect("a note").expect("it is there");
            assert_eq!(arrived.len, 1);
            if (before..=after).contains(&arrived.at_ns) {
                return;
            }
        }
        panic!("the kernel makes no notes");
    }

    /// The kernel begins a moment after it is asked to.
    const ATTEMPTS: usize = 100_000;
}
