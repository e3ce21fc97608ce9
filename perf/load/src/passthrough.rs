//! The limit: bytes from one socket of a pair to the other, and nothing else.
//!
//! One io_uring with the settings of the relay's own driver (multishot receives out of a
//! provided-buffer ring, gathered sends, DEFER_TASKRUN), but no WebSocket, no JSON, no routing.
//! What a relay costs above this is what the relay itself costs; what it costs below cannot be had.
//!
//! `unsafe` is here because the kernel reads and writes memory that is named by address.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use io_uring::{IoUring, cqueue, opcode, types};

use buffers::Buffers;

mod buffers;

/// Accepts `pair_count` pairs, each first daemon, then client, and forwards until one end closes.
pub(crate) fn serve(listener: &TcpListener, pair_count: usize) -> Result<()> {
    let sockets = (0..pair_count * 2)
        .map(|_| {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            Ok(OwnedFd::from(socket))
        })
        .collect::<io::Result<Vec<_>>>()
        .context("accepting pairs")?;
    Passthrough::new(sockets)?.run().context("forwarding")
}

struct Passthrough {
    // Dropped first: the kernel lets go of `buffers` and `ends` when the ring is gone.
    ring: IoUring,
    buffers: Buffers,
    ends: Vec<End>,
    /// Ends whose receive ended for lack of buffers.
    starved: Vec<usize>,
    /// Ends with something to send since the last submission.
    dirty: Vec<usize>,
    completions: Vec<Completion>,
    _sockets: Vec<OwnedFd>,
}

/// What one socket has to send.
struct End {
    waiting: VecDeque<Piece>,
    gather: Box<Gather>,
    is_sending: bool,
    is_dirty: bool,
}

/// Received bytes in one of the provided buffers.
#[derive(Clone, Copy)]
struct Piece {
    buffer: u16,
    start: u32,
    len: u32,
}

/// Addresses the kernel reads until the send completes. Boxed, so that they stay where they are.
struct Gather {
    iovecs: [libc::iovec; PIECES_MAX],
    header: libc::msghdr,
    pieces: Vec<Piece>,
}

struct Completion {
    is_send: bool,
    end: usize,
    result: i32,
    flags: u32,
}

