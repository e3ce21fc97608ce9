//! A client on a real socket.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use relay_contract::{Role, Tick};

use super::address::RelayAddress;
use super::bell::{Bell, Button};
use super::entropy;
use super::inbox::Inbox;
use super::link::{Handle, Link, LinkInput, Outgoing, Party};
use crate::Fault;
use crate::client::{ClientAction, ClientEnd, ClientInput, ClientSettings};
use crate::ids::MessageId;
use crate::moment::Moment;
use crate::observer::{Observation, Observer};
use crate::outbox::Undelivered;

/// Everything a client needs.
pub struct ClientConfig {
    /// Where the relay is, and as whom we come.
    pub address: RelayAddress,
    /// Keys, daemon, profile, bounds.
    pub settings: ClientSettings,
    /// Sees everything; `Box::new(())` sees nothing.
    pub observer: Box<dyn Observer>,
}

/// A client that stays connected until it is dropped.
///
/// Dropping waits for its thread, which may be in the middle of opening a connection: for
/// [`crate::Limits::handshake_deadline`] at most, where the system's name resolution keeps to it.
///
/// ```no_run
/// # use std::time::Duration;
/// # use relay_endpoint::{Client, ClientConfig, Received};
/// # fn example(config: ClientConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect(config, Duration::from_secs(10))?;
/// client.send("hello")?;
/// if let Some(Received::Text(text)) = client.recv(Duration::from_secs(1))? {
///     println!("{text}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct Client {
    orders: SyncSender<Order>,
    button: Button,
    inbox: Inbox,
    messages: AtomicU64,
    _handle: Handle,
}

/// What a client's user gets. Its `Debug` shows kinds and lengths, never a text.
#[derive(Clone, Eq, PartialEq)]
pub enum Received {
    /// A text of the daemon.
    Text(String),
    /// A text of ours that was not sent.
    Undelivered {
        /// Which, as [`Client::send`] named it.
        message: MessageId,
        /// Why.
        reason: Undelivered,
    },
    /// The relay says why something does not work; with `DAEMON_UNAVAILABLE` it has dropped what it
    /// just got.
    Status {
        /// The code.
        code: String,
        /// For people.
        message: Option<String>,
        /// Whether trying again later makes sense.
        retryable: bool,
    },
}

impl Received {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Undelivered { .. } => 0,
            Self::Status { code, message, .. } => {
                code.len() + message.as_ref().map_or(0, String::len)
            }
        }
    }
}

impl Client {
    /// Starts a client and waits for its first session.
    ///
    /// Errors: none could be opened in time, and the client is stopped again; or it could not be
    /// started.
    pub fn connect(config: ClientConfig, timeout: Duration) -> Result<Self, StartError> {
        let client = Self::start(config)?;
        if client.inbox.wait_opened(timeout) { Ok(client) } else { Err(StartError::Timeout) }
    }

    /// Starts a client that connects on its own time. Texts sent meanwhile wait.
    ///
    /// Cost: one thread.
    pub fn start(config: ClientConfig) -> Result<Self, StartError> {
        config.address.tls().map_err(StartError::Address)?;
        let rng = entropy()?;
        let (bell, button) = Bell::new()?;
        let limits = config.settings.limits.clone();
        let inbox = Inbox::new(&limits, button.clone());
        let (orders, lane) = sync_channel(limits.queue_messages_max.max(1));
        let party = ClientParty {
            end: ClientEnd::new(config.settings),
            inbox: inbox.clone(),
            observer: config.observer,
            actions: Vec::new(),
        };
        let address = config.address;
        let link = Link { party, address, orders: lane, limits, rng };
        let handle = link.start(bell, button.clone())?;
        let messages = AtomicU64::new(1);
        Ok(Self { orders, button, inbox, messages, _handle: handle })
    }

    /// Hands a text over. What becomes of it otherwise comes back as [`Received::Undelivered`].
    ///
    /// Errors: the text was not taken.
    pub fn send(&self, text: impl Into<String>) -> Result<MessageId, SendError> {
        if self.inbox.is_overrun() {
            return Err(SendError::Busy);
        }
        let message = MessageId(self.messages.fetch_add(1, Ordering::Relaxed));
        let text = text.into();
        let at = Instant::now();
        self.orders.try_send(Order { message, text, at })?;
        self.button.press();
        Ok(message)
    }

    /// The next text or report; `None` when there was none in time. Errors: the client has ended.
    pub fn recv(&self, timeout: Duration) -> Result<Option<Received>, RecvError> {
        self.inbox.take(timeout).map_err(|_| RecvError::Ended)
    }
}

pub(super) struct Order {
    message: MessageId,
    text: String,
    at: Instant,
}

struct ClientParty {
    end: ClientEnd,
    inbox: Inbox,
    observer: Box<dyn Observer>,
    actions: Vec<ClientAction>,
}

impl Party for ClientParty {
    type Order = Order;
    const ROLE: Role = Role::Client;

