//! glommio with its own streams: what arrives is decoded in a buffer of the connection, and what
//! waits for a connection is written at once.
//!
//! Two tasks per connection, a reader and a writer with a bounded buffer between them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use anyhow::{Context, Result};
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

use crate::admission::Query;
use crate::close;
use crate::frame::{self, Decoded, Kind, Refused};
use crate::scope::{Member, Route, Scope};
use crate::settings::Settings;
use crate::upgrade::{self, Answer, Request, Upgrade};

/// Serves until the process ends.
pub(crate) fn serve(settings: Settings) -> Result<()> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .make()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    executor.run(accept(settings))
}

async fn accept(settings: Settings) -> Result<()> {
    let listener = TcpListener::bind(settings.address())
        .map_err(|error| anyhow::anyhow!("listening: {error}"))?;
    println!("listening on {}", settings.address());
    let relay = Rc::new(Relay {
        platform: settings.platform()?,
        settings,
        kept: RefCell::default(),
        scopes: RefCell::default(),
        next_id: Cell::new(0),
    });
    loop {
        let socket = listener.accept().await.map_err(io::Error::from).context("accepting")?;
        let relay = Rc::clone(&relay);
        let connection = async move {
            // Whatever went wrong, it is this connection's end and nobody else's.
            drop(relay.connected(socket).await);
        };
        glommio::spawn_local(connection).detach();
    }
}

struct Relay {
    settings: Settings,
    platform: SocketAddr,
    /// Connections to the platform that nobody uses at the moment.
    kept: RefCell<Vec<Rc<Socket>>>,
    scopes: RefCell<HashMap<ScopeKey, SharedScope>>,
    next_id: Cell<u64>,
}

/// Workspace and target.
type ScopeKey = (String, Option<String>);
type SharedScope = Rc<RefCell<Scope<Rc<Outbox>>>>;

/// A stream for a reader and a writer of one thread.
struct Socket(RefCell<TcpStream>);

/// What waits for one connection.
struct Outbox {
    bytes: RefCell<Vec<u8>>,
    bytes_max: usize,
    writer: Cell<Option<Waker>>,
    is_closed: Cell<bool>,
}

/// What one connection received and did not work on yet.
struct Inbox {
    bytes: Vec<u8>,
    held: usize,
}

impl Relay {
    /// One connection, from its first byte to its end.
    async fn connected(&self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let socket = Rc::new(Socket(RefCell::new(socket)));
        let mut inbox = Inbox { bytes: vec![0; BUFFER_BYTES], held: 0 };
        let Some(upgrade) = read_head(&socket, &mut inbox).await? else {
            return socket.write_all(upgrade::UNAUTHORIZED.as_bytes()).await;
        };
        if !self.is_admitted(&upgrade.query, &upgrade.token).await.unwrap_or(false) {
            return socket.write_all(upgrade::UNAUTHORIZED.as_bytes()).await;
        }
        socket.write_all(upgrade.accepted.as_bytes()).await?;
        inbox.skip(upgrade.head_bytes);
        let Query { role, workspace_id, runtime_target_id } = upgrade.query;
        let key = (workspace_id, runtime_target_id);
        let scope = Rc::clone(self.scopes.borrow_mut().entry(key).or_default());
        let id = self.next_id.replace(self.next_id.get() + 1);
        let outbox = Rc::new(Outbox::new(self.settings.pending_bytes_max));
        let member = Member { id, role, outbox };
        if !scope.borrow_mut().join(&member) {
            return socket.write_all(&frame::closing(close::REFUSED)).await;
        }
        let writer = write(Rc::clone(&socket), Rc::clone(&member.outbox));
        let writer = glommio::spawn_local(writer);
        let result = self.read(&socket, &mut inbox, &member, &scope).await;
        scope.borrow_mut().leave(&member);
        let _: Option<()> = writer.cancel().await;
        result
    }

    /// Routes what arrives until the connection ends or sends what is no envelope.
    async fn read(
        &self,
        socket: &Socket,
        inbox: &mut Inbox,
        member: &Member<Rc<Outbox>>,
        scope: &SharedScope,
    ) -> io::Result<()> {
        loop {
            self.take(inbox, member, &mut scope.borrow_mut())?;
            inbox.fill(socket).await?;
        }
    }

    /// Routes the whole frames of the inbox, and makes room for one that is not whole.
    fn take(
        &self,
        inbox: &mut Inbox,
        member: &Member<Rc<Outbox>>,
        scope: &mut Scope<Rc<Outbox>>,
    ) -> io::Result<()> {
        let mut at = 0;
        loop {
            let bytes = &mut inbox.bytes[at..inbox.held];
            match frame::decode(bytes, self.settings.frame_bytes_max) {
                Ok(Decoded::Frame(frame)) => {
                    at += frame.payload.end;
                    frame_in(bytes, frame.kind, &frame.payload, member, scope)?;
                }
                Ok(Decoded::Partial { frame_bytes }) => {
                    inbox.skip(at);
                    if inbox.bytes.len() < frame_bytes {
                        inbox.bytes.resize(frame_bytes, 0);
                    }
                    return Ok(());
                }
                Err(Refused) => return Err(ended()),
            }
        }
    }

