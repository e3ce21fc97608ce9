//! monoio, tuned: DEFER_TASKRUN, `readable()` and one read buffer for all connections, frames
//! decoded where they lie and written at once with one gathered send.
//!
//! One task per connection, and one more while a receiver is full.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::rc::Rc;

use anyhow::{Context, Result};
use monoio::net::{TcpListener, TcpStream};

use crate::admission::Query;
use crate::close;
use crate::frame::{self, Decoded, Kind, Refused};
use crate::scope::{Member, Route, Scope};
use crate::settings::Settings;
use crate::upgrade::{self, Answer, Request, Upgrade};

use outlet::Outlet;
use run::Run;

mod outlet;
mod run;

/// Serves until the process ends.
pub(crate) fn serve(settings: Settings) -> Result<()> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun().setup_clamp();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(RING_ENTRIES)
        .build()
        .context("io_uring")?;
    runtime.block_on(accept(settings))
}

async fn accept(settings: Settings) -> Result<()> {
    let listener = TcpListener::bind(settings.address()).context("listening")?;
    println!("listening on {}", listener.local_addr()?);
    let relay = Rc::new(Relay {
        platform: settings.platform()?,
        settings,
        kept: RefCell::default(),
        scopes: RefCell::default(),
        next_id: Cell::new(0),
        buffer: RefCell::new(vec![0; BUFFER_BYTES].into_boxed_slice()),
    });
    loop {
        let (socket, _) = listener.accept().await?;
        let relay = Rc::clone(&relay);
        monoio::spawn(async move {
            // Whatever went wrong, it is this connection's end and nobody else's.
            drop(relay.connected(socket).await);
        });
    }
}

struct Relay {
    settings: Settings,
    platform: SocketAddr,
    /// Connections to the platform that nobody uses at the moment.
    kept: RefCell<Vec<Rc<Outlet>>>,
    scopes: RefCell<HashMap<ScopeKey, SharedScope>>,
    next_id: Cell<u64>,
    /// What arrives lies here for as long as it is worked on.
    buffer: RefCell<Box<[u8]>>,
}

/// Workspace and target.
type ScopeKey = (String, Option<String>);
type SharedScope = Rc<RefCell<Scope<Rc<Outlet>>>>;

/// A connection that may send frames.
struct Admitted {
    member: Member<Rc<Outlet>>,
    scope: SharedScope,
    /// What came with the upgrade.
    early: Vec<u8>,
}

/// The beginning of a frame whose rest has not arrived. Grows with the frames that come in pieces.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    held: usize,
    /// Bytes of the whole frame.
    frame_bytes: usize,
}

impl Relay {
    /// One connection, from its first byte to its end.
    async fn connected(&self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let outlet = Rc::new(Outlet::new(socket, self.settings.pending_bytes_max));
        // Boxed, so that a connection does not keep the room that its admission took.
        let Some(Admitted { member, scope, mut early }) = Box::pin(self.admit(outlet)).await?
        else {
            return Ok(());
        };
        let mut partial = Partial::default();
        let mut result = self.take(&mut early, &member, &scope, &mut partial);
        drop(early);
        while result.is_ok() {
            result = match member.outbox.readable().await {
                Ok(()) => self.turn(&member, &scope, &mut partial),
                Err(error) => Err(error),
            };
        }
        scope.borrow_mut().leave(&member);
        member.outbox.shutdown(Shutdown::Both);
        result
    }

    /// Reads the upgrade and answers it; `None` for one that is refused.
    async fn admit(&self, outlet: Rc<Outlet>) -> io::Result<Option<Admitted>> {
        let mut early = Vec::new();
        let Some(upgrade) = read_head(&outlet, &mut early).await? else {
            outlet.send_bytes(upgrade::UNAUTHORIZED.as_bytes())?;
            return Ok(None);
        };
        if !self.is_admitted(&upgrade.query, &upgrade.token).await.unwrap_or(false) {
            outlet.send_bytes(upgrade::UNAUTHORIZED.as_bytes())?;
            return Ok(None);
        }
        outlet.send_bytes(upgrade.accepted.as_bytes())?;
        early.drain(..upgrade.head_bytes);
        let Query { role, workspace_id, runtime_target_id } = upgrade.query;
        let key = (workspace_id, runtime_target_id);
        let scope = Rc::clone(self.scopes.borrow_mut().entry(key).or_default());
        let id = self.next_id.replace(self.next_id.get() + 1);
        let member = Member { id, role, outbox: outlet };
        if !scope.borrow_mut().join(&member) {
            member.outbox.send_bytes(&frame::closing(close::REFUSED))?;
            return Ok(None);
        }
        Ok(Some(Admitted { member, scope, early }))
    }

