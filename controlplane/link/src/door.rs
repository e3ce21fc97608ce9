//! Takes connections over a socket for HTTP/2: bounded in number, and in the time a stranger may
//! take to say anything.

use std::fmt;
use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// A socket to be served: bound and listening.
#[derive(Debug)]
pub enum DoorSocket {
    /// A path: its permissions say who may come.
    Unix(std::os::unix::net::UnixListener),
    /// A host and port.
    Tcp {
        /// Bound and listening.
        listener: std::net::TcpListener,
        /// What its connections speak. Without it they speak in the clear.
        tls: Option<DoorTls>,
    },
}

/// The certificates of a door. Asked at every connection, so that new ones are used as soon as they
/// are there.
#[derive(Clone)]
pub struct DoorTls(Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>);

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// Somebody who may open the socket's file.
    Local {
        /// Their user.
        uid: u32,
        /// Their process, if the kernel says it.
        pid: Option<i32>,
    },
    /// Somebody who connected to the port.
    Remote {
        /// From where.
        address: SocketAddr,
        /// SHA-256 of the certificate they showed, if they showed one; it was checked.
        certificate_sha256: Option<[u8; 32]>,
    },
}

/// Is told of each connection that was closed at once because too many were open.
pub type Refused = Arc<dyn Fn() + Send + Sync>;

/// Accepts, shakes hands, and passes on who is there, until it is dropped.
pub struct Door {
    socket: Socket,
    places: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Connection>>,
    refused: Refused,
}

enum Socket {
    Unix(UnixListener),
    Tcp { listener: TcpListener, tls: Option<DoorTls> },
}

/// A socket that was accepted.
enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr),
}

/// One connection, ready for HTTP/2.
pub struct Connection {
    stream: Box<dyn Stream>,
    caller: Caller,
    /// What HTTP/2 begins with, until it is there.
    preface: Option<Preface>,
    /// Its place among those there may be.
    _place: OwnedSemaphorePermit,
}

/// The first bytes of HTTP/2, and when they are there at the latest. Who connects and says nothing
/// would keep a place for ever.
struct Preface {
    left: usize,
    over: Pin<Box<Sleep>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl DoorTls {
    /// Those that this says. It may look at a few files, and must not wait for anything else.
    pub fn new(newest: impl Fn() -> Arc<ServerConfig> + Send + Sync + 'static) -> Self {
        Self(Arc::new(newest))
    }

    fn newest(&self) -> Arc<ServerConfig> {
        (self.0)()
    }
}

impl fmt::Debug for DoorTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoorTls").finish_non_exhaustive()
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// A door, and the connections that come through it, `connections_max` at a time.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub fn open(
        socket: DoorSocket,
        connections_max: usize,
        refused: Refused,
    ) -> io::Result<(Self, ReceiverStream<io::Result<Connection>>)> {
        let socket = match socket {
            DoorSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Socket::Unix(UnixListener::from_std(listener)?)
            }
            DoorSocket::Tcp { listener, tls } => {
                listener.set_nonblocking(true)?;
                Socket::Tcp { listener: TcpListener::from_std(listener)?, tls }
            }
        };
        let (ready, connections) = mpsc::channel(1);
        let places = Arc::new(Semaphore::new(connections_max));
        Ok((Self { socket, places, ready, refused }, ReceiverStream::new(connections)))
    }

    /// Dropping the future ends handshakes that are going on.
    pub async fn watch(self) {
        let mut handshakes = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                Some(_) = handshakes.join_next() => continue,
            };
            let Ok(accepted) = accepted else {
                // One that went before it was taken, or no descriptor left: others may come.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                (self.refused)();
                continue;
            };
            let (tls, ready) = (self.socket.tls(), self.ready.clone());
            handshakes.spawn(async move {
                let by = Instant::now() + HANDSHAKE_TIMEOUT;
                let shaken = timeout_at(by, shake_hands(accepted, tls));
                // Who cannot shake hands, or takes too long, is let go of without a word.
                if let Ok(Ok((stream, caller))) = shaken.await {
                    let over = Box::pin(sleep_until(by));
                    let preface = Some(Preface { left: PREFACE_BYTES, over });
                    let connection = Connection { stream, caller, preface, _place: place };
                    // Nobody serves any more: the relay ends.
                    let _ = ready.send(Ok(connection)).await;
                }
            });
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
            Self::Tcp { listener, .. } => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, address))
            }
        }
    }

    /// The newest certificates.
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { tls, .. } => tls.as_ref().map(DoorTls::newest),
        }
    }
}

async fn shake_hands(
    accepted: Accepted,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<(Box<dyn Stream>, Caller)> {
    let (stream, address) = match accepted {
        Accepted::Unix(stream) => {
            let peer = stream.peer_cred()?;
            let caller = Caller::Local { uid: peer.uid(), pid: peer.pid() };
            return Ok((Box::new(stream), caller));
        }
        Accepted::Tcp(stream, address) => (stream, address),
    };
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok((Box::new(stream), Caller::Remote { address, certificate_sha256: None }));
    };
    let stream = TlsAcceptor::from(tls).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate_sha256 = shown.map(|certificate| Sha256::digest(certificate).into());
    Ok((Box::new(stream), Caller::Remote { address, certificate_sha256 }))
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(preface) = &mut this.preface else {
            return Pin::new(&mut this.stream).poll_read(context, into);
        };
        if preface.over.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, into);
        preface.left = preface.left.saturating_sub(into.filled().len() - before);
        if preface.left == 0 {
            this.preface = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What HTTP/2 begins with. Source: RFC 9113 §3.4.
const PREFACE_BYTES: usize = 24;

/// The whole of a handshake, and the first words of HTTP/2. Reached: closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Rest after a failed accept, so that a process without descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tonic::codegen::tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_loses_its_place() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("relay-door-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (door, mut connections) =
            Door::open(DoorSocket::Unix(listener), 1, Arc::new(|| {})).unwrap();
        let watching = tokio::spawn(door.watch());
        let mut stranger = UnixStream::connect(&path).await.unwrap();
        stranger.write_all(b"PRI").await.unwrap();
        let mut silent = connections.next().await.unwrap().unwrap();
        let mut bytes = [0; 64];
        let mut read = async || {
            let mut into = ReadBuf::new(&mut bytes);
            std::future::poll_fn(|context| Pin::new(&mut silent).poll_read(context, &mut into))
                .await
        };
        read().await.unwrap();
        let began = Instant::now();
        assert_eq!(read().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= HANDSHAKE_TIMEOUT);
        drop(silent);
        let mut speaker = UnixStream::connect(&path).await.unwrap();
        speaker.write_all(&[b'x'; PREFACE_BYTES]).await.unwrap();
        let mut speaks = connections.next().await.unwrap().unwrap();
        let mut bytes = [0; 64];
        let mut into = ReadBuf::new(&mut bytes);
        std::future::poll_fn(|context| Pin::new(&mut speaks).poll_read(context, &mut into))
            .await
            .unwrap();
        assert!(speaks.preface.is_none(), "it has all the time there is");
        watching.abort();
        std::fs::remove_file(&path).unwrap();
    }
}
