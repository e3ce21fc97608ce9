//! Whether the places to listen at can be had.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};

use super::finding::Finding;
use crate::config::{AdminListen, Listen};

/// Every place that is configured. A relay that holds one already is as good as a free place.
pub(crate) fn check(listen: &Listen, admin: Option<&AdminListen>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if listen.over_tcp {
        let Listen { host, port, .. } = listen;
        // An IPv6 address needs brackets before its port.
        let shown = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        findings.push(tcp("port", "HOST or RELAY_LISTEN_PORT", &shown));
    }
    if let Some(unix) = &listen.unix {
        findings.push(unix_socket("unix socket", "RELAY_LISTEN_UNIX", &unix.path));
    }
    findings.extend(admin.map(|admin| match admin {
        AdminListen::Tcp(address) => tcp("admin port", ADMIN, address),
        AdminListen::Unix(path) => unix_socket("admin socket", ADMIN, path),
    }));
    findings
}

const ADMIN: &str = "RELAY_ADMIN_LISTEN";

/// Binds a port for a moment.
fn tcp(check: &'static str, variable: &str, place: &str) -> Finding {
    let addresses: Vec<SocketAddr> = match place.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            return Finding::fail(
                check,
                format!("{place} has no address and no known name ({error})"),
                format!("{variable} with 0.0.0.0, 127.0.0.1 or an address of this machine"),
            );
        }
    };
    let Err(error) = TcpListener::bind(&*addresses) else {
        return Finding::ok(check, format!("{place} is free"));
    };
    match error.kind() {
        ErrorKind::AddrInUse => match addresses.first().is_some_and(|at| is_relay(*at)) {
            true => Finding::ok(check, format!("{place} is held by a relay that answers")),
            false => Finding::fail(
                check,
                format!("{place} is in use, and no relay answers there without TLS"),
                format!(
                    "stop what holds it (ss -ltnp shows it), or another {variable}; a relay with \
                     TLS that runs already is no problem"
                ),
            ),
        },
        ErrorKind::PermissionDenied => Finding::fail(
            check,
            format!("{place} needs a privilege"),
            format!(
                "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, sysctl -w \
                 net.ipv4.ip_unprivileged_port_start=0, or another {variable}: ports above 1023 \
                 need none"
            ),
        ),
        ErrorKind::AddrNotAvailable => Finding::fail(
            check,
            format!("{place} is no address of this machine"),
            format!("{variable} with 0.0.0.0 for every address; ip address lists them"),
        ),
        _ => Finding::fail(
            check,
            format!("{place} cannot be bound: {error}"),
            format!("another {variable}"),
        ),
    }
}

/// Whether a socket file can be made, or a relay answers at the one that is there.
fn unix_socket(check: &'static str, variable: &str, path: &Path) -> Finding {
    let shown = path.display();
    if let Ok(socket) = UnixStream::connect(path) {
        return match says_relay(health_at_file(socket)) {
            true => Finding::ok(check, format!("{shown} is held by a relay that answers")),
            false => Finding::fail(
                check,
                format!("{shown} is in use, and no relay answers there"),
                format!("stop what holds it (ss -lxp shows it), or another {variable}"),
            ),
        };
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match access(folder.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(check, format!("{shown} can be made")),
        Err(error) => Finding::fail(
            check,
            format!("{shown} cannot be made in its directory: {error}"),
            format!(
                "a directory this user may write to (RuntimeDirectory=relay in the unit makes \
                 /run/relay), or another {variable}"
            ),
        ),
    }
}

/// Whether whoever listens there says of itself that it is a relay.
fn is_relay(address: SocketAddr) -> bool {
    says_relay(health_at(address))
}

fn says_relay(answer: io::Result<String>) -> bool {
    answer.is_ok_and(|answer| answer.contains("\"service\":\"relay\""))
}

fn health_at(mut address: SocketAddr) -> io::Result<String> {
    // Nobody can be reached at "every address".
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    health(socket)
}

fn health_at_file(socket: UnixStream) -> io::Result<String> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    health(socket)
}

