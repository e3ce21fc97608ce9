//! The operator's own door: HTTP beside the relay's port.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_contract::{ControlRequest, Secret};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Where operators knock, bound and listening already.
#[derive(Debug)]
pub enum AdminSocket {
    /// A host and port.
    Tcp(std::net::TcpListener),
    /// A path.
    Unix(std::os::unix::net::UnixListener),
}

/// A question of an operator, and where its answer goes.
#[derive(Debug)]
pub(crate) struct AdminAsked {
    pub(crate) request: ControlRequest,
    pub(crate) reply: oneshot::Sender<AdminReply>,
}

/// The answer.
#[derive(Debug)]
pub(crate) struct AdminReply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

/// Takes connections and their questions to the controller, for ever. It decides nothing.
#[derive(Debug)]
pub(crate) struct AdminListener {
    questions: mpsc::Sender<AdminAsked>,
    tallies: Arc<AdminTallies>,
}

/// What the door refuses by itself, for the controller to count.
#[derive(Debug, Default)]
pub(crate) struct AdminTallies {
    connections_refused: AtomicU64,
    questions_refused: AtomicU64,
}

impl AdminTallies {
    /// Connections closed at once because too many were open.
    pub(crate) fn connections_refused(&self) -> u64 {
        self.connections_refused.load(Ordering::Relaxed)
    }

    /// Questions answered 503 because too many were on their way to the controller.
    pub(crate) fn questions_refused(&self) -> u64 {
        self.questions_refused.load(Ordering::Relaxed)
    }
}

impl AdminListener {
    /// A listener, and where the controller reads what is asked.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<AdminAsked>) {
        Self::with_room_for(QUESTIONS_MAX)
    }

    fn with_room_for(questions_max: usize) -> (Self, mpsc::Receiver<AdminAsked>) {
        let (questions, asked) = mpsc::channel(questions_max);
        (Self { questions, tallies: Arc::default() }, asked)
    }

    /// What it refuses from now on.
    pub(crate) fn tallies(&self) -> Arc<AdminTallies> {
        Arc::clone(&self.tallies)
    }

    /// Serves the socket. Dropping the future closes every connection.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub(crate) async fn serve(self, socket: AdminSocket) -> io::Result<()> {
        let socket = Socket::watch(socket)?;
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, address)) if connections.len() < CONNECTIONS_MAX => {
                    let tallies = Arc::clone(&self.tallies);
                    connections.spawn(serve(stream, address, self.questions.clone(), tallies));
                }
                Ok(_) => {
                    self.tallies.connections_refused.fetch_add(1, Ordering::Relaxed);
                }
                // One that went before it was taken, or no descriptor left: others may come.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

/// The socket, as the runtime watches it.
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Socket {
    fn watch(socket: AdminSocket) -> io::Result<Self> {
        match socket {
            AdminSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(socket)?))
            }
            AdminSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(socket)?))
            }
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, IpAddr)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Box::new(stream), peer.ip().to_canonical()))
            }
            Self::Unix(socket) => Ok((Box::new(socket.accept().await?.0), HERE)),
        }
    }
}

/// Serves one connection until it ends or has lived long enough.
async fn serve(
    stream: Box<dyn Stream>,
    address: IpAddr,
    questions: mpsc::Sender<AdminAsked>,
    tallies: Arc<AdminTallies>,
) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (questions, tallies) = (questions.clone(), Arc::clone(&tallies));
        async move { Ok::<_, Infallible>(answer(&request, address, &questions, &tallies).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    // How a connection ends is its peer's business.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(LIFE) => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(LAST_ANSWER_TIMEOUT, connection).await;
}

async fn answer(
    request: &Request<Incoming>,
    address: IpAddr,
    questions: &mpsc::Sender<AdminAsked>,
    tallies: &AdminTallies,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return response(not_found());
    }
    let (reply, answered) = oneshot::channel();
    let uri = request.uri();
    let request = ControlRequest {
        path: uri.path().into(),
        query: uri.query().map(Into::into),
        authorization: secret(request.headers(), &AUTHORIZATION),
        admin_token: secret(request.headers(), &ADMIN_TOKEN),
        accept: request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).map(Into::into),
        address,
    };
    // Full: the controller is behind, and says so like a shard that does not answer.
    if questions.try_send(AdminAsked { request, reply }).is_err() {
        tallies.questions_refused.fetch_add(1, Ordering::Relaxed);
        return response(unavailable());
    }
    match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(answer)) => response(answer),
        Ok(Err(_)) | Err(_) => response(unavailable()),
    }
}

fn secret(headers: &HeaderMap, name: &HeaderName) -> Option<Secret> {
    headers.get(name)?.to_str().ok().map(Secret::from)
}

fn response(answer: AdminReply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).expect("the controller answers with known statuses");
    let content_type = HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn not_found() -> AdminReply {
    of_ours(404, r#"{"ok":false,"reason":"NOT_FOUND"}"#)
}

fn unavailable() -> AdminReply {
    of_ours(503, r#"{"ok":false,"reason":"UNAVAILABLE"}"#)
}

fn of_ours(status: u16, body: &str) -> AdminReply {
    AdminReply { status, content_type: "application/json", body: body.as_bytes().to_vec() }
}

const ADMIN_TOKEN: HeaderName = HeaderName::from_static("x-relay-admin-token");

/// The address of who comes through a path.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Connections at a time. Protects descriptors and memory from whoever reaches the door. Reached:
/// closed at once, counted by `relay_admin_connections_refused_total`.
const CONNECTIONS_MAX: usize = 64;

/// Questions on their way to the controller. Reached: 503, counted by
/// `relay_admin_questions_refused_total`.
const QUESTIONS_MAX: usize = 64;

/// The whole of a request's head, and the pause before it. Reached: closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a head; the least hyper takes is 8 KiB. Reached: 431.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What the controller may take; above its own patience with shards. Reached: 503.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one connection is kept. Bounds what a slow reader of an answer holds.
const LIFE: Duration = Duration::from_secs(300);

/// What the answer under way may take then.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Rest after a failed accept, so that a process without descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_question_too_many_is_answered_503_and_counted() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (listener, mut asked) = AdminListener::with_room_for(1);
        let tallies = listener.tallies();
        tokio::spawn(listener.serve(AdminSocket::Tcp(socket)));
        let ask = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /state HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            stream
        };
        // The controller reads nothing: of two questions one waits.
        let (mut one, mut other) = (ask().await, ask().await);
        let (mut of_one, mut of_other) = ([0; 12], [0; 12]);
        tokio::select! {
            read = one.read_exact(&mut of_one) => read.unwrap(),
            read = other.read_exact(&mut of_other) => read.unwrap(),
        };
        assert!([of_one, of_other].contains(b"HTTP/1.1 503"));
        assert_eq!((tallies.questions_refused(), tallies.connections_refused()), (1, 0));
        assert!(asked.try_recv().is_ok() && asked.try_recv().is_err());
    }
}
