//! The two queues shared with the kernel, and the system calls that move them.
//!
//! Safe code will not do: an operation is a structure of raw descriptors and pointers. Everything
//! with a pointer is an `unsafe` method here; the rest cannot name memory.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::register::{Probe, Restriction};
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode};

use super::buffers::BufferRing;
use super::token::{Kind, Token};
use crate::DriverError;

/// One ring, used by the thread that made it.
pub(super) struct Ring {
    io: IoUring,
    /// Whether plain descriptors can be made for direct ones. Linux 6.8.
    pub(super) exports: bool,
    /// Index of the ring in the thread's table of registered rings: spares a look-up per call.
    registered: Option<u32>,
    /// Operations that found the submission queue full and the kernel unwilling to empty it.
    backlog: VecDeque<Entry>,
    /// Operations whose last completion was not looked at yet.
    in_flight: usize,
    /// What the next calls are refused with, for tests.
    #[cfg(test)]
    pub(super) refusals: Vec<i32>,
    pub(super) system_calls: u64,
    pub(super) operations: u64,
}

/// Where an entry says how many bytes a repeated receive brings in all: `optlen`, of which the
/// crate knows for another operation only. Source: io_uring.h, `struct io_uring_sqe`.
const RECEIVE_TOTAL_AT: usize = 44;

/// What an operation works on.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Plain(RawFd),
    Direct(u32),
}

/// What the kernel says of an operation, once.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) token: Token,
    /// A count or descriptor; negative, an `errno`.
    pub(super) result: i32,
    /// The socket that an accept brought, or an export. Closed by whoever does not take it.
    pub(super) descriptor: Option<OwnedFd>,
    flags: u32,
}

impl Done {
    /// Whether the operation goes on.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The buffer of the group that was used.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// Reads a completion. Only for one that was just taken out of the queue.
    fn of(entry: &cqueue::Entry) -> Self {
        let token = Token::decode(entry.user_data());
        let (result, flags) = (entry.result(), entry.flags());
        let brings_socket = matches!(token.kind, Kind::Accept | Kind::Export) && result >= 0;
        let descriptor = brings_socket.then(|| {
            // SAFETY: a non-negative result of an accept or an export is a new descriptor that
            // nobody else knows of: `drain`, the only caller, takes each completion out of the
            // queue once.
            unsafe { OwnedFd::from_raw_fd(result) }
        });
        Self { token, result, descriptor, flags }
    }
}

impl Ring {
    /// Sets a ring up: restricted to what this module uses, with room for `table_len` direct
    /// descriptors and `buffers` as the group its receives choose from. Where `announced`,
    /// [`has_deferred`](Self::has_deferred) sees work that waits for the next `enter`.
    pub(super) fn open(
        operations_max: u32,
        table_len: u32,
        announced: bool,
        buffers: &BufferRing,
    ) -> Result<Self, DriverError> {
        let mut builder = IoUring::builder();
        if announced {
            builder.setup_taskrun_flag();
        }
        let io = builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(operations_max.saturating_mul(COMPLETIONS_PER_OPERATION))
            .setup_r_disabled()
            .build(operations_max)
            .map_err(DriverError::setup("io_uring_setup"))?;
        let submitter = io.submitter();
        let mut probe = Probe::new();
        // A kernel that does not say what it can do is older than what is asked for.
        let exports = submitter.register_probe(&mut probe).is_ok()
            && probe.is_supported(opcode::FixedFdInstall::CODE);
        submitter
            .register_restrictions(&mut restrictions(exports))
            .map_err(DriverError::setup("register restrictions"))?;
        submitter
            .register_files_sparse(table_len)
            .map_err(DriverError::setup("register the descriptor table"))?;
        // SAFETY: the address is that of `entry_count` entries; the caller drops the buffers after
        // the ring, or not at all.
        unsafe {
            submitter.register_buf_ring_with_flags(
                buffers.address(),
                buffers.entry_count(),
                BUFFER_GROUP,
                0,
            )
        }
        .map_err(DriverError::setup("register the buffer ring"))?;
        let registered = register_ring(io.as_raw_fd());
        io.submitter().register_enable_rings().map_err(DriverError::setup("enable the ring"))?;
        Ok(Self {
            io,
            exports,
            registered,
            backlog: VecDeque::new(),
            in_flight: 0,
            #[cfg(test)]
            refusals: Vec::new(),
            system_calls: 0,
            operations: 0,
        })
    }

