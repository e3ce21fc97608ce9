//! The daemon's end without I/O: frames, texts and time in, actions out.

use std::collections::HashMap;

use indexmap::IndexMap;
use rand::CryptoRng;
use relay_contract::{Profile, Tick};

use crate::frame::{Envelope, Frame, KeyExchangeInit, KeyUpdateRequired};
use crate::handshake::{HandshakeError, Responder};
use crate::ids::{ConversationId, MessageId, SessionId};
use crate::keys::{KeyPair, PublicKey};
use crate::limits::Limits;
use crate::moment::Moment;
use crate::outbox::{Outbox, Undelivered, Waiting};
use crate::pairing::{self, PairingDesk, PairingPeers};
use crate::refusal::Refusal;
use crate::rotation::Rotation;
use crate::session::{OpenError, Session};

/// What a daemon is and whom it lets in.
pub struct DaemonSettings {
    /// The daemon's long-lived pair.
    pub keys: KeyPair,
    /// The weakest handshake that passes.
    pub required: Profile,
    /// Who is paired, and whether more may be.
    pub peers: Box<dyn PairingPeers>,
    /// Bounds.
    pub limits: Limits,
}

/// What can happen to a daemon. Its `Debug` shows kinds and lengths, never a text.
pub enum DaemonInput<'a> {
    /// A connection to the relay is open.
    Connected,
    /// It is gone. Sessions stay: they are between the ends.
    Disconnected,
    /// Whether the socket takes more. Assumed when connected.
    Writable(bool),
    /// The relay sent a text message.
    Frame(&'a str),
    /// The daemon's owner wants a text sent.
    Send {
        /// To whom.
        to: ConversationId,
        /// The owner's name for it.
        message: MessageId,
        /// The text.
        text: String,
    },
    /// [`DaemonEnd::deadline`] has come.
    Expired,
}

/// Who has opened a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Stays the same when keys rotate.
    pub conversation: ConversationId,
    /// The session's name on the wire.
    pub session: SessionId,
    /// The session's epoch.
    pub epoch: u64,
    /// Which handshake.
    pub profile: Profile,
    /// The client's static key. Proven once its first text arrives.
    pub key: PublicKey,
    /// Under which name it was paired, for `noise-ikpsk2`.
    pub pairing_peer_id: Option<Box<str>>,
}

/// Why a conversation is over.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EndReason {
    /// Nothing was sent or received for [`Limits::session_idle`].
    Idle,
    /// Newer sessions needed its place.
    Evicted,
    /// Its key carried all it may and was never replaced.
    KeyWornOut,
}

/// What the owner of a daemon is to do or to know. Its `Debug` shows kinds and lengths, never
/// a text.
#[derive(Clone, Eq, PartialEq)]
pub enum DaemonAction {
    /// Send a text message to the relay.
    Transmit {
        /// The whole frame.
        frame: String,
        /// Which of the owner's texts it carries, if any.
        message: Option<MessageId>,
    },
    /// Give the owner a text of a client.
    Deliver {
        /// From whom.
        from: ConversationId,
        /// The text.
        text: String,
    },
    /// A conversation has begun.
    Opened(Caller),
    /// A conversation has new keys.
    Rotated(Caller),
    /// A conversation is over.
    Ended {
        /// Which.
        conversation: ConversationId,
        /// Why.
        reason: EndReason,
    },
    /// Tell the owner that a text was not sent.
    Undelivered {
        /// Which.
        message: MessageId,
        /// Why.
        reason: Undelivered,
    },
    /// A frame was dropped.
    Refused(Refusal),
}

/// The daemon's end of all its conversations.
pub struct DaemonEnd {
    settings: DaemonSettings,
    /// In the order they were made: the oldest goes first.
    sessions: IndexMap<SessionId, Entry>,
    /// The session each conversation sends under.
    conversations: HashMap<ConversationId, SessionId>,
    conversations_made: u64,
    outbox: Outbox<ConversationId>,
    desk: PairingDesk,
    writable: bool,
    sweep_at: Tick,
}

struct Entry {
    session: Session,
    caller: Caller,
    used_at: Tick,
    rotation: Rotation,
    /// The session this one replaces, until the client has used this one.
    replaces: Option<SessionId>,
}

/// What an accepted message 1 leads to.
struct Succession {
    conversation: ConversationId,
    epoch: u64,
    replaces: Option<SessionId>,
}

