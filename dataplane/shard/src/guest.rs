//! A connection that speaks HTTP: plain requests, kept alive and pipelined, until one asks to
//! upgrade.

use std::net::IpAddr;

use relay_contract::{ControlRequest, Counter, Event, Secret, Tick};
use relay_driver::{Chunk, Driver, Key};
use relay_wire::http1::{self, Body, BodySkipper, Head, HttpDate, Peer, RequestTarget, Response};

use crate::connection::Phase;
use crate::shard::Shard;

/// What is known of a peer that has not been admitted.
pub(crate) struct Guest {
    /// Where the socket comes from.
    pub(crate) peer: Peer,
    /// Bytes received and not used yet. Bounded: nothing is read while a whole head lies here.
    buffer: Vec<u8>,
    /// A request body on its way to nowhere.
    skipper: Option<BodySkipper>,
    /// What its request waits for.
    awaits: Awaits,
    /// Whether this socket has had an answer before.
    served: bool,
    /// Whether the request being answered was `HEAD`.
    head_only: bool,
    /// Whether the peer has said all it has to say.
    pub(crate) peer_ended: bool,
    /// What the running deadline is for.
    pace: Pace,
}

/// Two kinds of patience. A head's time counts from its start, so dripping bytes does not stretch
/// it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pace {
    /// No deadline yet.
    Fresh,
    /// Between two requests.
    Idle,
    /// Inside a head or body.
    Request,
}

/// What the request that was read last waits for. Nothing more is read meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Awaits {
    Nothing,
    /// The control plane's answer.
    Answer(KeepAlive),
    /// That the control plane can be asked whether to admit it; since when.
    Asking(Tick),
}

/// Whether the connection goes on after the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct KeepAlive(bool);

/// What a request head leads to.
enum Verdict {
    /// More bytes are needed.
    Incomplete,
    /// These bytes end the connection.
    Reject(&'static [u8]),
    /// `/health`, answered here.
    Health { request: Consumed },
    /// Another answer made here.
    Answer { status: u16, body: String, request: Consumed },
    /// The control plane answers.
    Ask { request: Box<ControlRequest>, consumed: Consumed },
    /// The request wants to become a WebSocket.
    Upgrade,
}

/// What is left to do with the request's own bytes.
struct Consumed {
    head_len: usize,
    keep_alive: bool,
    head_only: bool,
    skipper: Option<BodySkipper>,
}

/// Paths that the control plane answers.
const CONTROL_PATHS: [&str; 6] = ["/state", "/logs", "/metrics", "/histograms", "/node", "/ready"];

const NOT_FOUND: &str = r#"{"ok":false,"reason":"NOT_FOUND"}"#;
const UNAVAILABLE: &str = r#"{"ok":false,"reason":"CONTROL_PLANE_UNAVAILABLE"}"#;
const JSON: &str = "application/json";

impl Guest {
    pub(crate) fn new(peer: Peer) -> Self {
        Self {
            peer,
            buffer: Vec::new(),
            skipper: None,
            awaits: Awaits::Nothing,
            served: false,
            head_only: false,
            peer_ended: false,
            pace: Pace::Fresh,
        }
    }

    /// Its upgrade waits from now on until the control plane can be asked.
    pub(crate) fn hold_back(&mut self, now: Tick) {
        self.awaits = Awaits::Asking(now);
    }

    /// Since when its upgrade waits for that, if it does.
    pub(crate) fn held_back_since(&self) -> Option<Tick> {
        match self.awaits {
            Awaits::Asking(since) => Some(since),
            Awaits::Nothing | Awaits::Answer(_) => None,
        }
    }

    /// Whether it has asked for something, or begun to, and was not answered yet. Whoever was would
    /// take another answer for that to its next request.
    pub(crate) fn is_owed_an_answer(&self) -> bool {
        let has_begun = self.skipper.is_none() && !self.buffer.is_empty();
        has_begun || self.awaits != Awaits::Nothing
    }

    /// Keeps bytes that came until they are looked at.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The bytes that came and are not used yet.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Memory of its own.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.buffer.capacity()
    }

    /// Discards body bytes. Returns false while more of the body is to come.
    fn skip_body(&mut self) -> Result<bool, http1::HeadError> {
        let Some(skipper) = &mut self.skipper else {
            return Ok(true);
        };
        let skipped = skipper.skip(&self.buffer)?;
        if skipped.done {
            self.skipper = None;
        }
        self.use_up(skipped.used);
        Ok(skipped.done)
    }