    fn handle(
        &mut self,
        now: Moment,
        input: LinkInput<'_, Order>,
        rng: &mut StdRng,
        outgoing: &mut Outgoing,
    ) {
        let input = match input {
            LinkInput::Connected => {
                self.observer.observe(Instant::now(), &Observation::Connected);
                ClientInput::Connected
            }
            LinkInput::Disconnected(error) => {
                let seen = Observation::Disconnected(error);
                self.observer.observe(Instant::now(), &seen);
                ClientInput::Disconnected
            }
            LinkInput::Writable(writable) => ClientInput::Writable(writable),
            LinkInput::Frame(frame) => {
                let seen = Observation::FrameReceived { frame };
                self.observer.observe(Instant::now(), &seen);
                ClientInput::Frame(frame)
            }
            LinkInput::Order(Order { message, text, at }) => {
                let seen = Observation::TextQueued { message, text: &text };
                self.observer.observe(at, &seen);
                ClientInput::Send { message, text }
            }
            LinkInput::Expired => ClientInput::Expired,
            LinkInput::Lost(message) => return self.lost(message, Undelivered::ConnectionLost),
            LinkInput::Stopped => return self.stop(),
        };
        let mut actions = std::mem::take(&mut self.actions);
        self.end.handle(now.tick, input, rng, &mut actions);
        for action in actions.drain(..) {
            self.perform(action, outgoing);
        }
        self.actions = actions;
    }

    fn deadline(&self) -> Option<Tick> {
        self.end.deadline()
    }

    fn reads(&self) -> bool {
        self.inbox.has_room()
    }
}

impl ClientParty {
    fn perform(&mut self, action: ClientAction, outgoing: &mut Outgoing) {
        let at = Instant::now();
        match action {
            ClientAction::Transmit { frame, message } => {
                let seen = Observation::FrameSent { message, frame: &frame };
                self.observer.observe(at, &seen);
                outgoing.frames.push_back((frame, message));
            }
            ClientAction::Deliver { text } => {
                let seen = Observation::TextReceived { from: None, text: &text };
                self.observer.observe(at, &seen);
                self.inbox.put(Received::Text(text));
            }
            ClientAction::Opened { session, epoch, rotated } => {
                let session = &session;
                let seen = Observation::SessionOpened { session, epoch, rotated };
                self.observer.observe(at, &seen);
                self.inbox.open();
            }
            ClientAction::HandshakeFailed { error, .. } => {
                self.observer.observe(at, &Observation::HandshakeFailed(error));
            }
            ClientAction::Lost { .. } => self.observer.observe(at, &Observation::DaemonAway),
            ClientAction::Undelivered { message, reason } => self.lost(message, reason),
            ClientAction::Refused(refusal) => {
                self.observer.observe(at, &Observation::Refused(refusal));
            }
            ClientAction::Status { code, message, retryable } => {
                self.observer.observe(at, &Observation::Status { code: &code });
                self.inbox.put(Received::Status { code, message, retryable });
            }
            ClientAction::Redirect { url } => outgoing.redirect = Some(url),
        }
    }

    fn lost(&mut self, message: MessageId, reason: Undelivered) {
        let seen = Observation::Undelivered { message, reason };
        self.observer.observe(Instant::now(), &seen);
        self.inbox.put(Received::Undelivered { message, reason });
    }

    fn stop(&mut self) {
        let waiting: Vec<MessageId> = self.end.drain().collect();
        for message in waiting {
            self.lost(message, Undelivered::Stopped);
        }
        self.inbox.close();
    }
}

/// However the thread ends, its user is not left waiting.
impl Drop for ClientParty {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

/// Why an end did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be used.
    #[error("address: {0}")]
    Address(super::AddressError),
    /// The operating system gave no randomness.
    #[error("no randomness: {0}")]
    Entropy(#[from] getrandom::Error),
    /// The operating system gave no thread or no socket pair.
    #[error("operating system: {0}")]
    Io(#[from] io::Error),
    /// No session in time.
    #[error("no session before the timeout")]
    Timeout,
}

impl StartError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Timeout => Fault::Upstream,
            Self::Address(_) | Self::Entropy(_) | Self::Io(_) => Fault::Us,
        }
    }
}

/// Why a text was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The end is busy with earlier ones, or its reports about them are not taken.
    #[error("too many messages at once")]
    Busy,
    /// The end has ended.
    #[error("the end has ended")]
    Ended,
}

impl SendError {
    /// Ours: nobody else is involved yet.
    pub fn fault(self) -> Fault {
        Fault::Us
    }

    /// Whether sending it again may succeed.
    pub fn is_retryable(self) -> bool {
        self == Self::Busy
    }
}

impl<T> From<TrySendError<T>> for SendError {
    fn from(error: TrySendError<T>) -> Self {
        match error {
            TrySendError::Full(_) => Self::Busy,
            TrySendError::Disconnected(_) => Self::Ended,
        }
    }
}

/// Why nothing will be received any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecvError {
    /// The client has ended.
    #[error("the client has ended")]
    Ended,
}
