//! A platform on loopback that answers as the test says, well or badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the platform does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Answers with this status and body.
    Answer(u16, String),
    /// Answers 200 and `known` to whoever shows this internal key, else 401 and `unknown`.
    Keyed { key: String, known: String, unknown: String },
    /// Answers with these bytes.
    Raw(String),
    /// Answers with these bytes and closes.
    RawThenClose(Vec<u8>),
    /// Never answers.
    Hang,
    /// Closes without an answer.
    Drop,
    /// Head and one byte, then nothing.
    Stall,
    /// A part of the body, then the end of the connection.
    Cut,
    /// A character every few milliseconds, for ever.
    Drip,
    /// The same before the head is whole.
    DripHead,
    /// `100 Continue` every few milliseconds, for ever.
    DripInterim,
}

impl Behaviour {
    /// What becomes of it when this is asked.
    fn towards(self, request: &Request) -> Self {
        match self {
            Self::Keyed { key, known, unknown } => {
                match request.header("x-relay-internal-key") == Some(&key) {
                    true => Self::Answer(200, known),
                    false => Self::Answer(401, unknown),
                }
            }
            other => other,
        }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Request line and headers, header names in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

#[derive(Clone)]
pub(crate) struct Platform {
    port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    /// By path; the first that matches.
    behaviours: Vec<(String, Behaviour)>,
    requests: Vec<Request>,
}

impl Platform {
    pub(crate) async fn start(tls: Option<TlsAcceptor>) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), tls, false).await
    }

    /// A platform whose connections end with a reset.
    pub(crate) async fn that_resets() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), None, true).await
    }

    pub(crate) async fn start_at(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        resets: bool,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let platform = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::new(Mutex::new(State { behaviours: Vec::new(), requests: Vec::new() })),
        };
        let serving = platform.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if resets {
                    socket.set_zero_linger().unwrap();
                }
                let (serving, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serving.serve(socket).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => serving.serve(socket).await,
                            Err(_) => Some(()),
                        },
                    }
                });
            }
        });
        platform
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on paths that start with `path` are treated so.
    pub(crate) fn on(&self, path: &str, behaviour: Behaviour) {
        let mut state = self.state.lock().unwrap();
        state.behaviours.insert(0, (path.to_owned(), behaviour));
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    async fn serve(&self, mut socket: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        loop {
            let request = read_request(&mut socket).await?;
            let behaviour = {
                let mut state = self.state.lock().unwrap();
                state.requests.push(request.clone());
                let mut behaviours = state.behaviours.iter();
                let found = behaviours.find(|(path, _)| request.path().starts_with(path));
                found.map(|(_, behaviour)| behaviour.clone().towards(&request))
            };
            let not_found = || Behaviour::Answer(404, r#"{"ok":false}"#.to_owned());
            behave(&mut socket, behaviour.unwrap_or_else(not_found)).await?;
        }
    }
}

async fn read_request(socket: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_len = loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let request = Request { head, body: String::new() };
    let length = request.header("content-length").unwrap_or("0");
    let total = head_len + length.parse::<usize>().unwrap();
    while bytes.len() < total {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(bytes[head_len..total].to_vec()).unwrap();
    Some(Request { body, ..request })
}

/// `None` when the connection ends with this.
async fn behave(socket: &mut (impl AsyncWrite + Unpin), behaviour: Behaviour) -> Option<()> {
    const ENDLESS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
    const JSON: &str = "content-type: application/json";
    match behaviour {
        Behaviour::Answer(status, body) => {
            let head =
                format!("HTTP/1.1 {status} X\r\n{JSON}\r\ncontent-length: {}\r\n\r\n", body.len());
            socket.write_all(head.as_bytes()).await.ok()?;
            socket.write_all(body.as_bytes()).await.ok()?;
            socket.flush().await.ok()
        }
        Behaviour::Raw(text) => {
            socket.write_all(text.as_bytes()).await.ok()?;
            socket.flush().await.ok()
        }
        // Decided when it was asked.
        Behaviour::Keyed { .. } => None,
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Drop => None,
        Behaviour::Stall => {
            socket.write_all(ENDLESS.as_bytes()).await.ok()?;
            socket.flush().await.ok()?;
            std::future::pending().await
        }
        Behaviour::Cut => {
            socket.write_all(ENDLESS.as_bytes()).await.ok()?;
            socket.flush().await.ok()?;
            None
        }
        Behaviour::RawThenClose(bytes) => {
            socket.write_all(&bytes).await.ok()?;
            socket.flush().await.ok()?;
            None
        }
        Behaviour::Drip => {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            drip(socket, head, "1\r\n \r\n").await
        }
        Behaviour::DripHead => drip(socket, "HTTP/1.1 200 OK\r\nx: ", "x").await,
        Behaviour::DripInterim => drip(socket, "", "HTTP/1.1 100 Continue\r\n\r\n").await,
    }
}

/// Writes `head`, then `drop` again and again until the other side goes.
async fn drip(socket: &mut (impl AsyncWrite + Unpin), head: &str, drop: &str) -> Option<()> {
    socket.write_all(head.as_bytes()).await.ok()?;
    let mut pulse = tokio::time::interval(Duration::from_millis(5));
    loop {
        pulse.tick().await;
        socket.write_all(drop.as_bytes()).await.ok()?;
        socket.flush().await.ok()?;
    }
}