impl DaemonEnd {
    /// A daemon that is not connected.
    pub fn new(settings: DaemonSettings) -> Self {
        Self {
            sessions: IndexMap::new(),
            conversations: HashMap::new(),
            conversations_made: 0,
            outbox: Outbox::new(&settings.limits),
            desk: PairingDesk::new(settings.limits.clone()),
            writable: false,
            sweep_at: Tick::default(),
            settings,
        }
    }

    /// Decides what follows from one input. Push order is the order to perform.
    ///
    /// `now` never goes backwards. Bad input of a peer costs a [`DaemonAction::Refused`] and
    /// nothing else.
    pub fn handle(
        &mut self,
        now: Moment,
        input: DaemonInput<'_>,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<DaemonAction>,
    ) {
        if now.tick >= self.sweep_at {
            self.sweep(now.tick, actions);
        }
        match input {
            DaemonInput::Connected => self.writable = true,
            DaemonInput::Disconnected => self.writable = false,
            DaemonInput::Writable(writable) => self.writable = writable,
            DaemonInput::Frame(text) => {
                if let Err(refusal) = self.on_frame(now, text, rng, actions) {
                    actions.push(DaemonAction::Refused(refusal));
                }
            }
            DaemonInput::Send { to, message, text } => self.on_send(to, message, text, actions),
            DaemonInput::Expired => {}
        }
        self.flush(now.tick, rng, actions);
    }

    /// When [`DaemonInput::Expired`] is wanted, if nothing else comes before.
    pub fn deadline(&self) -> Option<Tick> {
        (!self.sessions.is_empty()).then_some(self.sweep_at)
    }

