//! The smallest HTTP client: one GET, one answer.

use std::io::{Read, Write};
use std::net::TcpStream;

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
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
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
