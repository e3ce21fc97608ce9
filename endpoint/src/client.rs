//! The client's end without I/O: frames, texts and time in, actions out.

use rand::CryptoRng;
use relay_contract::Tick;

use crate::backoff::Backoff;
use crate::frame::{Envelope, Frame, KeyExchangeResponse, KeyUpdateRequired, Status};
use crate::handshake::{ClientProfile, HandshakeError, Initiator};
use crate::ids::{MessageId, SessionId, request_id};
use crate::keys::{KeyPair, PublicKey};
use crate::limits::Limits;
use crate::outbox::{Outbox, Undelivered, Waiting};
use crate::refusal::Refusal;
use crate::session::{OpenError, Session};

/// What a client is and whom it talks to.
pub struct ClientSettings {
    /// The client's static pair.
    pub keys: KeyPair,
    /// The daemon's static key, from the platform or from pairing, never from the relay.
    pub daemon: PublicKey,
    /// Which handshake.
    pub profile: ClientProfile,
    /// Bounds.
    pub limits: Limits,
}

/// What can happen to a client. Its `Debug` shows kinds and lengths, never a text.
pub enum ClientInput<'a> {
    /// A connection to the relay is open.
    Connected,
    /// It is gone.
    Disconnected,
    /// Whether the socket takes more. Assumed when connected.
    Writable(bool),
    /// The relay sent a text message.
    Frame(&'a str),
    /// The user wants a text sent.
    Send {
        /// The user's name for it.
        message: MessageId,
        /// The text.
        text: String,
    },
    /// [`ClientEnd::deadline`] has come.
    Expired,
}

/// What the owner of a client is to do or to know. Its `Debug` shows kinds and lengths, never
/// a text.
#[derive(Clone, Eq, PartialEq)]
pub enum ClientAction {
    /// Send a text message to the relay.
    Transmit {
        /// The whole frame.
        frame: String,
        /// Which of the user's texts it carries, if any.
        message: Option<MessageId>,
    },
    /// Give the user a text of the daemon.
    Deliver {
        /// The text.
        text: String,
    },
    /// A session is open.
    Opened {
        /// Its name.
        session: SessionId,
        /// Its epoch.
        epoch: u64,
        /// Whether it replaces another.
        rotated: bool,
    },
    /// A handshake came to nothing.
    HandshakeFailed {
        /// The failed check.
        error: HandshakeError,
        /// When the next attempt is made; none when the old session goes on.
        retry_at: Option<Tick>,
    },
    /// The daemon is away, and the session with it; texts wait for the next one.
    Lost {
        /// When the next attempt is made.
        retry_at: Tick,
    },
    /// Tell the user that a text was not sent.
    Undelivered {
        /// Which.
        message: MessageId,
        /// Why.
        reason: Undelivered,
    },
    /// A frame was dropped.
    Refused(Refusal),
    /// The relay said something; with `DAEMON_UNAVAILABLE` it has dropped what was just sent.
    Status {
        /// The code.
        code: String,
        /// For people.
        message: Option<String>,
        /// Whether trying again later makes sense.
        retryable: bool,
    },
    /// The relay wants the client elsewhere.
    Redirect {
        /// The other relay's WebSocket URL, as given: not to be trusted blindly.
        url: String,
    },
}

/// The client's end of one conversation.
pub struct ClientEnd {
    settings: ClientSettings,
    state: State,
    writable: bool,
    outbox: Outbox<()>,
    /// The session before the present one, for what was under way when keys changed.
    previous: Option<(Session, Tick)>,
    /// A rotation got no answer in time; the daemon may have made it nonetheless.
    abandoned: bool,
    backoff: Backoff,
}