    /// Accepts one connection, as a plain descriptor in blocking mode.
    ///
    /// Not again and again: the kernel would take everybody who waits in one go, thousands of them
    /// in a storm, and the turn would last as long.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        let nobody = std::ptr::null_mut();
        let accept = opcode::Accept::new(Fd(listener.as_raw_fd()), nobody, std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC);
        self.queue(accept.build(), token);
    }

    /// Completes each time `descriptor` becomes readable, until cancelled. Linux 5.13.
    pub(super) fn watch(&mut self, descriptor: BorrowedFd<'_>, token: Token) {
        let readable = libc::POLLIN as u32;
        let poll = opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), readable).multi(true);
        self.queue(poll.build(), token);
    }

    /// Receives once into a buffer of the group.
    pub(super) fn receive_once(&mut self, target: Target, token: Token) {
        let nowhere = std::ptr::null_mut();
        let entry = match target {
            Target::Plain(fd) => opcode::Recv::new(Fd(fd), nowhere, 0),
            Target::Direct(index) => opcode::Recv::new(Fixed(index), nowhere, 0),
        };
        let entry = entry.buf_group(BUFFER_GROUP).build().flags(Flags::BUFFER_SELECT);
        self.queue(entry, token);
    }

    /// Receives into buffers of the group until a completion lacks the MORE flag. Linux 6.0.
    ///
    /// With the buffer that makes it `burst_bytes` it ends, and what is behind waits for the next;
    /// Linux 6.18. Zero leaves that to the kernel, which then fills up to 32 buffers in a row.
    pub(super) fn receive(&mut self, target: Target, burst_bytes: u32, token: Token) {
        let entry = match target {
            Target::Plain(fd) => opcode::RecvMulti::new(Fd(fd), BUFFER_GROUP),
            Target::Direct(index) => opcode::RecvMulti::new(Fixed(index), BUFFER_GROUP),
        };
        let mut entry = entry.build();
        const { assert!(size_of::<Entry>() == 64, "as the kernel reads it") };
        let total =
            (&raw mut entry).cast::<u32>().wrapping_add(RECEIVE_TOTAL_AT / size_of::<u32>());
        // SAFETY: an entry is a `repr(C)` structure around what the kernel reads: 64 bytes, of
        // which the four at this place are an integer that a receive without a bound leaves at
        // zero. Sixteen such integers fill it, so this one lies inside and at a multiple of its
        // size.
        unsafe { total.write(burst_bytes) };
        self.queue(entry, token);
    }

    /// Whether the kernel takes a bound for the bursts of a receive: asks for one from a stream
    /// that has ended. `false` as well when it could not be asked.
    pub(super) fn bounds_bursts(&mut self, burst_bytes: u32) -> bool {
        let Ok((ended, peer)) = UnixStream::pair() else {
            return false;
        };
        drop(peer);
        let token = Token::of_driver(Kind::Receive);
        self.receive(Target::Plain(ended.as_raw_fd()), burst_bytes, token);
        if self.enter(1, Some(PROBE_WAIT)).is_err() {
            return false;
        }
        let mut entries = Vec::new();
        self.drain(usize::MAX, &mut entries);
        matches!(&entries[..], [done] if done.result == 0)
    }

    /// Sends the bytes of one place.
    ///
    /// # Safety
    /// The bytes stay in place and unchanged until the operation's completion was drained, or are
    /// leaked.
    pub(super) unsafe fn send(&mut self, target: Target, bytes: &[u8], flags: i32, token: Token) {
        // More than that is sent in part, as the caller may find with any send.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = match target {
            Target::Plain(fd) => opcode::Send::new(Fd(fd), bytes.as_ptr(), len),
            Target::Direct(index) => opcode::Send::new(Fixed(index), bytes.as_ptr(), len),
        };
        self.queue(entry.flags(flags).build(), token);
    }

    /// Sends the bytes of several places.
    ///
    /// # Safety
    /// The header and all it points to stay in place and unchanged until the operation's completion
    /// was drained, or are leaked.
    pub(super) unsafe fn send_message(
        &mut self,
        target: Target,
        header: *const libc::msghdr,
        flags: i32,
        token: Token,
    ) {
        let entry = match target {
            Target::Plain(fd) => opcode::SendMsg::new(Fd(fd), header),
            Target::Direct(index) => opcode::SendMsg::new(Fixed(index), header),
        };
        self.queue(entry.flags(flags as u32).build(), token);
    }

    /// Sends FIN.
    pub(super) fn shutdown(&mut self, index: u32, token: Token) {
        let entry = opcode::Shutdown::new(Fixed(index), libc::SHUT_WR).build();
        self.queue(entry, token);
    }

    /// Closes a direct descriptor.
    pub(super) fn close(&mut self, index: u32, token: Token) {
        self.queue(opcode::Close::new(Fixed(index)).build(), token);
    }

    /// Makes a plain descriptor for a direct one, which stays. Linux 6.8.
    pub(super) fn export(&mut self, index: u32, token: Token) {
        // Without flags the descriptor is closed on exec.
        self.queue(opcode::FixedFdInstall::new(Fixed(index), 0).build(), token);
    }

    /// Cancels the operation with this token, if it is still there. Found by its hash: cancelling
    /// by descriptor would look at every operation of the ring.
    pub(super) fn cancel(&mut self, token: Token) {
        let cancel = Token::new(Kind::Cancel, token.key);
        self.queue(opcode::AsyncCancel::new(token.encode()).build(), cancel);
    }

    /// Puts a socket into the table of direct descriptors; the plain one is needed no longer.
    pub(super) fn install(&mut self, index: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.system_calls += 1;
        self.io.submitter().register_files_update(index, &[socket.as_raw_fd()]).map(drop)
    }

    /// Submits everything queued, and waits for `wanted` completions, or for `timeout`.
    pub(super) fn enter(&mut self, wanted: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.refill();
        // GETEVENTS even when nothing is wanted: only then the kernel runs deferred work.
        match self.call_enter(wanted, enter_flags::GETEVENTS, timeout) {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; the kernel wants its completions looked at first, or has no
                // memory for more operations now. What was not submitted still waits in the queue.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Moves up to `max` completions out of the queue, in order.
    pub(super) fn drain(&mut self, max: usize, into: &mut Vec<Done>) {
        let before = into.len();
        into.extend(self.io.completion().take(max).map(|entry| Done::of(&entry)));
        let last = into[before..].iter().filter(|done| !done.more()).count();
        self.in_flight -= last;
    }

    /// Whether completions wait that were not drained.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.io.completion().is_empty()
    }

    /// Whether the kernel has work of ours to do that it does only in an `enter`. A load from
    /// memory; always `false` unless the ring was opened so.
    pub(super) fn has_deferred(&mut self) -> bool {
        self.io.submission().taskrun()
    }

    /// Whether something is queued that the kernel has not seen.
    pub(super) fn has_unsubmitted(&mut self) -> bool {
        !(self.backlog.is_empty() && self.io.submission().is_empty())
    }

    /// Cancels everything and waits until the kernel is done with all memory it was given; whether
    /// it is. Completions are thrown away; sockets among them are closed.
    pub(super) fn quiesce(&mut self) -> bool {
        self.queue(
            opcode::AsyncCancel2::new(CancelBuilder::any()).build(),
            Token::of_driver(Kind::Cancel),
        );
        let mut entries = Vec::new();
        for _ in 0..QUIESCE_ATTEMPTS {
            if self.enter(1, Some(QUIESCE_WAIT)).is_err() {
                return false;
            }
            self.drain(usize::MAX, &mut entries);
            entries.clear();
            if self.in_flight == 0 {
                return true;
            }
        }
        false
    }

    fn queue(&mut self, entry: Entry, token: Token) {
        let entry = entry.user_data(token.encode());
        self.in_flight += 1;
        self.operations += 1;
        if self.backlog.is_empty() && self.push(&entry) {
            return;
        }
        // The queue is full before the turn ends: submit early. What it says shows at the next
        // enter.
        let _ = self.call_enter(0, 0, None);
        self.backlog.push_back(entry);
        self.refill();
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.push(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    fn push(&mut self, entry: &Entry) -> bool {
        // SAFETY: entries are made in this module. Those that name memory come from the `unsafe`
        // methods, whose callers keep it in place; descriptors are closed only after a submit.
        unsafe { self.io.submission().push(entry) }.is_ok()
    }

    fn call_enter(&mut self, wanted: u32, flags: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.system_calls += 1;
        #[cfg(test)]
        if let Some(errno) = self.refusals.pop() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let to_submit = self.io.submission().len() as u32;
        let (descriptor, flags) = match self.registered {
            Some(index) => (index as i32, flags | enter_flags::REGISTERED_RING),
            None => (self.io.as_raw_fd(), flags),
        };
        let time = timeout.map(|timeout| KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(timeout.subsec_nanos()),
        });
        let argument = EnterArgument {
            signal_mask: 0,
            signal_mask_bytes: 0,
            min_wait_us: 0,
            time: time.as_ref().map_or(0, |time| (&raw const *time).expose_provenance() as u64),
        };
        // SAFETY: io_uring_enter(2) with an extended argument, which outlives the call together
        // with the time it points to. What was queued is valid by the contract of `push`.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                descriptor,
                to_submit,
                wanted,
                flags | enter_flags::EXT_ARG,
                &raw const argument,
                size_of::<EnterArgument>(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            let mut update = RingUpdate { index, reserved: 0, data: 0 };
            call_register(self.io.as_raw_fd(), UNREGISTER_RING_FDS, &mut update);
        }
    }
}

/// Registers the ring with its thread; without room there (16 rings) the plain descriptor does.
fn register_ring(descriptor: RawFd) -> Option<u32> {
    let mut update = RingUpdate { index: u32::MAX, reserved: 0, data: descriptor as u64 };
    call_register(descriptor, REGISTER_RING_FDS, &mut update).then_some(update.index)
}

fn call_register(descriptor: RawFd, operation: u8, update: &mut RingUpdate) -> bool {
    // SAFETY: io_uring_register(2) with one update, which the kernel reads and writes during the
    // call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            descriptor,
            u32::from(operation),
            &raw mut *update,
            1u32,
        )
    };
    result == 1
}

