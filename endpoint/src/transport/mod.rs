//! The ends on real sockets: one thread each, blocking calls for users, reconnects by itself.

mod address;
mod bell;
mod client;
mod daemon;
mod inbox;
mod link;
mod socket;

pub use address::{AddressError, RelayAddress, Trust};
pub use client::{Client, ClientConfig, Received, RecvError, SendError, StartError};
pub use daemon::{Daemon, DaemonConfig, DaemonSender, Handler, Replies};
pub use socket::LinkError;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;
use relay_contract::Tick;

use crate::moment::Moment;

/// Both clocks, for one thread.
#[derive(Clone, Copy)]
struct Clock {
    origin: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { origin: Instant::now() }
    }

    fn now(self) -> Moment {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = since_1970.map_or(0, |since| since.as_millis());
        Moment {
            tick: Tick::default().after(self.origin.elapsed()),
            unix_ms: u64::try_from(unix_ms).unwrap_or(u64::MAX),
        }
    }
}

/// A generator of this thread's own, seeded by the operating system.
fn entropy() -> Result<StdRng, getrandom::Error> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut())?;
    Ok(StdRng::from_seed(*seed))
}