/// ```text
/// Offline ──connected──▶ Exchanging ──answer──▶ Open ──notice, own count──▶ Rotating
///                         │      ▲               ▲                            │
///       bad answer, away, │      │ time          └─answer, failure, deadline──┘
///                deadline ▼      │
///                        Resting ─┘◀──daemon away── Open, Rotating
///
/// any ──disconnected──▶ Offline
/// ```
enum State {
    Offline,
    Exchanging {
        attempt: Box<Attempt>,
    },
    Resting {
        until: Tick,
    },
    Open {
        session: Session,
        ask_at: u64,
    },
    /// Texts wait here: a daemon may end the old session before it hears what was sent after
    /// message 1.
    Rotating {
        session: Session,
        attempt: Box<Attempt>,
    },
}

struct Attempt {
    initiator: Initiator,
    deadline: Tick,
}

impl ClientEnd {
    /// A client that is not connected.
    pub fn new(settings: ClientSettings) -> Self {
        Self {
            state: State::Offline,
            writable: false,
            outbox: Outbox::new(&settings.limits),
            previous: None,
            abandoned: false,
            backoff: Backoff::new(settings.limits.retry),
            settings,
        }
    }

    /// Decides what follows from one input. Push order is the order to perform.
    ///
    /// `now` never goes backwards. Bad input of the peer costs a [`ClientAction::Refused`] and
    /// nothing else.
    pub fn handle(
        &mut self,
        now: Tick,
        input: ClientInput<'_>,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) {
        self.on_time(now, rng, actions);
        match input {
            ClientInput::Connected => {
                self.writable = true;
                self.exchange(now, rng, actions);
            }
            ClientInput::Disconnected => {
                self.writable = false;
                self.state = State::Offline;
                self.previous = None;
                self.abandoned = false;
            }
            ClientInput::Writable(writable) => self.writable = writable,
            ClientInput::Frame(text) => self.on_frame(now, text, rng, actions),
            ClientInput::Send { message, text } => {
                let item = Waiting { to: (), message, text };
                self.outbox.push(item, |message, reason| {
                    actions.push(ClientAction::Undelivered { message, reason });
                });
            }
            ClientInput::Expired => {}
        }
        self.flush(now, rng, actions);
    }

    /// When [`ClientInput::Expired`] is wanted, if nothing else comes before.
    pub fn deadline(&self) -> Option<Tick> {
        match &self.state {
            State::Exchanging { attempt } | State::Rotating { attempt, .. } => {
                Some(attempt.deadline)
            }
            State::Resting { until } => Some(*until),
            State::Offline | State::Open { .. } => None,
        }
    }

