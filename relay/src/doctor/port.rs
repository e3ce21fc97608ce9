//! Whether the port can be had.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::finding::Finding;
use crate::config::Listen;

/// Binds the port for a moment. A relay that holds it already is as good as a free port.
pub(crate) fn check(listen: &Listen) -> Finding {
    const CHECK: &str = "port";
    let Listen { host, port, .. } = listen;
    let addresses: Vec<SocketAddr> = match (host.as_str(), *port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            return Finding::fail(
                CHECK,
                format!("HOST={host} is no address and no known name ({error})"),
                "HOST=0.0.0.0, HOST=127.0.0.1 or an address of this machine",
            );
        }
    };
    let Err(error) = TcpListener::bind(&*addresses) else {
        return Finding::ok(CHECK, format!("{host}:{port} is free"));
    };
    match error.kind() {
        ErrorKind::AddrInUse => match addresses.first().is_some_and(|at| is_relay(*at)) {
            true => Finding::ok(CHECK, format!("{host}:{port} is held by a relay that answers")),
            false => Finding::fail(
                CHECK,
                format!("{host}:{port} is in use, and no relay answers there without TLS"),
                format!(
                    "stop what holds it (ss -ltnp 'sport = :{port}'), or another \
                     RELAY_LISTEN_PORT; a relay with TLS that runs already is no problem"
                ),
            ),
        },
        ErrorKind::PermissionDenied => Finding::fail(
            CHECK,
            format!("{host}:{port} needs a privilege"),
            "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, sysctl -w \
             net.ipv4.ip_unprivileged_port_start=0, or a RELAY_LISTEN_PORT above 1023",
        ),
        ErrorKind::AddrNotAvailable => Finding::fail(
            CHECK,
            format!("HOST={host} is no address of this machine"),
            "HOST=0.0.0.0 for every address; ip address lists them",
        ),
        _ => Finding::fail(
            CHECK,
            format!("{host}:{port} cannot be bound: {error}"),
            "another HOST or RELAY_LISTEN_PORT",
        ),
    }
}

/// Whether whoever listens there says of itself that it is a relay.
fn is_relay(address: SocketAddr) -> bool {
    health(address).is_ok_and(|answer| answer.contains("\"service\":\"relay\""))
}

fn health(mut address: SocketAddr) -> io::Result<String> {
    // Nobody can be reached at "every address".
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 1024];
    let mut len = 0;
    while len < answer.len() {
        match socket.read(&mut answer[len..])? {
            0 => break,
            received => len += received,
        }
    }
    Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
}

/// How long a neighbour on this machine may take for each step.
const TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::finding::Verdict;
    use super::*;
    use crate::config::{Config, FlagValue, Machine};

    fn listen(host: &str, port: u16) -> Listen {
        let given = |name: &str, value: &str| FlagValue {
            flag: "--set".to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let flags = [given("HOST", "127.0.0.1"), given("RELAY_LISTEN_PORT", "7781")];
        let listen = Config::parse(&flags, &Machine).expect("usable").config.listen;
        Listen { host: host.to_owned(), port, ..listen }
    }

    #[test]
    fn a_free_port_is_fine_and_stays_free() {
        let finding = check(&listen("127.0.0.1", 0));
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    }

    #[test]
    fn a_port_somebody_else_holds_is_a_failure() {
        let other = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = other.local_addr().expect("an address").port();
        let answers = thread::spawn(move || drop(other.accept()));
        let finding = check(&listen("127.0.0.1", port));
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
        let finding = check(&listen("127.0.0.1", port));
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
        answers.join().expect("asked once");
    }

    #[test]
    fn an_address_of_another_machine_is_a_failure() {
        let finding = check(&listen("192.0.2.1", 7781));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.found.contains("no address of this machine"), "{finding:?}");
    }
}
