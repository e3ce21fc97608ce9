//! Names, and the addresses behind them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

use super::finding::Finding;

/// Resolves the host of a URL and opens a connection to it, which is closed again.
///
/// Errors: the finding that says how far it came, naming `variable`.
pub(crate) async fn reach(
    check: &'static str,
    variable: &str,
    url: &Url,
    patience: Duration,
) -> Result<(), Finding> {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        let found = format!("{variable} has no host");
        return Err(Finding::fail(check, found, "an http or https URL with a host"));
    };
    // An address of version 6 stands in brackets.
    let host = host.trim_matches(['[', ']']);
    reach_host(check, variable, host, port, patience).await
}

/// As [`reach`], for a host and a port.
pub(crate) async fn reach_host(
    check: &'static str,
    variable: &str,
    host: &str,
    port: u16,
    patience: Duration,
) -> Result<(), Finding> {
    let addresses: Vec<SocketAddr> = match timeout(patience, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            return Err(Finding::fail(
                check,
                format!("the name {host} in {variable} does not resolve: {error}"),
                format!(
                    "the right host in {variable}, or a name server that knows it (getent \
                         hosts {host})"
                ),
            ));
        }
        Err(_) => {
            return Err(Finding::fail(
                check,
                format!("no name server answers for {host} within {} ms", patience.as_millis()),
                "a name server that can be reached, in /etc/resolv.conf",
            ));
        }
    };
    match timeout(patience, TcpStream::connect(&*addresses)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refused(check, variable, host, port, &error)),
        Err(_) => Err(Finding::fail(
            check,
            format!("{host}:{port} does not answer within {} ms", patience.as_millis()),
            format!("let this machine reach port {port} there: a firewall drops it"),
        )),
    }
}

fn refused(
    check: &'static str,
    variable: &str,
    host: &str,
    port: u16,
    error: &io::Error,
) -> Finding {
    let remedy = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("start what should listen there, or mend {variable}")
        }
        _ => format!("a route from this machine to {host}, port {port}"),
    };
    Finding::fail(check, format!("{host}:{port} takes no connection: {error}"), remedy)
}
