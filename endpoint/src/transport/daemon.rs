//! A daemon on a real socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use rand::rngs::StdRng;
use relay_contract::{Role, Tick};

use super::address::RelayAddress;
use super::bell::{Bell, Button};
use super::client::{SendError, StartError};
use super::entropy;
use super::link::{Handle, Link, LinkInput, Outgoing, Party};
use crate::daemon::{Caller, DaemonAction, DaemonEnd, DaemonInput, DaemonSettings, EndReason};
use crate::ids::{ConversationId, MessageId};
use crate::moment::Moment;
use crate::observer::{Observation, Observer};
use crate::outbox::Undelivered;

/// Everything a daemon needs.
pub struct DaemonConfig {
    /// Where the relay is, and as whom we come.
    pub address: RelayAddress,
    /// Keys, policy, peers, bounds.
    pub settings: DaemonSettings,
    /// Sees everything; `Box::new(())` sees nothing.
    pub observer: Box<dyn Observer>,
}

/// What a daemon does with what clients say.
///
/// It runs on the daemon's own thread: while it works, nothing is sent and nothing received. A
/// closure from conversation and text to an optional answer is a handler too; it is not told of
/// texts that were not sent.
pub trait Handler: Send + 'static {
    /// A client says something.
    fn on_text(&mut self, from: ConversationId, text: String, replies: &mut Replies);

    /// A client has come, or has new keys.
    fn on_opened(&mut self, _caller: &Caller) {}

    /// A client is gone.
    fn on_ended(&mut self, _conversation: ConversationId, _reason: EndReason) {}

    /// A text, the handler's own or one of [`DaemonSender::send`], was not sent.
    fn on_undelivered(&mut self, _message: MessageId, _reason: Undelivered) {}
}

impl<F> Handler for F
where
    F: FnMut(ConversationId, String) -> Option<String> + Send + 'static,
{
    fn on_text(&mut self, from: ConversationId, text: String, replies: &mut Replies) {
        if let Some(answer) = self(from, text) {
            replies.send(from, answer);
        }
    }
}

/// Texts a handler wants sent, to anyone.
pub struct Replies {
    messages: Arc<AtomicU64>,
    waiting: Vec<Order>,
}

impl Replies {
    /// Sends a text when the handler returns.
    pub fn send(&mut self, to: ConversationId, text: impl Into<String>) -> MessageId {
        let order = Order::new(&self.messages, to, text.into());
        let message = order.message;
        self.waiting.push(order);
        message
    }
}

/// A daemon that stays connected until it is dropped.
pub struct Daemon {
    sender: DaemonSender,
    handle: Handle,
}

impl Daemon {
    /// Starts a daemon. It connects on its own time and reconnects by itself. Cost: one thread.
    ///
    /// Errors: it could not be started.
    pub fn serve(config: DaemonConfig, handler: impl Handler) -> Result<Self, StartError> {
        config.address.tls().map_err(StartError::Address)?;
        let rng = entropy()?;
        let (bell, button) = Bell::new()?;
        let limits = config.settings.limits.clone();
        let (orders, lane) = sync_channel(limits.queue_messages_max.max(1));
        let messages = Arc::new(AtomicU64::new(1));
        let party = DaemonParty {
            end: DaemonEnd::new(config.settings),
            handler,
            observer: config.observer,
            replies: Replies { messages: messages.clone(), waiting: Vec::new() },
        };
        let address = config.address;
        let link = Link { party, address, orders: lane, limits, rng };
        let handle = link.start(bell, button.clone())?;
        let sender = DaemonSender { orders, button, messages };
        Ok(Self { sender, handle })
    }

    /// For threads that have something to say unasked.
    pub fn sender(&self) -> DaemonSender {
        self.sender.clone()
    }

    /// Whether its thread lives; a handler that panics ends it.
    pub fn is_running(&self) -> bool {
        self.handle.is_running()
    }

    /// Ends the daemon and waits for its thread. Texts that waited are reported to the handler.
    pub fn stop(mut self) {
        self.handle.stop();
    }
}

/// Sends texts to a daemon's clients from any thread.
#[derive(Clone)]
pub struct DaemonSender {
    orders: SyncSender<Order>,
    button: Button,
    messages: Arc<AtomicU64>,
}

