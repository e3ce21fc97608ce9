//! Where a relay answers its operator.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use relay_contract::Secret;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use url::Url;

use super::Readings;

/// A running relay, as its operator sees it.
#[derive(Debug)]
pub(crate) struct Door {
    place: Place,
    token: Secret,
}

#[derive(Debug)]
enum Place {
    /// Host, and host with port.
    Tcp(String, String),
    Unix(PathBuf),
}

/// How long a whole answer may take: a shard that hangs is answered for after a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer. Protects memory from whoever answers in the relay's place.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of one read.
const PART_BYTES: usize = 64 << 10;
const TOKEN_VARIABLE: &str = "RELAY_ADMIN_TOKEN";

impl Door {
    /// A door at `http://host:port` or `unix:/path`. The token is in a file, or else in
    /// `RELAY_ADMIN_TOKEN` or the file that `RELAY_ADMIN_TOKEN_FILE` names.
    ///
    /// Errors: the URL is of another kind, or there is no token.
    pub(crate) fn new(url: &str, token_file: Option<&Path>) -> Result<Self> {
        Ok(Self { place: place(url)?, token: token(token_file)? })
    }

    /// All metrics of this moment.
    pub(crate) fn readings(&self) -> Result<Readings> {
        let text = self.ask("/metrics")?;
        Readings::parse(&text).context("/metrics is not what a relay answers")
    }

    /// The body of an answer.
    ///
    /// Errors: nobody is there, or the answer is anything but 200.
    pub(crate) fn ask(&self, target: &str) -> Result<String> {
        let shown = match &self.place {
            Place::Tcp(_, authority) => format!("http://{authority}{target}"),
            Place::Unix(path) => format!("{target} at {}", path.display()),
        };
        let deadline = Instant::now() + PATIENCE;
        let answer = match &self.place {
            Place::Tcp(host, authority) => {
                let stream = connect(authority, deadline).with_context(|| shown.clone())?;
                self.exchange(Timed::new(stream, deadline), host, target)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).with_context(|| shown.clone())?;
                self.exchange(Timed::new(stream, deadline), "localhost", target)
            }
        };
        answer.with_context(|| shown)
    }

    fn exchange(&self, mut stream: Timed, host: &str, target: &str) -> Result<String> {
        let token = self.token.expose();
        stream.write(&format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        ))?;
        let answer = stream.read_to_end(ANSWER_BYTES_MAX)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            Some("401") => bail!("the relay refuses the token"),
            Some("404") => bail!("the relay shows nothing here: is RELAY_ENABLE_ADMIN_HTTP on?"),
            Some(status) => bail!("the relay answers {status}"),
            None => bail!("the answer is no HTTP"),
        }
    }
}

/// The first of a name's addresses that somebody listens on. Errors: those of the last.
fn connect(authority: &str, deadline: Instant) -> Result<TcpStream> {
    let mut refused = anyhow!("the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error.into(),
        }
    }
    Err(refused)
}

/// The time until then. Errors: it is over.
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    ensure!(!left.is_zero(), "no whole answer within {} s", PATIENCE.as_secs());
    Ok(left)
}

/// A stream until a moment, whatever its other end does.
struct Timed {
    stream: File,
    deadline: Instant,
}

impl Timed {
    fn new(stream: impl Into<OwnedFd>, deadline: Instant) -> Self {
        Self { stream: stream.into().into(), deadline }
    }

