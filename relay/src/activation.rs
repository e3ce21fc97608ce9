//! Sockets that a service manager opened for us: systemd's socket activation.
//!
//! Source: sd_listen_fds(3). The manager says in `LISTEN_PID` for whom, in `LISTEN_FDS` how many,
//! and in `LISTEN_FDNAMES` under which names; the descriptors begin with 3.

use anyhow::{Context, Result, anyhow};
use listenfd::ListenFd;
use rustix::process::getpid;

use crate::listener::Listener;

/// Takes every socket that was handed over to this process; none when nothing was.
///
/// To be called once and while the process has one thread: the variables are removed, so that no
/// child takes them for its own.
///
/// Errors: names the descriptor that is no listening socket of TCP or the Unix family.
pub(crate) fn take_sockets() -> Result<Vec<Listener>> {
    let read = |name| std::env::var(name).ok();
    let own = getpid().as_raw_nonzero().to_string();
    // The library would take descriptors without a process id as well.
    if read("LISTEN_PID").is_none_or(|pid| pid != own) {
        return Ok(Vec::new());
    }
    let names = read("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    (0..handed.len())
        .map(|index| {
            let name = names.split(':').nth(index).filter(|name| !name.is_empty());
            let name = name.unwrap_or("unnamed");
            take(&mut handed, index)
                .with_context(|| format!("descriptor {} ({name:?}) of LISTEN_FDS", 3 + index))
        })
        .collect()
}

fn take(handed: &mut ListenFd, index: usize) -> Result<Listener> {
    // A descriptor of another family stays in its place.
    let socket = match handed.take_tcp_listener(index) {
        Ok(listener) => listener.map(Into::into),
        Err(_) => handed.take_unix_listener(index)?.map(Into::into),
    };
    Listener::handed(socket.ok_or_else(|| anyhow!("taken already"))?)
}
