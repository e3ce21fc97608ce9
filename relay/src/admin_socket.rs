//! The operator's own door, before it is opened.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};
use relay_controller::AdminSocket;

use crate::config::AdminListen;
use crate::unix_socket::{self, SocketFile};

/// Binds it; with the file that is to be removed at the end, if it has one.
///
/// Errors: it cannot be bound; somebody answers at the path already.
pub(crate) fn bind(listen: &AdminListen) -> Result<(AdminSocket, Option<SocketFile>)> {
    let named = || format!("RELAY_ADMIN_LISTEN: cannot listen on {listen}");
    match listen {
        AdminListen::Tcp(address) => {
            let socket = TcpListener::bind(address.as_str()).with_context(named)?;
            Ok((AdminSocket::Tcp(socket), None))
        }
        AdminListen::Unix(path) => {
            let (socket, file) = unix_socket::bind(path, MODE).with_context(named)?;
            Ok((AdminSocket::Unix(UnixListener::from(socket)), Some(file)))
        }
    }
}

/// Who may connect: the relay's user and group.
const MODE: u32 = 0o660;