impl DaemonSender {
    /// Hands a text over. If it cannot be sent after all, [`Handler::on_undelivered`] says so.
    ///
    /// Errors: the text was not taken.
    pub fn send(
        &self,
        to: ConversationId,
        text: impl Into<String>,
    ) -> Result<MessageId, SendError> {
        let order = Order::new(&self.messages, to, text.into());
        let message = order.message;
        self.orders.try_send(order)?;
        self.button.press();
        Ok(message)
    }
}

struct Order {
    to: ConversationId,
    message: MessageId,
    text: String,
    at: Instant,
}

impl Order {
    fn new(messages: &AtomicU64, to: ConversationId, text: String) -> Self {
        let message = MessageId(messages.fetch_add(1, Ordering::Relaxed));
        let at = Instant::now();
        Self { to, message, text, at }
    }
}

struct DaemonParty<H> {
    end: DaemonEnd,
    handler: H,
    observer: Box<dyn Observer>,
    replies: Replies,
}

impl<H: Handler> Party for DaemonParty<H> {
    type Order = Order;
    const ROLE: Role = Role::Daemon;

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
                DaemonInput::Connected
            }
            LinkInput::Disconnected(error) => {
                let seen = Observation::Disconnected(error);
                self.observer.observe(Instant::now(), &seen);
                DaemonInput::Disconnected
            }
            LinkInput::Writable(writable) => DaemonInput::Writable(writable),
            LinkInput::Frame(frame) => {
                let seen = Observation::FrameReceived { frame };
                self.observer.observe(Instant::now(), &seen);
                DaemonInput::Frame(frame)
            }
            LinkInput::Order(order) => self.queued(order),
            LinkInput::Expired => DaemonInput::Expired,
            LinkInput::Lost(message) => return self.lost(message, Undelivered::ConnectionLost),
            LinkInput::Stopped => return self.stop(),
        };
        self.step(now, input, rng, outgoing);
        // Answers may bring no further texts, so this ends.
        for order in std::mem::take(&mut self.replies.waiting) {
            let input = self.queued(order);
            self.step(now, input, rng, outgoing);
        }
    }

    fn deadline(&self) -> Option<Tick> {
        self.end.deadline()
    }

    fn reads(&self) -> bool {
        true
    }
}

impl<H: Handler> DaemonParty<H> {
    fn queued(&mut self, order: Order) -> DaemonInput<'static> {
        let Order { to, message, text, at } = order;
        let seen = Observation::TextQueued { message, text: &text };
        self.observer.observe(at, &seen);
        DaemonInput::Send { to, message, text }
    }

    fn step(
        &mut self,
        now: Moment,
        input: DaemonInput<'_>,
        rng: &mut StdRng,
        outgoing: &mut Outgoing,
    ) {
        let mut actions = Vec::new();
        self.end.handle(now, input, rng, &mut actions);
        for action in actions {
            self.perform(action, outgoing);
        }
    }

    fn perform(&mut self, action: DaemonAction, outgoing: &mut Outgoing) {
        let at = Instant::now();
        match action {
            DaemonAction::Transmit { frame, message } => {
                let seen = Observation::FrameSent { message, frame: &frame };
                self.observer.observe(at, &seen);
                outgoing.frames.push_back((frame, message));
            }
            DaemonAction::Deliver { from, text } => {
                let seen = Observation::TextReceived { from: Some(from), text: &text };
                self.observer.observe(at, &seen);
                self.handler.on_text(from, text, &mut self.replies);
            }
            DaemonAction::Opened(caller) => self.opened(&caller, false),
            DaemonAction::Rotated(caller) => self.opened(&caller, true),
            DaemonAction::Ended { conversation, reason } => {
                let seen = Observation::CallerEnded { conversation, reason };
                self.observer.observe(at, &seen);
                self.handler.on_ended(conversation, reason);
            }
            DaemonAction::Undelivered { message, reason } => self.lost(message, reason),
            DaemonAction::Refused(refusal) => {
                self.observer.observe(at, &Observation::Refused(refusal));
            }
        }
    }

    fn opened(&mut self, caller: &Caller, rotated: bool) {
        let seen = Observation::CallerOpened { caller, rotated };
        self.observer.observe(Instant::now(), &seen);
        self.handler.on_opened(caller);
    }

    fn lost(&mut self, message: MessageId, reason: Undelivered) {
        let seen = Observation::Undelivered { message, reason };
        self.observer.observe(Instant::now(), &seen);
        self.handler.on_undelivered(message, reason);
    }

    fn stop(&mut self) {
        let waiting: Vec<MessageId> = self.end.drain().collect();
        for message in waiting {
            self.lost(message, Undelivered::Stopped);
        }
    }
}
