//! Waking a link's thread while it waits for its socket.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The button: any thread may press it, any number of times.
#[derive(Clone)]
pub(super) struct Button(Arc<Shared>);

struct Shared {
    /// Set from the first press until the thread has woken: one byte is enough.
    pressed: AtomicBool,
    wire: UnixStream,
}

impl Button {
    pub(super) fn press(&self) {
        if !self.0.pressed.swap(true, Ordering::SeqCst) {
            // A full pipe has woken the thread already; a closed one has nobody to wake.
            let _ = (&self.0.wire).write(&[1]);
        }
    }
}

/// The bell: the link's thread waits for it and for its socket.
pub(super) struct Bell {
    wire: UnixStream,
    shared: Arc<Shared>,
}

/// What a socket is waited for.
#[derive(Clone, Copy)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Bell {
    pub(super) fn new() -> io::Result<(Self, Button)> {
        let (inside, outside) = UnixStream::pair()?;
        inside.set_nonblocking(true)?;
        outside.set_nonblocking(true)?;
        let shared = Arc::new(Shared { pressed: AtomicBool::new(false), wire: outside });
        let wire = inside;
        let bell = Self { wire, shared: shared.clone() };
        Ok((bell, Button(shared)))
    }

    /// Returns when the button was pressed, the socket is ready, or the time is over.
    ///
    /// Whoever presses puts its order in place first; whoever waits looks for orders after.
    pub(super) fn wait(
        &mut self,
        socket: Option<(BorrowedFd<'_>, Interest)>,
        time: Option<Duration>,
    ) -> io::Result<()> {
        let time = time.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let bell = PollFd::new(&self.wire, PollFlags::IN);
        let (outcome, rang) = match socket {
            None => {
                let mut fds = [bell];
                (poll(&mut fds, time.as_ref()), !fds[0].revents().is_empty())
            }
            Some((fd, interest)) => {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, interest.read);
                flags.set(PollFlags::OUT, interest.write);
                let mut fds = [bell, PollFd::from_borrowed_fd(fd, flags)];
                (poll(&mut fds, time.as_ref()), !fds[0].revents().is_empty())
            }
        };
        match outcome {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if rang {
            self.clear();
        }
        Ok(())
    }

    /// Only after the byte was seen: a flag whose byte is still on its way must stay up, or that
    /// byte would ring for nobody.
    fn clear(&mut self) {
        // The wire before the flag: whoever presses in between has its order in place, and is seen
        // by the look for orders that follows.
        while matches!(self.wire.read(&mut [0; 16]), Ok(read) if read > 0) {}
        self.shared.pressed.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_press_before_the_wait_is_not_missed() {
        let (mut bell, button) = Bell::new().unwrap();
        for _ in 0..3 {
            button.press();
            button.press();
            let start = Instant::now();
            bell.wait(None, Some(Duration::from_secs(60))).unwrap();
            assert!(start.elapsed() < Duration::from_secs(30));
        }
    }

    #[test]
    fn the_wait_ends_with_its_time() {
        let (mut bell, _button) = Bell::new().unwrap();
        bell.wait(None, Some(Duration::from_millis(1))).unwrap();
    }
}