impl Passthrough {
    fn new(sockets: Vec<OwnedFd>) -> Result<Self> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(ENTRIES * 8)
            .build(ENTRIES)
            .context("io_uring: Linux 6.1 and permission to use it")?;
        let descriptors: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&descriptors).context("registering sockets")?;
        let buffers = Buffers::register(&ring).context("registering buffers")?;
        let ends = sockets.iter().map(|_| End::new()).collect();
        Ok(Self {
            ring,
            buffers,
            ends,
            starved: Vec::new(),
            dirty: Vec::new(),
            completions: Vec::new(),
            _sockets: sockets,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        for end in 0..self.ends.len() {
            self.receive(end)?;
        }
        loop {
            self.ring.submit_and_wait(1)?;
            let entries = self.ring.completion();
            self.completions.extend(entries.map(|entry| Completion {
                is_send: entry.user_data() & SEND != 0,
                end: (entry.user_data() & !SEND) as usize,
                result: entry.result(),
                flags: entry.flags(),
            }));
            let completions = std::mem::take(&mut self.completions);
            for completion in &completions {
                let goes_on = if completion.is_send {
                    self.sent(completion)
                } else {
                    self.received(completion)?
                };
                if !goes_on {
                    return Ok(());
                }
            }
            self.completions = completions;
            self.completions.clear();
            self.flush()?;
        }
    }

    /// Notes what arrived for the other end. False when this end is gone.
    fn received(&mut self, completion: &Completion) -> io::Result<bool> {
        let end = completion.end;
        if completion.result == -libc::ENOBUFS {
            self.starved.push(end);
            return Ok(true);
        }
        let Ok(len @ 1..) = u32::try_from(completion.result) else {
            return Ok(false);
        };
        let buffer =
            cqueue::buffer_select(completion.flags).expect("a receive with data names its buffer");
        let peer = end ^ 1;
        self.ends[peer].waiting.push_back(Piece { buffer, start: 0, len });
        self.mark(peer);
        if !cqueue::more(completion.flags) {
            self.receive(end)?;
        }
        Ok(true)
    }

    /// Returns what was sent to the kernel's buffers. False when this end is gone.
    fn sent(&mut self, completion: &Completion) -> bool {
        let Ok(mut sent) = u32::try_from(completion.result) else {
            return false;
        };
        let end = &mut self.ends[completion.end];
        end.is_sending = false;
        let mut rest = Vec::new();
        for mut piece in end.gather.pieces.drain(..) {
            let step = piece.len.min(sent);
            sent -= step;
            piece.start += step;
            piece.len -= step;
            if piece.len == 0 {
                self.buffers.give_back(piece.buffer);
            } else {
                rest.push(piece);
            }
        }
        for piece in rest.into_iter().rev() {
            end.waiting.push_front(piece);
        }
        if !end.waiting.is_empty() {
            self.mark(completion.end);
        }
        true
    }

    fn mark(&mut self, end: usize) {
        if !self.ends[end].is_dirty {
            self.ends[end].is_dirty = true;
            self.dirty.push(end);
        }
    }

    /// Queues one send per end that has something to send and none in flight.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffers.publish() {
            for end in std::mem::take(&mut self.starved) {
                self.receive(end)?;
            }
        }
        for index in std::mem::take(&mut self.dirty) {
            let end = &mut self.ends[index];
            end.is_dirty = false;
            if !end.is_sending && !end.waiting.is_empty() {
                end.is_sending = true;
                let entry = end.gather(&self.buffers, index);
                self.push(&entry.user_data(index as u64 | SEND))?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, end: usize) -> io::Result<()> {
        let fd = types::Fixed(u32::try_from(end).expect("ends are few"));
        let entry = opcode::RecvMulti::new(fd, buffers::GROUP).build();
        self.push(&entry.user_data(end as u64))
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: receives name a buffer group, and sends name a boxed `Gather` and buffers
            // that stay in place and untouched until their completion, and outlive the
            // ring.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

impl End {
    fn new() -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all-zero bytes are a valid msghdr: null pointers with zero lengths.
        let header = unsafe { std::mem::zeroed() };
        Self {
            waiting: VecDeque::new(),
            gather: Box::new(Gather {
                iovecs: [empty; PIECES_MAX],
                header,
                pieces: Vec::with_capacity(PIECES_MAX),
            }),
            is_sending: false,
            is_dirty: false,
        }
    }

    /// Moves what waits into one send: a plain one for one piece, else a gathered one.
    fn gather(&mut self, buffers: &Buffers, index: usize) -> io_uring::squeue::Entry {
        let fd = types::Fixed(u32::try_from(index).expect("ends are few"));
        let count = self.waiting.len().min(PIECES_MAX);
        let gather = &mut *self.gather;
        gather.pieces.extend(self.waiting.drain(..count));
        if let [piece] = gather.pieces[..] {
            return opcode::Send::new(fd, buffers.address(piece.buffer, piece.start), piece.len)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                .build();
        }
        for (iovec, piece) in gather.iovecs.iter_mut().zip(&gather.pieces) {
            iovec.iov_base = buffers.address(piece.buffer, piece.start).cast_mut().cast();
            iovec.iov_len = piece.len as usize;
        }
        gather.header.msg_iov = gather.iovecs.as_mut_ptr();
        gather.header.msg_iovlen = count;
        opcode::SendMsg::new(fd, &raw const gather.header)
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32)
            .build()
    }
}

/// Submission entries; completions have eight times as many.
const ENTRIES: u32 = 512;
/// Pieces of one gathered send.
const PIECES_MAX: usize = 64;
/// The bit of `user_data` that tells sends from receives.
const SEND: u64 = 1 << 63;
