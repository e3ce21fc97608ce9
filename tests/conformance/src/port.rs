//! Free ports.

use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that was free a moment ago and that no other scenario of this run has been given.
///
/// It lies below the ports that the kernel hands out by itself, so neither a server that asked for
/// any port nor an outgoing connection takes it before the relay it is meant for does. Another
/// program may: such a scenario is run again (see [`crate::suite`]).
///
/// Errors: every port of the range is taken.
pub(crate) fn free() -> io::Result<u16> {
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in PORTS {
        let port = PORTS.start + (NEXT.fetch_add(1, Ordering::Relaxed) % count()) as u16;
        // Round numbers stand in texts for other things than ports.
        if port.is_multiple_of(100) {
            continue;
        }
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => taken = error,
        }
    }
    Err(taken)
}

/// Whether a process said that its port was taken.
pub(crate) fn is_taken_message(output: &str) -> bool {
    output.contains("EADDRINUSE") || output.to_ascii_lowercase().contains("address already in use")
}

/// Two runs at once begin at different places.
static NEXT: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(977)));

/// Below Linux's ephemeral ports (`net.ipv4.ip_local_port_range`, from 32768).
const PORTS: Range<u16> = 21_000..32_000;

fn count() -> u32 {
    u32::from(PORTS.end - PORTS.start)
}