    /// Lets the next call last until the deadline.
    fn be_patient(&self) -> Result<()> {
        let patience = Some(left(self.deadline)?);
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&self.stream, direction, patience)?;
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            self.be_patient()?;
            let written = self.stream.write(bytes)?;
            ensure!(written > 0, "the relay reads no further");
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Errors: it is longer than `bytes_max`, no text, or not over in time.
    fn read_to_end(&mut self, bytes_max: usize) -> Result<String> {
        let mut bytes = Vec::new();
        let mut part = vec![0; PART_BYTES];
        loop {
            self.be_patient()?;
            match self.stream.read(&mut part) {
                Ok(0) => return String::from_utf8(bytes).context("the answer is no text"),
                Ok(len) => bytes.extend_from_slice(&part[..len]),
                Err(error) if is_late(&error) => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(bytes.len() <= bytes_max, "an answer of more than {} MiB", bytes_max >> 20);
        }
    }
}

/// The deadline is looked at again; a signal ends a wait early.
fn is_late(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn place(url: &str) -> Result<Place> {
    if let Some(path) = url.strip_prefix("unix:") {
        return Ok(Place::Unix(path.into()));
    }
    let url = Url::parse(url).with_context(|| format!("{url:?} is no URL"))?;
    ensure!(url.scheme() == "http", "expected http://host:port or unix:/path");
    let host = url.host_str().context("the URL names no host")?.to_owned();
    let port = url.port_or_known_default().context("the URL names no port")?;
    let authority = format!("{host}:{port}");
    Ok(Place::Tcp(host, authority))
}

fn token(file: Option<&Path>) -> Result<Secret> {
    let named = env::var_os(format!("{TOKEN_VARIABLE}_FILE")).map(PathBuf::from);
    let text = match (file, env::var(TOKEN_VARIABLE), named) {
        (Some(file), _, _) => read(file)?,
        (None, Ok(token), _) => token,
        (None, Err(_), Some(file)) => read(&file)?,
        (None, Err(_), None) => {
            return Err(anyhow!("no token: give --token-file, or set {TOKEN_VARIABLE}"));
        }
    };
    let token = text.trim();
    ensure!(!token.is_empty() && !token.contains(['\r', '\n']), "the token is no line of text");
    Ok(Secret::from(token))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_a_port_or_a_path() {
        for (url, expected) in [
            ("http://127.0.0.1:7781", Some("127.0.0.1:7781")),
            ("http://relay.corp/", Some("relay.corp:80")),
            ("http://[::1]:9", Some("[::1]:9")),
            ("https://relay.corp", None),
            ("relay.corp", None),
        ] {
            let authority = match place(url) {
                Ok(Place::Tcp(_, authority)) => Some(authority),
                Ok(Place::Unix(_)) | Err(_) => None,
            };
            assert_eq!(authority.as_deref(), expected, "{url}");
        }
        let unix = place("unix:/run/relay/admin.sock").expect("a path");
        assert!(matches!(unix, Place::Unix(path) if path == Path::new("/run/relay/admin.sock")));
    }

    /// An answer that goes on for ever, in a thread that ends with its reader.
    fn endless(part: &'static [u8]) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        std::thread::spawn(move || while theirs.write_all(part).is_ok() {});
        ours
    }

    #[test]
    fn an_answer_over_its_bound_is_an_error_and_not_cut() {
        let stream = endless(&[b'x'; 4096]);
        let mut timed = Timed::new(stream, Instant::now() + PATIENCE);
        let error = timed.read_to_end(1 << 20).expect_err("it has no end").to_string();
        assert!(error.contains("more than 1 MiB"), "{error}");
    }

    #[test]
    fn bytes_that_keep_coming_do_not_extend_the_deadline() {
        let stream = endless(b"x");
        let mut timed = Timed::new(stream, Instant::now() + Duration::from_millis(50));
        let error = timed.read_to_end(usize::MAX).expect_err("it has no end").to_string();
        assert!(error.contains("no whole answer"), "{error}");
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let mut timed = Timed::new(ours, Instant::now() + Duration::from_millis(50));
        assert!(timed.read_to_end(100).is_err());
    }

    #[test]
    fn a_name_is_asked_at_all_its_addresses() {
        // Where the name has two, one of them has no listener.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let deadline = Instant::now() + PATIENCE;
        assert!(connect(&format!("localhost:{port}"), deadline).is_ok());
    }

    #[test]
    fn a_token_file_without_a_token_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(token(Some(file.path())).is_err());
        fs::write(file.path(), "secret\n").expect("it can be written");
        assert_eq!(token(Some(file.path())).expect("a line").expose(), "secret");
    }
}