/// The answer to `/health`, as far as it fits.
fn health(mut socket: impl Read + Write) -> io::Result<String> {
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 1024];
    let mut len = 0;
    // Each read has its deadline; whoever drips is no relay.
    for _ in 0..READS_MAX {
        match socket.read(&mut answer[len..]) {
            Ok(0) => break,
            Ok(received) => len += received,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What came before a reset counts.
            Err(_) if len > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
}

/// An answer comes in one piece or two.
const READS_MAX: u32 = 8;

/// How long a neighbour on this machine may take for each step.
const TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::finding::Verdict;
    use super::*;
    use crate::config::UnixSocket;

    fn listen(host: &str, port: u16) -> Listen {
        Listen { host: host.to_owned(), port, ..Listen::sample() }
    }

    fn of_port(listen: &Listen) -> Finding {
        check(listen, None).swap_remove(0)
    }

    fn of_socket(path: &Path) -> Finding {
        let unix = Some(UnixSocket { path: path.to_owned(), mode: 0o660 });
        let mut findings = check(&Listen { unix, over_tcp: false, ..Listen::sample() }, None);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.swap_remove(0)
    }

    #[test]
    fn a_socket_file_needs_a_directory_and_nobody_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("relay.sock");
        assert_eq!(of_socket(&path).verdict, Verdict::Ok);
        let missing = of_socket(&dir.path().join("none/relay.sock"));
        assert_eq!(missing.verdict, Verdict::Fail);
        assert!(missing.remedy.expect("a remedy").contains("RuntimeDirectory"));
        let other = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let answers = thread::spawn(move || drop(other.accept()));
        assert_eq!(of_socket(&path).verdict, Verdict::Fail);
        answers.join().expect("asked once");
    }

    #[test]
    fn the_operators_own_door_is_checked_like_the_others() {
        let listen = Listen { over_tcp: false, ..Listen::sample() };
        let other = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = other.local_addr().expect("an address").to_string();
        let answers = thread::spawn(move || drop(other.accept()));
        let finding = check(&listen, Some(&AdminListen::Tcp(address))).swap_remove(0);
        assert_eq!((finding.check, finding.verdict), ("admin port", Verdict::Fail));
        assert!(finding.remedy.expect("a remedy").contains("RELAY_ADMIN_LISTEN"));
        answers.join().expect("asked once");
        let path = Path::new("/nonexistent/admin.sock").to_owned();
        let finding = check(&listen, Some(&AdminListen::Unix(path))).swap_remove(0);
        assert_eq!((finding.check, finding.verdict), ("admin socket", Verdict::Fail));
    }

    #[test]
    fn a_free_port_is_fine_and_stays_free() {
        let finding = of_port(&listen("127.0.0.1", 0));
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    }

    #[test]
    fn a_port_somebody_else_holds_is_a_failure() {
        let other = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = other.local_addr().expect("an address").port();
        let answers = thread::spawn(move || drop(other.accept()));
        let finding = of_port(&listen("127.0.0.1", port));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.remedy.expect("a remedy").contains("RELAY_LISTEN_PORT"));
        answers.join().expect("asked once");
    }

    #[test]
    fn a_relay_that_holds_the_port_is_fine() {
        let relay = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = relay.local_addr().expect("an address").port();
        let answers = thread::spawn(move || {
            let (mut socket, _) = relay.accept().expect("asked");
            let body = r#"{"ok":true,"service":"relay","uptimeMs":1}"#;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            socket.write_all(format!("{head}{body}").as_bytes()).expect("answered");
            // Reading to the end keeps the answer from being overtaken by a reset.
            socket.shutdown(std::net::Shutdown::Write).expect("ended");
            let _ = socket.read_to_end(&mut Vec::new());
        });
        let finding = of_port(&listen("127.0.0.1", port));
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
        answers.join().expect("asked once");
    }

    #[test]
    fn an_address_of_another_machine_is_a_failure() {
        let finding = of_port(&listen("192.0.2.1", 7781));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.found.contains("no address of this machine"), "{finding:?}");
    }
}