    /// Whether texts go out at once.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Gives back every text that still waits, for an owner that stops.
    pub fn drain(&mut self) -> impl Iterator<Item = MessageId> + '_ {
        std::iter::from_fn(|| self.outbox.pop().map(|item| item.message))
    }

    fn on_time(&mut self, now: Tick, rng: &mut impl CryptoRng, actions: &mut Vec<ClientAction>) {
        if self.previous.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.previous = None;
        }
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match std::mem::replace(&mut self.state, State::Offline) {
            State::Resting { .. } => self.exchange(now, rng, actions),
            State::Exchanging { .. } => self.fail(now, HandshakeError::Deadline, rng, actions),
            State::Rotating { session, .. } => {
                self.keep(session, HandshakeError::Deadline, actions);
            }
            state @ (State::Offline | State::Open { .. }) => self.state = state,
        }
    }

    fn on_frame(
        &mut self,
        now: Tick,
        text: &str,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) {
        match Frame::parse(text) {
            Ok(Frame::Envelope(envelope)) => self.on_envelope(now, &envelope, rng, actions),
            Ok(Frame::KeyExchangeResponse(response)) => {
                self.on_response(now, &response, rng, actions);
            }
            Ok(Frame::KeyUpdateRequired(notice)) => self.on_notice(now, &notice, rng, actions),
            Ok(Frame::Status(status)) => self.on_status(now, &status, rng, actions),
            Ok(
                Frame::KeyExchangeInit(_)
                | Frame::PairingOfferRequest(_)
                | Frame::PairingRedeemRequest(_)
                | Frame::Other,
            ) => actions.push(ClientAction::Refused(Refusal::Unexpected)),
            Err(error) => actions.push(ClientAction::Refused(error.into())),
        }
    }

    fn on_envelope(
        &mut self,
        now: Tick,
        envelope: &Envelope<'_>,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) {
        let opened = match (&mut self.state, &mut self.previous) {
            (State::Open { session, .. } | State::Rotating { session, .. }, _)
                if *session.id() == envelope.session_id =>
            {
                session.open(envelope)
            }
            (_, Some((session, _))) if *session.id() == envelope.session_id => {
                session.open(envelope)
            }
            _ => Err(OpenError::Session),
        };
        let unknown = opened == Err(OpenError::Session);
        actions.push(match opened {
            Ok(text) => ClientAction::Deliver { text },
            Err(error) => ClientAction::Refused(error.into()),
        });
        // The daemon seems to have made the rotation whose answer was lost: ask again, once.
        if unknown && std::mem::take(&mut self.abandoned) {
            self.rotate(now, false, rng, actions);
        }
    }

    fn on_response(
        &mut self,
        now: Tick,
        response: &KeyExchangeResponse<'_>,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) {
        let awaited = match &self.state {
            State::Exchanging { attempt } | State::Rotating { attempt, .. } => {
                attempt.initiator.request_id() == response.request_id
            }
            State::Offline | State::Resting { .. } | State::Open { .. } => false,
        };
        if !awaited {
            actions.push(ClientAction::Refused(HandshakeError::RequestId.into()));
            return;
        }
        match std::mem::replace(&mut self.state, State::Offline) {
            State::Exchanging { attempt } => match attempt.initiator.finish(response) {
                Ok(established) => self.open(Session::new(established), false, actions),
                Err(error) => self.fail(now, error, rng, actions),
            },
            State::Rotating { session, attempt } => match attempt.initiator.finish(response) {
                Ok(established) => {
                    let until = now.after(self.settings.limits.handshake_deadline);
                    self.previous = Some((session, until));
                    self.open(Session::new(established), true, actions);
                }
                Err(error) => self.keep(session, error, actions),
            },
            state @ (State::Offline | State::Resting { .. } | State::Open { .. }) => {
                self.state = state;
            }
        }
    }

    fn on_notice(
        &mut self,
        now: Tick,
        notice: &KeyUpdateRequired<'_>,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) {
        let fits = match &self.state {
            State::Open { session, .. } => {
                *session.id() == notice.session_id
                    && session.epoch().checked_add(1) == Some(notice.next_epoch)
            }
            State::Offline
            | State::Exchanging { .. }
            | State::Resting { .. }
            | State::Rotating { .. } => false,
        };
        if fits {
            self.rotate(now, false, rng, actions);
        } else {
            actions.push(ClientAction::Refused(Refusal::Notice));
        }
    }

    fn on_status(
        &mut self,
        now: Tick,
        status: &Status<'_>,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) {
        actions.push(ClientAction::Status {
            code: status.code.to_string(),
            message: status.message.as_deref().map(str::to_owned),
            retryable: status.retryable.unwrap_or(false),
        });
        if status.code == "RELAY_REDIRECT"
            && let Some(url) = &status.relay_ws_base_url
        {
            actions.push(ClientAction::Redirect { url: url.to_string() });
        }
        if status.code == "DAEMON_UNAVAILABLE" {
            // Whatever daemon comes next, the relay no longer knows our session.
            match self.state {
                State::Exchanging { .. } | State::Open { .. } | State::Rotating { .. } => {
                    let retry_at = self.rest(now, rng);
                    actions.push(ClientAction::Lost { retry_at });
                }
                State::Offline | State::Resting { .. } => {}
            }
        }
    }

    /// Starts a handshake for a first session.
    fn exchange(&mut self, now: Tick, rng: &mut impl CryptoRng, actions: &mut Vec<ClientAction>) {
        let attempt = self.start(now, None, rng, actions);
        self.state = State::Exchanging { attempt };
    }

    /// Starts a handshake that replaces the open session. `ask`: the daemon has to be told first.
    fn rotate(
        &mut self,
        now: Tick,
        ask: bool,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) {
        match std::mem::replace(&mut self.state, State::Offline) {
            State::Open { session, .. } => {
                if ask {
                    let notice = Frame::KeyUpdateRequired(KeyUpdateRequired {
                        session_id: session.id().clone(),
                        next_epoch: session.epoch() + 1,
                        reason: Some(THRESHOLD.into()),
                    });
                    actions.push(transmit(&notice));
                }
                let attempt = self.start(now, Some(session.id()), rng, actions);
                self.state = State::Rotating { session, attempt };
            }
            state => self.state = state,
        }
    }

    fn start(
        &mut self,
        now: Tick,
        previous: Option<&SessionId>,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) -> Box<Attempt> {
        let request_id = request_id(rng);
        let (initiator, init) = Initiator::start(
            &self.settings.keys,
            KeyPair::generate(rng),
            &self.settings.daemon,
            self.settings.profile.clone(),
            &request_id,
            previous,
        );
        actions.push(transmit(&Frame::KeyExchangeInit(init)));
        let deadline = now.after(self.settings.limits.handshake_deadline);
        Box::new(Attempt { initiator, deadline })
    }

    fn open(&mut self, session: Session, rotated: bool, actions: &mut Vec<ClientAction>) {
        self.backoff.succeeded();
        self.abandoned = false;
        actions.push(ClientAction::Opened {
            session: session.id().clone(),
            epoch: session.epoch(),
            rotated,
        });
        let ask_at = self.settings.limits.ask_after.max(1);
        self.state = State::Open { session, ask_at };
    }

    /// Goes on under the old key after a rotation that failed.
    fn keep(&mut self, session: Session, error: HandshakeError, actions: &mut Vec<ClientAction>) {
        self.abandoned = true;
        let retry_at = None;
        actions.push(ClientAction::HandshakeFailed { error, retry_at });
        let ask_at = session.sent().saturating_add(self.settings.limits.ask_after.max(1));
        self.state = State::Open { session, ask_at };
    }

    fn fail(
        &mut self,
        now: Tick,
        error: HandshakeError,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<ClientAction>,
    ) {
        let retry_at = Some(self.rest(now, rng));
        actions.push(ClientAction::HandshakeFailed { error, retry_at });
    }

    /// Gives up what there is, to try again at the moment returned.
    fn rest(&mut self, now: Tick, rng: &mut impl CryptoRng) -> Tick {
        let until = now.after(self.backoff.failed(rng));
        self.state = State::Resting { until };
        until
    }

    /// Sends what waits, as long as there is a session and the socket takes it.
    fn flush(&mut self, now: Tick, rng: &mut impl CryptoRng, actions: &mut Vec<ClientAction>) {
        while self.writable {
            let State::Open { session, ask_at } = &mut self.state else {
                return;
            };
            if session.sent() >= *ask_at {
                return self.rotate(now, true, rng, actions);
            }
            let Some(Waiting { message, text, .. }) = self.outbox.pop() else {
                return;
            };
            match session.seal(&text, rng) {
                Ok(envelope) => actions.push(ClientAction::Transmit {
                    frame: Frame::Envelope(envelope).to_text(),
                    message: Some(message),
                }),
                Err(_) => {
                    let reason = Undelivered::KeyWornOut;
                    actions.push(ClientAction::Undelivered { message, reason });
                    return self.exchange(now, rng, actions);
                }
            }
        }
    }
}

fn transmit(frame: &Frame<'_>) -> ClientAction {
    ClientAction::Transmit { frame: frame.to_text(), message: None }
}

/// Reason of a client's own notice; the daemon's says the same.
const THRESHOLD: &str = "message_threshold";

#[cfg(test)]
mod transitions;