    /// Asks the platform; one call per upgrade, over a kept connection.
    async fn is_admitted(&self, query: &Query, token: &str) -> io::Result<bool> {
        let kept = self.kept.borrow_mut().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let socket = TcpStream::connect_addr(self.platform).await?;
                socket.set_nodelay(true)?;
                Rc::new(Outlet::new(socket, self.settings.pending_bytes_max))
            }
        };
        let call = upgrade::validate(&self.platform.to_string(), &query.question(token));
        connection.send_bytes(&call)?;
        let mut answer = Vec::new();
        loop {
            connection.receive(&mut answer).await?;
            match upgrade::answer(&answer) {
                Answer::Partial => {}
                Answer::Body(body) => {
                    self.kept.borrow_mut().push(connection);
                    return Ok(query.is_admitted_by(body));
                }
                Answer::Failed => return Ok(false),
            }
        }
    }

    /// One read, and what follows from it.
    fn turn(
        &self,
        member: &Member<Rc<Outlet>>,
        scope: &SharedScope,
        partial: &mut Partial,
    ) -> io::Result<()> {
        let mut buffer = self.buffer.borrow_mut();
        let buffer = &mut **buffer;
        if partial.held < HEAD_BYTES_MAX {
            // A few bytes of a head go where the rest of it will follow.
            let held = std::mem::take(&mut partial.held);
            buffer[..held].copy_from_slice(&partial.bytes[..held]);
            let received = member.outbox.receive_now(&mut [], &mut buffer[held..])?;
            return self.take(&mut buffer[..held + received], member, scope, partial);
        }
        let (start, end) = (partial.held, partial.frame_bytes);
        let received = member.outbox.receive_now(&mut partial.bytes[start..end], buffer)?;
        if received < end - start {
            partial.held += received;
            return Ok(());
        }
        partial.held = 0;
        let mut whole = std::mem::take(&mut partial.bytes);
        self.take(&mut whole[..end], member, scope, partial)?;
        partial.bytes = whole;
        self.take(&mut buffer[..received - (end - start)], member, scope, partial)
    }

    /// Routes the frames in `bytes` and keeps the beginning of one that is not whole.
    fn take(
        &self,
        bytes: &mut [u8],
        member: &Member<Rc<Outlet>>,
        scope: &SharedScope,
        partial: &mut Partial,
    ) -> io::Result<()> {
        let mut scope = scope.borrow_mut();
        let mut run = Run::default();
        let mut at = 0;
        loop {
            match frame::decode(&mut bytes[at..], self.settings.frame_bytes_max) {
                Ok(Decoded::Frame(frame)) => {
                    let payload = at + frame.payload.start..at + frame.payload.end;
                    at = payload.end;
                    frame_in(bytes, frame.kind, payload, member, &mut scope, &mut run)?;
                }
                Ok(Decoded::Partial { frame_bytes }) => {
                    run.flush(bytes)?;
                    partial.keep(&bytes[at..], frame_bytes);
                    return Ok(());
                }
                Err(Refused) => return Err(run.flush(bytes).err().unwrap_or_else(ended)),
            }
        }
    }
}

impl Partial {
    fn keep(&mut self, beginning: &[u8], frame_bytes: usize) {
        self.held = beginning.len();
        if self.held == 0 {
            return;
        }
        self.frame_bytes = frame_bytes;
        if self.bytes.len() < frame_bytes {
            self.bytes.resize(frame_bytes.max(HEAD_BYTES_MAX), 0);
        }
        self.bytes[..self.held].copy_from_slice(beginning);
    }
}

/// Notes where one frame goes.
fn frame_in(
    bytes: &mut [u8],
    kind: Kind,
    payload: Range<usize>,
    member: &Member<Rc<Outlet>>,
    scope: &mut Scope<Rc<Outlet>>,
    run: &mut Run,
) -> io::Result<()> {
    let (to, first) = match kind {
        Kind::Text => {
            let text = std::str::from_utf8(&bytes[payload.clone()]).map_err(|_| ended())?;
            match scope.route(member, text) {
                Ok(Route::To(outlet)) => (Rc::clone(outlet), frame::TEXT),
                Ok(Route::Nowhere) => return Ok(()),
                Err(_) => return Err(ended()),
            }
        }
        Kind::Ping => (Rc::clone(&member.outbox), frame::PONG),
        Kind::Binary | Kind::Pong => return Ok(()),
        Kind::Close => return Err(run.flush(bytes).err().unwrap_or_else(ended)),
    };
    let start = frame::place_head(bytes, first, &payload);
    run.push(to, start..payload.end, bytes)
}

/// Reads until a request is whole; `None` for one that is refused.
async fn read_head(outlet: &Outlet, bytes: &mut Vec<u8>) -> io::Result<Option<Upgrade>> {
    loop {
        outlet.receive(bytes).await?;
        match upgrade::request(bytes) {
            Request::Partial => {}
            Request::Upgrade(upgrade) => return Ok(Some(*upgrade)),
            Request::Refused => return Ok(None),
        }
    }
}

/// The peer is done, or we are with it.
fn ended() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

const RING_ENTRIES: u32 = 1024;
/// Bytes of one read, at most.
const BUFFER_BYTES: usize = 256 << 10;
/// The longest head of a client's frame.
const HEAD_BYTES_MAX: usize = 14;
