//! The smallest HTTP client: one request, one answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

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
///
/// Where shards have to be asked, 503 means that one was silent for a second, as happens on a busy
/// machine: it is asked again for a while.
pub fn get(port: u16, target: &str, bearer: Option<&str>) -> Result<Answer> {
    let deadline = Instant::now() + SILENCE_MAX;
    loop {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let answer = get_over(stream, target, bearer)?;
        let is_late = answer.status == 503 && OF_SHARDS.contains(&target);
        if !is_late || Instant::now() >= deadline {
            return Ok(answer);
        }
    }
}

/// The same over a connection that stands already, which ends with the answer.
pub fn get_over(stream: impl Read + Write, target: &str, bearer: Option<&str>) -> Result<Answer> {
    let authorization =
        bearer.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n{authorization}\r\n");
    ask(stream, &request)
}

/// Asks for an upgrade that is bound to be refused, for want of a good token; `headers` are whole
/// lines. Returns the status, and does not wait for the end: a proxy may keep the connection.
pub fn refused_upgrade(mut stream: impl Read + Write, headers: &str) -> Result<u16> {
    let request = format!(
        "GET /ws?role=client&workspaceId=ws1 HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer not-a-good-token\r\n\
         {headers}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    status_of(&line)
}

/// Asks for an upgrade as a client of `ws1`, from one of this host's loopback addresses. Returns
/// the status; the connection ends with the call.
pub fn upgrade_from(source: Ipv4Addr, port: u16, token: &str) -> Result<u16> {
    Ok(upgraded_from(source, port, token)?.0)
}

/// The same, with the connection. What came right behind the status is lost.
pub fn upgraded_from(source: Ipv4Addr, port: u16, token: &str) -> Result<(u16, TcpStream)> {
    let mut socket = connect_from(source, port)?;
    write!(
        socket,
        "GET /ws?role=client&workspaceId=ws1&runtimeTargetId=rt1 HTTP/1.1\r\nHost: relay\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
    )?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    Ok((status_of(&line)?, socket))
}

/// Connects to a port of this host from one of its loopback addresses.
pub fn connect_from(source: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
    let socket = rustix::net::socket(family, kind, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket.into())
}

/// Sends a request and reads its answer until the other end closes.
pub fn ask(mut stream: impl Read + Write, request: &str) -> Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer has a head")?;
    Ok(Answer { status: status_of(head)?, body: body.to_owned() })
}

fn status_of(head: &str) -> Result<u16> {
    let status = head.split(' ').nth(1).context("a status line has a status")?;
    Ok(status.parse()?)
}

/// How long a relay may take to answer before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long shards may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What shards have to answer.
const OF_SHARDS: [&str; 3] = ["/metrics", "/state", "/node"];
