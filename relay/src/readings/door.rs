//! Where a relay answers its operator.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use relay_contract::Secret;
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

/// How long an answer may take: a shard that hangs is answered for after a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer. Protects memory from whoever answers in the relay's place.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
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
        let answer = match &self.place {
            Place::Tcp(host, authority) => {
                let mut addresses = authority.to_socket_addrs().with_context(|| shown.clone())?;
                let address = addresses.next().with_context(|| format!("{host} has no address"))?;
                let stream = TcpStream::connect_timeout(&address, PATIENCE);
                let stream = stream.with_context(|| shown.clone())?;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.exchange(stream, host, target)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).with_context(|| shown.clone())?;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.exchange(stream, "localhost", target)
            }
        };
        answer.with_context(|| shown)
    }

    fn exchange(&self, mut stream: impl Read + Write, host: &str, target: &str) -> Result<String> {
        let token = self.token.expose();
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
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

    #[test]
    fn a_token_file_without_a_token_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(token(Some(file.path())).is_err());
        fs::write(file.path(), "secret\n").expect("it can be written");
        assert_eq!(token(Some(file.path())).expect("a line").expose(), "secret");
    }
}
