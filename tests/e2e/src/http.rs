//! The smallest HTTP client: one GET, one answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks a relay on loopback, with a bearer token if there is one.
pub fn get(port: u16, target: &str, bearer: Option<&str>) -> Result<Answer> {
    get_at((Ipv4Addr::LOCALHOST, port).into(), target, bearer)
}

/// Asks a relay at any address.
///
/// Errors: nobody listens, the answer is no HTTP, or there is none within ten seconds.
pub fn get_at(relay: SocketAddr, target: &str, bearer: Option<&str>) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&relay, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let authorization =
        bearer.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n{authorization}\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer has a head")?;
    let status = head.split(' ').nth(1).context("a status line has a status")?;
    Ok(Answer { status: status.parse()?, body: body.to_owned() })
}

/// How long a relay may take to answer before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);