    /// Sessions held, replaced ones that still receive among them.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Gives back every text that still waits, for an owner that stops.
    pub fn drain(&mut self) -> impl Iterator<Item = MessageId> + '_ {
        std::iter::from_fn(|| self.outbox.pop().map(|item| item.message))
    }

    fn on_frame(
        &mut self,
        now: Moment,
        text: &str,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<DaemonAction>,
    ) -> Result<(), Refusal> {
        match Frame::parse(text)? {
            Frame::Envelope(envelope) => self.on_envelope(now.tick, &envelope, actions)?,
            Frame::KeyExchangeInit(init) => self.on_init(now.tick, &init, rng, actions)?,
            Frame::KeyUpdateRequired(notice) => self.on_notice(&notice)?,
            Frame::PairingOfferRequest(request) => {
                let identity = self.settings.peers.identity();
                let answer = self.desk.offer(now, &request, identity, rng);
                let failed = || pairing::offer_failed(&request.request_id);
                answer_pairing(answer, failed, actions)?;
            }
            Frame::PairingRedeemRequest(request) => {
                let answer = self.desk.redeem(now, &request, &mut *self.settings.peers);
                let failed = || pairing::redeem_failed(&request.request_id);
                answer_pairing(answer, failed, actions)?;
            }
            Frame::KeyExchangeResponse(_) | Frame::Status(_) | Frame::Other => {
                return Err(Refusal::Unexpected);
            }
        }
        Ok(())
    }

    fn on_envelope(
        &mut self,
        now: Tick,
        envelope: &Envelope<'_>,
        actions: &mut Vec<DaemonAction>,
    ) -> Result<(), OpenError> {
        let idle = self.settings.limits.session_idle;
        let entry = self
            .sessions
            .get_mut(&envelope.session_id)
            .filter(|entry| !entry.is_over(now, idle))
            .ok_or(OpenError::Session)?;
        let text = entry.session.open(envelope)?;
        entry.used_at = now;
        let from = entry.caller.conversation;
        let replaced = entry.replaces.take();
        actions.push(DaemonAction::Deliver { from, text });
        if let Some(replaced) = replaced
            && let Some(old) = self.sessions.get_mut(&replaced)
            && let Rotation::Replaced { gone_at, .. } = &mut old.rotation
        {
            *gone_at = Some(now.after(self.settings.limits.handshake_deadline));
        }
        Ok(())
    }

    fn on_init(
        &mut self,
        now: Tick,
        init: &KeyExchangeInit<'_>,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<DaemonAction>,
    ) -> Result<(), HandshakeError> {
        // Cheap refusals first: reading message 1 costs two scalar multiplications.
        if let Some(previous) = &init.previous_session_id {
            let known = self.sessions.get(previous);
            if !known.is_some_and(|entry| entry.rotation != Rotation::Fresh) {
                return Err(HandshakeError::NoRotation);
            }
        }
        let responder = Responder::read(&self.settings.keys, self.settings.required, init)?;
        let peer_id: Option<Box<str>> = responder.pairing_peer_id().map(Into::into);
        let secret = match &peer_id {
            None => None,
            Some(id) => {
                let secret = self.settings.peers.secret(id);
                Some(secret.ok_or(HandshakeError::PairingUnknown)?)
            }
        };
        let succession = self.succession(now, init, &responder)?;
        let (key, ephemeral) = (*responder.client(), *responder.client_ephemeral());
        let (established, response) = responder.respond(
            &KeyPair::generate(rng),
            secret.as_ref(),
            SessionId::random(rng),
            succession.epoch,
        )?;
        let caller = Caller {
            conversation: succession.conversation,
            session: established.session_id.clone(),
            epoch: established.epoch,
            profile: established.profile,
            key,
            pairing_peer_id: peer_id,
        };
        actions.push(transmit(&Frame::KeyExchangeResponse(response), None));
        self.retire(&succession, &caller.session, ephemeral);
        self.admit(now, Session::new(established), caller, succession.replaces, actions);
        Ok(())
    }

    /// Whose conversation the new session carries on.
    fn succession(
        &mut self,
        now: Tick,
        init: &KeyExchangeInit<'_>,
        responder: &Responder,
    ) -> Result<Succession, HandshakeError> {
        let Some(previous) = &init.previous_session_id else {
            self.conversations_made += 1;
            return Ok(Succession {
                conversation: ConversationId(self.conversations_made),
                epoch: 1,
                replaces: None,
            });
        };
        let idle = self.settings.limits.session_idle;
        let entry = self
            .sessions
            .get(previous)
            .filter(|entry| !entry.is_over(now, idle))
            // The same client alone may carry a conversation on: everybody on the way knows the
            // session's name.
            .filter(|entry| entry.caller.key == *responder.client())
            .filter(|entry| entry.session.profile() == init.profile)
            .filter(|entry| entry.rotation.admits(responder.client_ephemeral()))
            .ok_or(HandshakeError::NoRotation)?;
        Ok(Succession {
            conversation: entry.caller.conversation,
            epoch: entry.session.epoch() + 1,
            replaces: Some(previous.clone()),
        })
    }

    /// Lets the old session send no more.
    fn retire(&mut self, succession: &Succession, by: &SessionId, ephemeral: PublicKey) {
        let Some(entry) = succession.replaces.as_ref().and_then(|id| self.sessions.get_mut(id))
        else {
            return;
        };
        let replaced =
            Rotation::Replaced { by: by.clone(), ephemeral: Box::new(ephemeral), gone_at: None };
        if let Rotation::Replaced { by, .. } = std::mem::replace(&mut entry.rotation, replaced) {
            // An answer the client never used.
            self.sessions.shift_remove(&by);
        }
    }

    fn admit(
        &mut self,
        now: Tick,
        session: Session,
        caller: Caller,
        replaces: Option<SessionId>,
        actions: &mut Vec<DaemonAction>,
    ) {
        // Before anything is evicted: the session evicted may be the one replaced here.
        self.conversations.insert(caller.conversation, caller.session.clone());
        if self.sessions.is_empty() {
            self.sweep_at = now.after(self.sweep_interval());
        }
        while self.sessions.len() >= self.settings.limits.sessions_max.max(1) {
            let Some((_, oldest)) = self.sessions.shift_remove_index(0) else {
                break;
            };
            self.end(&oldest, EndReason::Evicted, actions);
        }
        actions.push(if replaces.is_some() {
            DaemonAction::Rotated(caller.clone())
        } else {
            DaemonAction::Opened(caller.clone())
        });
        let entry = Entry { session, used_at: now, rotation: Rotation::Fresh, replaces, caller };
        self.sessions.insert(entry.caller.session.clone(), entry);
    }

    fn on_notice(&mut self, notice: &KeyUpdateRequired<'_>) -> Result<(), Refusal> {
        let entry = self.sessions.get_mut(&notice.session_id);
        let entry = entry.ok_or(Refusal::Notice)?;
        let epoch = entry.session.epoch();
        if entry.rotation.ask(epoch, notice.next_epoch) { Ok(()) } else { Err(Refusal::Notice) }
    }

    fn on_send(
        &mut self,
        to: ConversationId,
        message: MessageId,
        text: String,
        actions: &mut Vec<DaemonAction>,
    ) {
        if !self.conversations.contains_key(&to) {
            let reason = Undelivered::NoConversation;
            actions.push(DaemonAction::Undelivered { message, reason });
            return;
        }
        let item = Waiting { to, message, text };
        self.outbox.push(item, |message, reason| {
            actions.push(DaemonAction::Undelivered { message, reason });
        });
    }

    /// Sends what waits, as long as the socket takes it.
    fn flush(&mut self, now: Tick, rng: &mut impl CryptoRng, actions: &mut Vec<DaemonAction>) {
        while self.writable {
            let Some(Waiting { to, message, text }) = self.outbox.pop() else {
                return;
            };
            if let Err(reason) = self.send(now, to, message, &text, rng, actions) {
                actions.push(DaemonAction::Undelivered { message, reason });
            }
        }
    }

    fn send(
        &mut self,
        now: Tick,
        to: ConversationId,
        message: MessageId,
        text: &str,
        rng: &mut impl CryptoRng,
        actions: &mut Vec<DaemonAction>,
    ) -> Result<(), Undelivered> {
        let idle = self.settings.limits.session_idle;
        let entry = self
            .conversations
            .get(&to)
            .and_then(|id| self.sessions.get_mut(id))
            .filter(|entry| !entry.is_over(now, idle))
            .ok_or(Undelivered::NoConversation)?;
        let Ok(envelope) = entry.session.seal(text, rng) else {
            let id = entry.caller.session.clone();
            if let Some(entry) = self.sessions.shift_remove(&id) {
                self.end(&entry, EndReason::KeyWornOut, actions);
            }
            return Err(Undelivered::KeyWornOut);
        };
        entry.used_at = now;
        let sent = entry.session.sent();
        actions.push(transmit(&Frame::Envelope(envelope), Some(message)));
        if entry.rotation.falls_due(sent, self.settings.limits.rotate_after) {
            let notice = Frame::KeyUpdateRequired(KeyUpdateRequired {
                session_id: entry.caller.session.clone(),
                next_epoch: entry.session.epoch() + 1,
                reason: Some(THRESHOLD.into()),
            });
            actions.push(transmit(&notice, None));
        }
        Ok(())
    }

    /// Ends what is over. Cost: one pass over all sessions.
    fn sweep(&mut self, now: Tick, actions: &mut Vec<DaemonAction>) {
        self.sweep_at = now.after(self.sweep_interval());
        let idle = self.settings.limits.session_idle;
        let over = self.sessions.extract_if(.., |_, entry| entry.is_over(now, idle));
        let over: Vec<Entry> = over.map(|(_, entry)| entry).collect();
        for entry in over {
            self.end(&entry, EndReason::Idle, actions);
        }
    }

    /// What the end of a session that is out of the table means for its conversation.
    fn end(&mut self, entry: &Entry, reason: EndReason, actions: &mut Vec<DaemonAction>) {
        let conversation = entry.caller.conversation;
        if self.conversations.get(&conversation) != Some(&entry.caller.session) {
            return;
        }
        // A session the client never used gives way to the one it may still use.
        if let Some(old) = &entry.replaces
            && let Some(predecessor) = self.sessions.get_mut(old)
        {
            predecessor.rotation = Rotation::Pending;
            self.conversations.insert(conversation, old.clone());
            return;
        }
        self.conversations.remove(&conversation);
        actions.push(DaemonAction::Ended { conversation, reason });
    }

    fn sweep_interval(&self) -> std::time::Duration {
        self.settings.limits.session_idle / SWEEPS_PER_IDLE
    }
}

impl Entry {
    fn is_over(&self, now: Tick, idle: std::time::Duration) -> bool {
        now.since(self.used_at) >= idle || self.rotation.is_gone(now)
    }
}

fn transmit(frame: &Frame<'_>, message: Option<MessageId>) -> DaemonAction {
    DaemonAction::Transmit { frame: frame.to_text(), message }
}

/// Sends the answer of a pairing request; a failure is answered and then refused.
fn answer_pairing(
    answer: Result<String, pairing::PairingError>,
    failed: impl FnOnce() -> String,
    actions: &mut Vec<DaemonAction>,
) -> Result<(), Refusal> {
    let (frame, result) = match answer {
        Ok(frame) => (frame, Ok(())),
        Err(error) => (failed(), Err(error.into())),
    };
    let message = None;
    actions.push(DaemonAction::Transmit { frame, message });
    result
}

/// Reason of a daemon's notice. Source: endpoint specification, section 4.
const THRESHOLD: &str = "message_threshold";
/// How often sessions are looked over while one could become idle.
const SWEEPS_PER_IDLE: u32 = 30;
