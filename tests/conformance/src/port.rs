//! Free ports.

use std::collections::HashSet;
use std::io;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex};

/// A port that was free a moment ago and that no other scenario of this run has been given.
///
/// Somebody else may take it before the process it is meant for does: such a scenario is run
/// again (see [`crate::suite`]).
pub(crate) fn free() -> io::Result<u16> {
    loop {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut given = GIVEN.lock().expect("nobody panics over a set of ports");
        if given.len() > PORTS_REMEMBERED_MAX {
            given.clear();
        }
        if given.insert(port) {
            return Ok(port);
        }
    }
}

/// Whether a process said that its port was taken.
pub(crate) fn is_taken_message(output: &str) -> bool {
    output.contains("EADDRINUSE") || output.to_ascii_lowercase().contains("address already in use")
}

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// Well below the number of ephemeral ports, so that the search always ends.
const PORTS_REMEMBERED_MAX: usize = 4096;
