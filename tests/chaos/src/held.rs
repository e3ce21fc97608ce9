//! Connections that a program holds at its port, as the kernel lists them.

use std::fs;

use anyhow::{Context, Result};

/// Connections of IPv4 accepted at this port that their program has not closed. One that waits in
/// the backlog, or whose end the kernel alone still sees to, belongs to nobody.
///
/// Source: proc(5), `/proc/net/tcp`.
pub(crate) fn accepted(port: u16) -> Result<usize> {
    let table = fs::read_to_string(TABLE).context(TABLE)?;
    Ok(count(&table, port))
}

fn count(table: &str, port: u16) -> usize {
    let local_end = format!(":{port:04X}");
    table.lines().skip(1).filter(|row| is_held(row, &local_end) == Some(true)).count()
}

/// Whether a row is about such a connection. `None` for what is no row.
fn is_held(row: &str, local_end: &str) -> Option<bool> {
    // sl, local, remote, state, queues, timers, retransmits, uid, timeout, inode.
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    Some(local.ends_with(local_end) && *state != LISTEN && *inode != NOBODY)
}

const TABLE: &str = "/proc/net/tcp";
const LISTEN: &str = "0A";
/// The inode of a socket that no descriptor names.
const NOBODY: &str = "0";

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_was_accepted_is_held_until_it_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let held = || accepted(address.port()).expect("the kernel lists them");
        let client = TcpStream::connect(address).expect("connected");
        assert_eq!(held(), 0, "it waits in the backlog");
        let (server, _) = listener.accept().expect("accepted");
        assert_eq!(held(), 1);
        drop(client);
        assert_eq!(held(), 1, "the client's end is not the server's");
        drop(server);
        assert_eq!(held(), 0);
    }
}
