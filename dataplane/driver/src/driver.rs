//! What a shard asks of the kernel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::Tick;
use relay_mailbox::Bell;

use crate::{Batch, Completion, DriverStats};

/// Names one connection. The caller chooses both parts: `slot` is its index into its own table, and
/// `generation` tells the users of one slot apart.
///
/// A slot is free again only after its [`Completion::Closed`], or after [`Driver::release`] gave
/// the socket away.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    /// Index into the caller's table; below [`Key::SLOT_MAX`].
    pub slot: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

impl Key {
    /// One more than the highest slot: what fits into a completion token beside the generation.
    pub const SLOT_MAX: u32 = 1 << 24;
}

/// How much of a batch one send insists on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendMode {
    /// What the socket takes at once, which may be nothing.
    Try,
    /// Everything, however long the peer takes to read. Fewer bytes mean that the connection failed
    /// or was closed meanwhile, that the send was cancelled, or that the kernel had no memory for
    /// it: then the rest may be tried again.
    All,
}

/// The direct-descriptor table has no room for another resident.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the table of residents is full")]
pub struct TableFull;

/// Why a driver could not be set up, or could not start to accept.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The kernel refused a step of the set-up.
    #[error("{step}: {source}")]
    Setup {
        /// What was asked.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DriverError {
    pub(crate) fn setup(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Setup { step, source }
    }
}

/// The only way from a shard to the kernel: operations go in, completions come out as plain values.
///
/// Operations are queued and take effect in [`turn`](Self::turn), in order per connection. One that
/// names a key this driver does not know, or one that is closing, is ignored: a shard may act on a
/// completion of the same turn that a later one makes obsolete. Nothing here is a future, so
/// nothing can be dropped while the kernel still uses its memory.
///
/// A socket enters as a *guest* by [`adopt`](Self::adopt), on a plain descriptor, so that it can
/// move to another driver as long as it is not admitted. [`settle`](Self::settle) makes it a
/// *resident*.
pub trait Driver {
    /// What a socket is to this driver: a descriptor, or its simulation.
    type Socket: Send + 'static;

    /// Accepts from `listener`, beside those given before, until
    /// [`stop_listening`](Self::stop_listening). A listener is of TCP or a Unix socket. Accepting
    /// from it pauses for a moment after [`Completion::AcceptFailed`].
    ///
    /// # Errors
    /// When the listener cannot be watched; it is closed then.
    fn listen(&mut self, listener: Self::Socket) -> Result<(), DriverError>;

    /// Stops accepting and closes all listeners. Sockets accepted meanwhile may still be reported.
    fn stop_listening(&mut self);

    /// Takes a connected stream socket in as a guest. It has to be in blocking mode.
    fn adopt(&mut self, key: Key, socket: Self::Socket);

    /// Makes a guest a resident, for as long as it lives. Operations in flight are not disturbed.
    ///
    /// # Errors
    /// [`TableFull`] when there is no room; it stays a guest. An unknown key is no error.
    fn settle(&mut self, key: Key) -> Result<(), TableFull>;

    /// Gives a guest away, to be adopted by another driver: `None` if it is no guest, or has an
    /// operation in flight.
    fn release(&mut self, key: Key) -> Option<Self::Socket>;

    /// Asks for one [`Completion::Received`] or [`Completion::ReceiveEnded`]. Ignored while another
    /// receive is in flight.
    fn receive_once(&mut self, key: Key);

    /// Asks for [`Completion::Received`] again and again until [`Completion::ReceiveEnded`].
    /// Ignored while another receive is in flight.
    ///
    /// When all buffers are leased the connection waits for one, without any completion;
    /// [`DriverStats::receive_starved`] counts it.
    fn receive(&mut self, key: Key);

    /// Ends a receive of either kind, so that the connection's further bytes wait in the kernel.
    /// What was received meanwhile still comes, then [`End::Paused`](crate::End), or another end if
    /// the stream has one. Ignored while no receive is in flight.
    fn pause(&mut self, key: Key);

    /// Ends the send in flight: it comes back with what the socket took, or as
    /// [`SendError::Cancelled`](crate::SendError) when that is nothing. Ignored while none is.
    fn cancel_send(&mut self, key: Key);

    /// Gives a connection away, guest or resident, to be adopted by another driver:
    /// [`Completion::Exported`] follows, and then the key is free. With an operation in flight, or
    /// where the kernel cannot, it fails and the connection stays as it was. The peer notices
    /// nothing either way. Source: FIXED_FD_INSTALL, Linux 6.8.
    fn export(&mut self, key: Key);

    /// An empty batch from the free list. Cost: allocates only while the list is empty.
    fn batch(&mut self) -> Box<Batch>;

    /// Sends a batch; [`Completion::Sent`] gives it back. At most one send per connection is in
    /// flight: a second one comes back as [`crate::SendError::Busy`]. An empty batch, or one for an
    /// unknown key, is recycled without a completion.
    fn send(&mut self, key: Key, batch: Box<Batch>, mode: SendMode);

    /// Puts a batch back on the free list; its buffers return to the pool.
    fn recycle(&mut self, batch: Box<Batch>);

    /// Ends our side of the stream (FIN) once the send in flight is done. No completion follows.
    fn shutdown(&mut self, key: Key);

    /// Cancels what is in flight and closes; of a send that was queued before, what the socket
    /// takes at once still goes out. [`Completion::Closed`] follows, after every other completion
    /// of that key; no [`Completion::Received`] follows any more.
    fn close(&mut self, key: Key);

    /// Hands everything queued to the kernel and waits for completions: until `timeout` has passed,
    /// or until something happens without one; zero only looks. They are appended to `completions`,
    /// a bounded number per turn. May return early with none.
    ///
    /// A thread with lanes calls [`Bell::rest`] first, looks at its lanes again, waits only if they
    /// are empty, and calls [`Bell::rise`] after.
    ///
    /// # Errors
    /// When the kernel refuses to wait; the driver is of no more use then.
    fn turn(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion<Self::Socket>>,
    ) -> io::Result<()>;

    /// The doorbell that ends a waiting [`turn`](Self::turn).
    fn bell(&self) -> Arc<Bell>;

    /// The time: `CLOCK_MONOTONIC`, the same in all threads. Virtual in the simulator.
    fn now(&self) -> Tick;

    /// Processor time of the calling thread, which is the driver's. Cost: a system call. Zero in
    /// the simulator, where work takes no time.
    fn cpu_time(&self) -> Duration;

    /// What was counted so far; current after a turn.
    fn stats(&self) -> &DriverStats;

    /// What logs call it.
    fn name(&self) -> &'static str;
}

/// `CLOCK_THREAD_CPUTIME_ID`.
pub(crate) fn thread_cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // Both are non-negative, and the second is below a billion.
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(crate) fn monotonic() -> Tick {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Both are non-negative: the clock counts from boot.
    Tick(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
}
