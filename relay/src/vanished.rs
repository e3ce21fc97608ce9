//! What ends connections whose peer has vanished: a machine that lost power, a network that lost
//! its way.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};

use crate::config::TcpPatience;

/// Has the kernel look after every connection that this listener will accept: Linux copies these
/// options to accepted sockets, so it costs no system call per connection. A listener that is not
/// TCP is left as it is.
///
/// A closed window counts as unacknowledged bytes, so a reader that takes nothing at all ends by
/// the same patience; the relay's own budget for slow readers usually ends it before.
///
/// Source: tcp(7), `TCP_KEEPIDLE` and `TCP_USER_TIMEOUT`.
pub(crate) fn look_out(listener: impl AsFd, patience: &TcpPatience) -> io::Result<()> {
    let domain = sockopt::socket_domain(&listener)?;
    if domain != AddressFamily::INET && domain != AddressFamily::INET6 {
        return Ok(());
    }
    let idle = patience.keepalive.clamp(Duration::from_secs(1), KEEPALIVE_MAX);
    let between = (idle / KEEPALIVE_PROBES).max(Duration::from_secs(1));
    sockopt::set_socket_keepalive(&listener, true)?;
    sockopt::set_tcp_keepidle(&listener, idle)?;
    sockopt::set_tcp_keepintvl(&listener, between)?;
    sockopt::set_tcp_keepcnt(&listener, KEEPALIVE_PROBES)?;
    let unacknowledged = u32::try_from(patience.unacknowledged.as_millis());
    let unacknowledged = unacknowledged.unwrap_or(USER_TIMEOUT_MS_MAX).min(USER_TIMEOUT_MS_MAX);
    sockopt::set_tcp_user_timeout(&listener, unacknowledged)?;
    Ok(())
}

/// Unanswered questions after which the peer is gone: together they take as long as the silence
/// before the first.
const KEEPALIVE_PROBES: u32 = 4;

/// The kernel's longest: `MAX_TCP_KEEPIDLE`.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

/// The kernel keeps it as a signed integer.
const USER_TIMEOUT_MS_MAX: u32 = i32::MAX as u32;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    use super::*;

    const PATIENCE: TcpPatience = TcpPatience {
        keepalive: Duration::from_secs(44),
        unacknowledged: Duration::from_millis(33_000),
    };

    fn accepted(address: SocketAddr, patience: &TcpPatience) -> TcpStream {
        let listener = TcpListener::bind(address).expect("loopback");
        look_out(&listener, patience).expect("TCP has these options");
        let _peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        listener.accept().expect("somebody connected").0
    }

    #[test]
    fn accepted_sockets_inherit_keepalive_and_user_timeout() {
        for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let socket = accepted(SocketAddr::new(address, 0), &PATIENCE);
            assert!(sockopt::socket_keepalive(&socket).expect("an option"));
            assert_eq!(sockopt::tcp_keepidle(&socket).expect("an option"), PATIENCE.keepalive);
            let between = sockopt::tcp_keepintvl(&socket).expect("an option");
            assert_eq!(between, Duration::from_secs(11));
            assert_eq!(sockopt::tcp_keepcnt(&socket).expect("an option"), 4);
            assert_eq!(sockopt::tcp_user_timeout(&socket).expect("an option"), 33_000);
        }
    }

    #[test]
    fn endless_patience_is_as_long_as_the_kernel_has_it() {
        let endless = TcpPatience { keepalive: Duration::MAX, unacknowledged: Duration::MAX };
        let socket = accepted(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &endless);
        assert_eq!(sockopt::tcp_keepidle(&socket).expect("an option"), KEEPALIVE_MAX);
        assert_eq!(sockopt::tcp_user_timeout(&socket).expect("an option"), USER_TIMEOUT_MS_MAX);
    }

    #[test]
    fn a_unix_listener_is_left_alone() {
        let path = std::env::temp_dir().join(format!("relay-vanished-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a free name");
        let looked_out = look_out(&listener, &PATIENCE);
        std::fs::remove_file(&path).expect("it was just made");
        looked_out.expect("no TCP option is asked of it");
    }
}