    /// Asks the platform; one call per upgrade, over a kept connection.
    async fn is_admitted(&self, query: &Query, token: &str) -> io::Result<bool> {
        let kept = self.kept.borrow_mut().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let socket = TcpStream::connect(self.platform).await?;
                socket.set_nodelay(true)?;
                Rc::new(Socket(RefCell::new(socket)))
            }
        };
        let call = upgrade::validate(&self.platform.to_string(), &query.question(token));
        connection.write_all(&call).await?;
        let mut answer = Inbox { bytes: vec![0; BUFFER_BYTES], held: 0 };
        loop {
            answer.fill(&connection).await?;
            match upgrade::answer(&answer.bytes[..answer.held]) {
                Answer::Partial if answer.held < answer.bytes.len() => {}
                Answer::Body(body) => {
                    self.kept.borrow_mut().push(connection);
                    return Ok(query.is_admitted_by(body));
                }
                Answer::Partial | Answer::Failed => return Ok(false),
            }
        }
    }
}

/// Writes one frame into the outbox of whom it is for.
fn frame_in(
    bytes: &mut [u8],
    kind: Kind,
    payload: &Range<usize>,
    member: &Member<Rc<Outbox>>,
    scope: &mut Scope<Rc<Outbox>>,
) -> io::Result<()> {
    let (to, first) = match kind {
        Kind::Text => {
            let text = std::str::from_utf8(&bytes[payload.clone()]).map_err(|_| ended())?;
            match scope.route(member, text) {
                Ok(Route::To(outbox)) => (outbox, frame::TEXT),
                Ok(Route::Nowhere) => return Ok(()),
                Err(_) => return Err(ended()),
            }
        }
        Kind::Ping => (&member.outbox, frame::PONG),
        Kind::Binary | Kind::Pong => return Ok(()),
        Kind::Close => return Err(ended()),
    };
    let start = frame::place_head(bytes, first, payload);
    to.push(&bytes[start..payload.end]);
    Ok(())
}

/// Writes what others sent until the connection ends.
async fn write(socket: Rc<Socket>, outbox: Rc<Outbox>) {
    let mut batch = Vec::new();
    loop {
        let mut result = poll_fn(|task| outbox.poll_take(task, &mut batch)).await;
        let mut at = 0;
        while result.is_ok() && at < batch.len() {
            let written = poll_fn(|task| outbox.poll_write(task, &socket, &batch[at..])).await;
            result = written.map(|written| at += written);
        }
        if result.is_err() {
            // The reader notices the end, and cancels this task.
            let socket = socket.0.borrow();
            drop(socket.shutdown(std::net::Shutdown::Both).await);
            return;
        }
        batch.clear();
    }
}

/// Reads until a request is whole; `None` for one that is refused.
async fn read_head(socket: &Socket, inbox: &mut Inbox) -> io::Result<Option<Upgrade>> {
    loop {
        inbox.fill(socket).await?;
        match upgrade::request(&inbox.bytes[..inbox.held]) {
            Request::Partial if inbox.held < inbox.bytes.len() => {}
            Request::Upgrade(upgrade) => return Ok(Some(*upgrade)),
            Request::Partial | Request::Refused => return Ok(None),
        }
    }
}

impl Socket {
    async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        poll_fn(|task| Pin::new(&mut *self.0.borrow_mut()).poll_read(task, bytes)).await
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |task: &mut TaskContext<'_>| {
                Pin::new(&mut *self.0.borrow_mut()).poll_write(task, bytes)
            };
            match poll_fn(write).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }
}

impl Outbox {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes: RefCell::default(),
            bytes_max,
            writer: Cell::new(None),
            is_closed: Cell::new(false),
        }
    }

    /// Adds a frame; a receiver for whom too much waits is cut.
    fn push(&self, frame: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        if bytes.len() + frame.len() > self.bytes_max {
            self.is_closed.set(true);
        } else {
            bytes.extend_from_slice(frame);
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Swaps what waits for the empty `batch`. Fails when the receiver was cut.
    fn poll_take(&self, task: &mut TaskContext<'_>, batch: &mut Vec<u8>) -> Poll<io::Result<()>> {
        if self.is_closed.get() {
            return Poll::Ready(Err(ended()));
        }
        let mut bytes = self.bytes.borrow_mut();
        if bytes.is_empty() {
            self.writer.set(Some(task.waker().clone()));
            return Poll::Pending;
        }
        std::mem::swap(&mut *bytes, batch);
        Poll::Ready(Ok(()))
    }

    /// Writes to the socket. Fails, even in the middle of waiting, when the receiver was cut.
    fn poll_write(
        &self,
        task: &mut TaskContext<'_>,
        socket: &Socket,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_closed.get() {
            return Poll::Ready(Err(ended()));
        }
        let poll = Pin::new(&mut *socket.0.borrow_mut()).poll_write(task, bytes);
        if poll.is_pending() {
            self.writer.set(Some(task.waker().clone()));
        }
        poll
    }
}

impl Inbox {
    /// Waits for more.
    async fn fill(&mut self, socket: &Socket) -> io::Result<()> {
        match socket.read(&mut self.bytes[self.held..]).await? {
            0 => Err(ended()),
            received => {
                self.held += received;
                Ok(())
            }
        }
    }

    /// Drops the first bytes.
    fn skip(&mut self, bytes: usize) {
        self.bytes.copy_within(bytes..self.held, 0);
        self.held -= bytes;
    }
}

/// The peer is done, or we are with it.
fn ended() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Bytes of a connection's buffer; it grows to the largest frame that it sees.
const BUFFER_BYTES: usize = 16 << 10;
