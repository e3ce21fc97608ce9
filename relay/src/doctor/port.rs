//! Whether the places to listen at can be had.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::SocketAddrUnix;

use super::finding::Finding;
use super::folder;
use super::neighbour::{self, Holder, Manner};
use crate::config::{AdminListen, Config, ControlListen, Role};

/// Every place that this role listens at. A relay that holds one already is as good as a free
/// place.
pub(crate) fn check(config: &Config) -> Vec<Finding> {
    let role = config.control.role;
    let mut places = Places::default();
    if role.moves_frames() {
        places.of_peers(config);
    }
    if role.decides() {
        places.of_operators(config);
    }
    if role == Role::ControlPlane {
        places.of_data_planes(config);
    }
    places.findings
}

/// What was found so far.
#[derive(Default)]
struct Places {
    findings: Vec<Finding>,
    /// Whether a relay answered at one of them.
    is_running: bool,
}

/// A place, as it is called in the report and in the configuration.
#[derive(Clone, Copy)]
struct Named {
    check: &'static str,
    variable: &'static str,
}

/// Who might answer there.
#[derive(Clone, Copy)]
enum Speaks<'a> {
    /// `/health` is answered.
    Http(Manner<'a>),
    /// gRPC, where nothing is said to strangers.
    Grpc,
}

impl Places {
    fn of_peers(&mut self, config: &Config) {
        let (listen, capacity) = (&config.listen, &config.capacity);
        let proxies = capacity.proxy_protocol.then_some(&capacity.trusted_proxies);
        let speaks = Speaks::Http(Manner { tls: listen.tls.enabled, proxies });
        if listen.over_tcp {
            let (host, port) = (&listen.host, listen.port);
            // An IPv6 address needs brackets before its port.
            let shown = match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            };
            let named = Named { check: "port", variable: "HOST or RELAY_LISTEN_PORT" };
            self.tcp(named, &shown, speaks);
        }
        if let Some(unix) = &listen.unix {
            let named = Named { check: "unix socket", variable: "RELAY_LISTEN_UNIX" };
            self.unix(named, &unix.path, speaks);
        }
    }

    fn of_operators(&mut self, config: &Config) {
        let places = [
            (
                &config.admin.listen,
                ["admin port", "admin socket"],
                "RELAY_ADMIN_LISTEN",
                Speaks::Http(Manner::default()),
            ),
            (
                &config.control_api.listen,
                ["control API port", "control API socket"],
                "RELAY_CONTROL_API_LISTEN",
                Speaks::Grpc,
            ),
        ];
        for (listen, [port, socket], variable, speaks) in places {
            match listen {
                Some(AdminListen::Tcp(address)) => {
                    self.tcp(Named { check: port, variable }, address, speaks);
                }
                Some(AdminListen::Unix(path)) => {
                    self.unix(Named { check: socket, variable }, path, speaks);
                }
                None => {}
            }
        }
    }

    fn of_data_planes(&mut self, config: &Config) {
        let variable = "RELAY_CONTROL_LISTEN";
        match &config.control.listen {
            Some(ControlListen::Tcp(address)) => {
                let named = Named { check: "control port", variable };
                self.tcp(named, &address.to_string(), Speaks::Grpc);
            }
            Some(ControlListen::Unix(path)) => {
                self.unix(Named { check: "control socket", variable }, path, Speaks::Grpc);
            }
            None => {}
        }
    }

    /// Binds a port for a moment.
    fn tcp(&mut self, named: Named, place: &str, speaks: Speaks<'_>) {
        let finding = match place.to_socket_addrs() {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.collect();
                match TcpListener::bind(&*addresses) {
                    Ok(_) => Finding::ok(named.check, format!("{place} is free")),
                    Err(error) if error.kind() == ErrorKind::AddrInUse => {
                        let holder = |manner| match addresses.first() {
                            Some(address) => neighbour::at_address(*address, manner),
                            None => Holder::Other,
                        };
                        self.held(named, place, "ss -ltnp", speaks, holder)
                    }
                    Err(error) => not_bound(named, place, &error),
                }
            }
            Err(error) => Finding::fail(
                named.check,
                format!("{place} has no address and no known name ({error})"),
                format!("{} with 0.0.0.0, 127.0.0.1 or an address of this machine", named.variable),
            ),
        };
        self.findings.push(finding);
    }

    /// Whether a socket file can be made as the relay makes it, or a relay answers at the one that
    /// is there.
    fn unix(&mut self, named: Named, path: &Path, speaks: Speaks<'_>) {
        let Named { check, variable } = named;
        let shown = path.display();
        let finding = match fs::symlink_metadata(path) {
            _ if SocketAddrUnix::new(path).is_err() => Finding::fail(
                check,
                format!("{shown} is longer than the 107 bytes of a socket's path"),
                format!("a shorter {variable}"),
            ),
            Ok(found) if !found.file_type().is_socket() => Finding::fail(
                check,
                format!("{shown} is there and is no socket, which the relay does not replace"),
                format!("move it away, or another {variable}"),
            ),
            Ok(_) => match UnixStream::connect(path) {
                Ok(socket) => {
                    let holder = |manner| neighbour::at_file(socket, manner);
                    self.held(named, &shown.to_string(), "ss -lxp", speaks, holder)
                }
                // One that was left behind is replaced.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => makeable(named, path),
                Err(error) => Finding::fail(
                    check,
                    format!("{shown} does not tell whether somebody listens there: {error}"),
                    format!("the user that made it, or another {variable}"),
                ),
            },
            Err(_) => makeable(named, path),
        };
        self.findings.push(finding);
    }

    /// A place that somebody has.
    fn held<'a>(
        &mut self,
        Named { check, variable }: Named,
        place: &str,
        tool: &str,
        speaks: Speaks<'a>,
        holder: impl FnOnce(Manner<'a>) -> Holder,
    ) -> Finding {
        let remedy = format!(
            "nothing, if that is the relay that runs already; else stop what holds it ({tool} \
             shows it), or another {variable}"
        );
        let manner = match speaks {
            Speaks::Http(manner) => manner,
            // A relay that runs with this configuration has all of its places.
            Speaks::Grpc if self.is_running => {
                let found = format!("{place} is held, as by the relay that runs here");
                return Finding::ok(check, found);
            }
            Speaks::Grpc => {
                let found = format!("{place} is in use, and does not tell strangers by whom");
                return Finding::warn(check, found, remedy);
            }
        };
        match holder(manner) {
            Holder::Relay => {
                self.is_running = true;
                Finding::ok(check, format!("{place} is held by a relay that answers"))
            }
            Holder::AsksCertificate => Finding::warn(
                check,
                format!("{place} is in use, and nobody without a certificate is told by whom"),
                remedy,
            ),
            Holder::Other => Finding::fail(
                check,
                format!("{place} is in use, and no relay answers there"),
                format!("stop what holds it ({tool} shows it), or another {variable}"),
            ),
        }
    }
}

/// Why a port cannot be had that nobody else has.
fn not_bound(Named { check, variable }: Named, place: &str, error: &io::Error) -> Finding {
    match error.kind() {
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

/// Whether this user may make a file there.
fn makeable(Named { check, variable }: Named, path: &Path) -> Finding {
    let shown = path.display();
    match folder::can_be_written(path) {
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

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
