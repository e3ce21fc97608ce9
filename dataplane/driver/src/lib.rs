//! The only room that talks to the kernel.
//!
//! A shard owns one [`Driver`]: it queues operations, takes a turn, and gets [`Completion`]s as
//! plain values. Received bytes come as a [`Lease`] on a buffer of the driver's [`BufferPool`];
//! what is sent goes out as a [`Batch`] of [`Chunk`]s, which may point into the same buffers.
//!
//! There is no future and no waker here, no protocol, and no decision about connections. `unsafe`
//! is denied except in the modules that say why they need it. Start with [`Driver`].
#![deny(unsafe_code)]

mod accept;
mod batch;
mod chunk;
mod completion;
mod config;
mod driver;
mod epoll;
mod message;
mod open;
mod pool;
mod precedence;
mod prefetch;
pub mod sim;
mod spin;
mod startup;
mod starved;
mod stats;
mod table;
mod uring;

pub use batch::{Batch, BatchFull};
pub use chunk::Chunk;
pub use completion::{Completion, End, Remote, SendError};
pub use config::Config;
pub use driver::{Driver, DriverError, Key, SendMode, TableFull};
pub use epoll::Epoll;
pub use open::{AnyDriver, Choice, Fallback, Opened, UnknownChoice, open};
pub use pool::{BufferPool, Lease, Shared, Slice};
pub use precedence::prefer_short_slices;
pub use prefetch::prefetch;
pub use startup::unmap_code;
pub use stats::DriverStats;
pub use uring::{Unsupported, Uring};