    /// Lets go of bytes at the front, and of their memory once nothing is left.
    fn use_up(&mut self, len: usize) {
        self.buffer.drain(..len);
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    fn consume(&mut self, consumed: Consumed) {
        self.use_up(consumed.head_len);
        self.skipper = consumed.skipper;
        self.served = true;
        self.head_only = consumed.head_only;
        self.pace = Pace::Fresh;
    }
}

impl<D: Driver> Shard<D> {
    /// Bytes of a guest arrived.
    pub(crate) fn on_guest_bytes(&mut self, key: Key, bytes: &[u8]) {
        if let Some(Phase::Guest(guest)) = self.phase_mut(key) {
            guest.keep(bytes);
            self.advance_guest(key);
        }
    }

    /// Does what the bytes so far allow, then reads on unless an answer is still owed or unread.
    pub(crate) fn advance_guest(&mut self, key: Key) {
        self.serve_guest(key);
        self.charge(key);
    }

    fn serve_guest(&mut self, key: Key) {
        loop {
            if !self.is_flushed(key) {
                return;
            }
            let Some(Phase::Guest(guest)) = self.phase_mut(key) else {
                return;
            };
            if guest.awaits != Awaits::Nothing {
                return;
            }
            let verdict = match guest.skip_body() {
                Ok(true) => self.judge_head(key),
                Ok(false) => Verdict::Incomplete,
                Err(error) => Verdict::Reject(error.response()),
            };
            match verdict {
                Verdict::Incomplete => return self.await_guest(key),
                Verdict::Reject(response) => {
                    self.counters.count(Counter::HeadRejected);
                    self.push(key, Chunk::Static(response));
                    return self.leave(key);
                }
                Verdict::Health { request } => {
                    let keep_alive = request.keep_alive;
                    self.consume_request(key, request);
                    let body = self.config.health.body(self.now);
                    self.respond(key, 200, JSON, body.as_bytes(), keep_alive);
                }
                Verdict::Answer { status, body, request } => {
                    let keep_alive = request.keep_alive;
                    self.consume_request(key, request);
                    self.respond(key, status, JSON, body.as_bytes(), keep_alive);
                }
                Verdict::Ask { request, consumed } => {
                    let keep_alive = consumed.keep_alive;
                    self.consume_request(key, consumed);
                    if self.is_heard() {
                        return self.ask_control(key, request, KeepAlive(keep_alive));
                    }
                    self.respond(key, 503, JSON, UNAVAILABLE.as_bytes(), keep_alive);
                }
                Verdict::Upgrade => return self.ask_in_turn(key),
            }
        }
    }

    fn consume_request(&mut self, key: Key, consumed: Consumed) {
        if let Some(Phase::Guest(guest)) = self.phase_mut(key) {
            guest.consume(consumed);
        }
    }

    fn judge_head(&mut self, key: Key) -> Verdict {
        self.heads_looked_for += 1;
        let head_bytes_max = self.limits.head_bytes_max;
        let trusted_proxies = &self.config.trusted_proxies;
        let Some(connection) = self.table.get_mut(key) else { return Verdict::Incomplete };
        let Phase::Guest(guest) = &connection.phase else { return Verdict::Incomplete };
        let head = match http1::parse_head(&guest.buffer, head_bytes_max) {
            Ok(Some(head)) => head,
            Ok(None) => return Verdict::Incomplete,
            Err(error) => return Verdict::Reject(error.response()),
        };
        if head.is_upgrade() {
            return Verdict::Upgrade;
        }
        let Some(target) = head.request_target() else {
            return Verdict::Reject(http1::HeadError::BadRequest.response());
        };
        let body = head.body();
        let consumed = Consumed {
            head_len: head.len(),
            keep_alive: head.keep_alive(),
            head_only: head.method() == "HEAD",
            skipper: (body != Body::None).then(|| BodySkipper::new(body)),
        };
        let is_get = head.method() == "GET";
        if is_get && target.path() == "/health" {
            return Verdict::Health { request: consumed };
        }
        if is_get && CONTROL_PATHS.contains(&target.path()) {
            let hops = head.all("x-forwarded-for");
            let peer = trusted_proxies.peer_again(guest.peer, connection.is_local);
            let address = http1::client_address(peer, hops, trusted_proxies);
            let request = control_request(&head, &target, address);
            return Verdict::Ask { request, consumed };
        }
        Verdict::Answer { status: 404, body: NOT_FOUND.to_owned(), request: consumed }
    }

