//! One connection to the platform.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::answer::{Answer, Delivery};
use super::state::{LoggedRequest, State};
use crate::http_message::{Body, Head};
use crate::watched::{Deadline, Watched};

/// Answers requests until the peer or the platform ends the connection.
pub(crate) fn serve(socket: TcpStream, state: &Watched<State>, tls: Option<Arc<ServerConfig>>) {
    let Ok(closer) = socket.try_clone() else {
        return;
    };
    let _ = socket.set_nodelay(true);
    // What goes wrong on a connection shows in what the relay makes of it.
    let _ = match tls {
        None => answer_requests(socket, state, None),
        Some(config) => serve_tls(socket, state, config),
    };
    // The platform holds the socket too, so dropping it does not close the connection.
    let _ = closer.shutdown(Shutdown::Both);
}

fn serve_tls(
    mut socket: TcpStream,
    state: &Watched<State>,
    config: Arc<ServerConfig>,
) -> io::Result<()> {
    let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        if connection.complete_io(&mut socket)? == (0, 0) {
            return Ok(());
        }
    }
    let presented = connection.peer_certificates().is_some();
    let certificate = if presented { "valid" } else { "none" };
    answer_requests(StreamOwned::new(connection, socket), state, Some(certificate))
}

fn answer_requests(
    mut stream: impl Read + Write,
    state: &Watched<State>,
    certificate: Option<&str>,
) -> io::Result<()> {
    let mut received = Vec::new();
    while let Some(mut request) = read_request(&mut stream, &mut received)? {
        if let Some(certificate) = certificate {
            let header = ("client-certificate".to_owned(), certificate.to_owned());
            request.head.headers.insert(0, header);
        }
        let keep = keeps_alive(&request);
        state.update(|state| state.log(request.clone()));
        let answer = Answer::to(&request, state);
        wait_for_stop(state, answer.delay_ms);
        if !deliver(&mut stream, state, &answer, keep)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one request; `None` when the peer has ended the connection.
fn read_request(
    stream: &mut impl Read,
    received: &mut Vec<u8>,
) -> io::Result<Option<LoggedRequest>> {
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some((head, head_bytes)) = Head::parse(received) {
            let body = Body::read(&received[head_bytes..], head.request_body(), false);
            if body.complete {
                received.drain(..head_bytes + body.wire_bytes);
                return Ok(Some(logged(head, &body.bytes)));
            }
        }
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Ok(None);
        }
        received.extend_from_slice(&chunk[..length]);
    }
}

fn logged(head: Head, body: &[u8]) -> LoggedRequest {
    let mut words = head.first_line.split(' ').map(str::to_owned);
    LoggedRequest {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        body: String::from_utf8_lossy(body).into_owned(),
        head,
    }
}

fn keeps_alive(request: &LoggedRequest) -> bool {
    let wish = request.head.header("connection").unwrap_or_default();
    request.head.first_line.ends_with("HTTP/1.1") && !wish.eq_ignore_ascii_case("close")
}

/// Writes an answer; whether the connection goes on.
fn deliver(
    stream: &mut impl Write,
    state: &Watched<State>,
    answer: &Answer,
    keep: bool,
) -> io::Result<bool> {
    match &answer.body {
        Delivery::Whole(text) => {
            let mut bytes = head(answer, &content_length(text.len()), keep);
            bytes.extend(text.as_bytes());
            write(stream, &bytes)?;
            return Ok(keep);
        }
        Delivery::Dripping { text, every_ms } => {
            let chunked = ("transfer-encoding".to_owned(), "chunked".to_owned());
            write(stream, &head(answer, &chunked, keep))?;
            for character in text.chars() {
                wait_for_stop(state, *every_ms);
                let chunk = format!("{:x}\r\n{character}\r\n", character.len_utf8());
                write(stream, chunk.as_bytes())?;
            }
            write(stream, b"0\r\n\r\n")?;
            return Ok(keep);
        }
        Delivery::Stalled => {
            let mut bytes = head(answer, &content_length(PRETENDED_BYTES), keep);
            bytes.push(b'{');
            write(stream, &bytes)?;
            wait_for_stop(state, FOREVER_MS);
        }
        Delivery::Cut => {
            let mut bytes = head(answer, &content_length(PRETENDED_BYTES), keep);
            bytes.extend(b"{\"ok\":true");
            write(stream, &bytes)?;
            wait_for_stop(state, CUT_MS);
        }
        Delivery::Hanging => wait_for_stop(state, FOREVER_MS),
        Delivery::Dropped => {}
    }
    Ok(false)
}

fn head(answer: &Answer, framing: &(String, String), keep: bool) -> Vec<u8> {
    let connection = if keep { "keep-alive" } else { "close" };
    let mut text = format!("HTTP/1.1 {} {}\r\n", answer.status, reason_phrase(answer.status));
    for (name, value) in answer.headers.iter().chain([framing]) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("connection: {connection}\r\n\r\n"));
    text.into_bytes()
}

fn content_length(length: usize) -> (String, String) {
    ("content-length".to_owned(), length.to_string())
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        500 => "Internal Server Error",
        _ => "Status",
    }
}

fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

/// Lets time pass, unless the platform is stopped meanwhile.
fn wait_for_stop(state: &Watched<State>, ms: u64) {
    if ms > 0 {
        state.wait(Deadline::after_ms(ms), |state| state.stopped.then_some(()));
    }
}

/// What a body that never comes whole is said to be long.
const PRETENDED_BYTES: usize = 100;
const CUT_MS: u64 = 40;

/// Longer than any scenario.
const FOREVER_MS: u64 = 3_600_000;