/// What the ring may do: system-call filters cannot see inside it.
fn restrictions(exports: bool) -> Vec<Restriction> {
    let operations = [
        opcode::Accept::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
        opcode::PollAdd::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::Shutdown::CODE,
    ];
    let registers = [REGISTER_FILES_UPDATE, UNREGISTER_RING_FDS];
    let flags = Flags::FIXED_FILE | Flags::BUFFER_SELECT;
    let mut restrictions: Vec<_> = operations.map(Restriction::sqe_op).into();
    restrictions.extend(exports.then(|| Restriction::sqe_op(opcode::FixedFdInstall::CODE)));
    restrictions.extend(registers.map(Restriction::register_op));
    restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
    restrictions
}

/// The kernel's `io_uring_getevents_arg`.
#[repr(C)]
struct EnterArgument {
    signal_mask: u64,
    signal_mask_bytes: u32,
    min_wait_us: u32,
    time: u64,
}

/// The kernel's `__kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// The kernel's `io_uring_rsrc_update`, for registered rings.
#[repr(C)]
struct RingUpdate {
    index: u32,
    reserved: u32,
    data: u64,
}

/// Flags of io_uring_enter(2).
mod enter_flags {
    use io_uring::EnterFlags;

    pub(super) const GETEVENTS: u32 = EnterFlags::GETEVENTS.bits();
    pub(super) const EXT_ARG: u32 = EnterFlags::EXT_ARG.bits();
    pub(super) const REGISTERED_RING: u32 = EnterFlags::REGISTERED_RING.bits();
}

// Operations of io_uring_register(2).
const REGISTER_FILES_UPDATE: u8 = 6;
const REGISTER_RING_FDS: u8 = 20;
const UNREGISTER_RING_FDS: u8 = 21;

/// The one group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// Room for completions per operation of the submission queue; beyond it the kernel keeps a list.
const COMPLETIONS_PER_OPERATION: u32 = 4;

/// How long to wait for the answer of a stream that has ended: it is there at once.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// How long dropping a driver waits for the kernel, in total five seconds.
const QUIESCE_WAIT: Duration = Duration::from_millis(100);
const QUIESCE_ATTEMPTS: u32 = 50;