    /// Passes a request on; it is answered by [`Self::on_respond`] or its deadline.
    fn ask_control(&mut self, key: Key, request: Box<ControlRequest>, keep_alive: KeepAlive) {
        if let Some(Phase::Guest(guest)) = self.phase_mut(key) {
            guest.awaits = Awaits::Answer(keep_alive);
        }
        let connection = self.table.id(key);
        self.set_deadline(key, self.limits.admission_timeout);
        self.emit(Event::HttpAsked { connection, request });
    }

    /// The control plane answered a plain request.
    pub(crate) fn on_respond(&mut self, key: Key, status: u16, content_type: &str, body: &[u8]) {
        let Some(Phase::Guest(guest)) = self.phase_mut(key) else {
            return;
        };
        let Awaits::Answer(KeepAlive(keep_alive)) = guest.awaits else {
            return;
        };
        guest.awaits = Awaits::Nothing;
        self.respond(key, status, content_type, body, keep_alive);
        self.advance_guest(key);
    }

    /// A guest's deadline: a head that dripped, an idle kept-alive socket, an answer that did not
    /// come.
    pub(crate) fn on_guest_expired(&mut self, key: Key) {
        if self.end_handshake(key) {
            self.counters.count(Counter::TlsHandshakeTimeouts);
            return self.leave(key);
        }
        let Some(Phase::Guest(guest)) = self.phase_mut(key) else {
            return;
        };
        let slow_head = guest.pace == Pace::Request;
        match std::mem::replace(&mut guest.awaits, Awaits::Nothing) {
            Awaits::Answer(_) => self.respond(key, 503, JSON, UNAVAILABLE.as_bytes(), false),
            Awaits::Asking(_) => return self.refuse_held_back(key),
            Awaits::Nothing if slow_head => self.counters.count(Counter::HeadTimeouts),
            Awaits::Nothing => {}
        }
        self.leave(key);
    }

    fn respond(
        &mut self,
        key: Key,
        status: u16,
        content_type: &str,
        body: &[u8],
        keep_alive: bool,
    ) {
        let unix_secs = (self.config.unix_ms_at_origin + self.now.as_millis()) / 1000;
        let date = HttpDate::from_unix_secs(unix_secs);
        let head_only = matches!(self.phase_mut(key), Some(Phase::Guest(g)) if g.head_only);
        let response = Response { status, content_type, body, headers: &[], keep_alive, head_only };
        let mut out = Vec::with_capacity(192 + body.len());
        response.write(date, &mut out);
        self.push(key, Chunk::Owned { bytes: out, start: 0 });
        if !keep_alive {
            self.leave(key);
        }
    }

    fn await_guest(&mut self, key: Key) {
        let patience = (self.limits.keep_alive_timeout, self.limits.head_timeout);
        let Some(Phase::Guest(guest)) = self.phase_mut(key) else {
            return;
        };
        if guest.peer_ended {
            return self.leave_as(key, true);
        }
        let idle = guest.served && guest.buffer.is_empty() && guest.skipper.is_none();
        let pace = if idle { Pace::Idle } else { Pace::Request };
        if guest.pace != pace {
            guest.pace = pace;
            self.set_deadline(key, if idle { patience.0 } else { patience.1 });
        }
        self.arm(key);
    }
}

fn control_request(
    head: &Head<'_>,
    target: &RequestTarget,
    address: IpAddr,
) -> Box<ControlRequest> {
    let secret = |name| {
        let value: &[u8] = head.header(name)?;
        Some(Secret::new(value.iter().map(|&byte| char::from(byte)).collect()))
    };
    Box::new(ControlRequest {
        path: target.path().into(),
        query: target.query().map(Into::into),
        authorization: secret("authorization"),
        admin_token: secret("x-relay-admin-token"),
        accept: head
            .header("accept")
            .and_then(|value| std::str::from_utf8(value).ok())
            .map(Into::into),
        address,
    })
}
