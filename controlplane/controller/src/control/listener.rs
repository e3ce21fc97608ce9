//! Takes connections of the control API.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::access::Caller;
use super::{ControlSocket, ControlTls, Tallies};

/// Accepts, shakes hands, and passes on who is there, until it is dropped.
pub(super) struct Door {
    socket: Socket,
    places: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Connection>>,
    tallies: Arc<Tallies>,
}

enum Socket {
    Unix(UnixListener),
    Tcp { listener: TcpListener, tls: Option<ControlTls> },
}

/// A socket that was accepted.
enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, std::net::SocketAddr),
}

/// One connection, ready for HTTP/2.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    caller: Caller,
    /// Its place among [`CONNECTIONS_MAX`].
    _place: OwnedSemaphorePermit,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Door {
    /// A door, and the connections that come through it.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub(super) fn open(
        socket: ControlSocket,
        tallies: Arc<Tallies>,
    ) -> io::Result<(Self, ReceiverStream<io::Result<Connection>>)> {
        let socket = match socket {
            ControlSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Socket::Unix(UnixListener::from_std(listener)?)
            }
            ControlSocket::Tcp { listener, tls } => {
                listener.set_nonblocking(true)?;
                Socket::Tcp { listener: TcpListener::from_std(listener)?, tls }
            }
        };
        let (ready, connections) = mpsc::channel(1);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Ok((Self { socket, places, ready, tallies }, ReceiverStream::new(connections)))
    }

    /// Dropping the future ends handshakes that are going on.
    pub(super) async fn watch(self) {
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
                self.tallies.connections_refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let (tls, ready) = (self.socket.tls(), self.ready.clone());
            handshakes.spawn(async move {
                let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shake_hands(accepted, tls));
                // Who cannot shake hands, or takes too long, is let go of without a word.
                if let Ok(Ok((stream, caller))) = shaken.await {
                    let connection = Connection { stream, caller, _place: place };
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
            Self::Tcp { tls, .. } => tls.as_ref().map(ControlTls::newest),
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
        Pin::new(&mut self.stream).poll_read(context, into)
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

/// Connections at a time. Protects descriptors and memory from whoever reaches the socket. Reached:
/// closed at once, counted by `relay_control_connections_refused_total`.
const CONNECTIONS_MAX: usize = 64;

/// The whole of a handshake. Reached: closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Rest after a failed accept, so that a process without descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
