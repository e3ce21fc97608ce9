//! A WebSocket connection with a thread that reads it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::conversation::{Conversation, Habits};
use crate::http_message::Head;
use crate::normalise::Normaliser;
use crate::opening::{self, Opening};
use crate::step::Abort;
use crate::transport::Transport;
use crate::watched::{Deadline, Watched};

/// A client's connection. Dropping it closes it.
pub(crate) struct WebSocket {
    transport: Option<Arc<Transport>>,
    conversation: Arc<Watched<Conversation>>,
    reader: Option<JoinHandle<()>>,
    /// The `Sec-WebSocket-Accept` that is right.
    accept: String,
}

impl WebSocket {
    /// Connects and sends the request. Errors: the connection was not made.
    pub(crate) fn open(
        opening: &Opening,
        tls: Option<Arc<ClientConfig>>,
        habits: Habits,
    ) -> io::Result<Self> {
        let transport = Arc::new(Transport::connect(opening.port, tls)?);
        // A relay may have refused before it has read; then the answer tells, not the write.
        let _ = transport.send(&opening.encode());
        let conversation = Arc::new(Watched::new(Conversation::new(habits)));
        let reader = {
            let (transport, conversation) = (Arc::clone(&transport), Arc::clone(&conversation));
            thread::spawn(move || read(&transport, &conversation))
        };
        let accept = opening.accept();
        Ok(Self { transport: Some(transport), conversation, reader: Some(reader), accept })
    }

    /// Waits for the answer to the upgrade request.
    pub(crate) fn opened(&self, deadline: Deadline, normaliser: &Normaliser) -> Value {
        let answered = self.conversation.wait(deadline, |conversation| {
            let answered = Head::parse(&conversation.raw).is_some();
            (answered || conversation.ended).then_some(answered)
        });
        if answered == Some(true) {
            let accepted = self.conversation.with(|conversation| conversation.accepted.clone());
            if let Some(head) = accepted {
                return opening::observe_accepted(&head, &self.accept, normaliser);
            }
            let rest = Deadline::after_ms(REFUSAL_MS);
            self.conversation.wait(rest, |conversation| conversation.ended.then_some(()));
        }
        self.conversation.with(|conversation| {
            opening::observe_refused(&conversation.raw, conversation.ended, normaliser)
        })
    }

    /// Writes bytes. A relay that has closed the connection does not make that an error: what
    /// it did is for a later step to observe.
    pub(crate) fn send(&self, bytes: &[u8]) {
        if let Some(transport) = &self.transport {
            let _ = transport.send(bytes);
        }
    }

    pub(crate) fn conversation(&self) -> &Watched<Conversation> {
        &self.conversation
    }

    /// Waits for the end of the connection.
    pub(crate) fn wait_ended(&self, deadline: Deadline) {
        self.conversation.wait(deadline, |conversation| conversation.ended.then_some(()));
    }

    /// The close frame and whether the connection has ended.
    pub(crate) fn observe_end(&self, normaliser: &Normaliser) -> Value {
        self.conversation.with(|conversation| {
            let close = conversation.close.as_ref().map(|close| close.observe(normaliser));
            json!({"close": close, "eof": conversation.ended})
        })
    }

    /// Gives the connection up and waits until the socket is closed.
    pub(crate) fn abort(&mut self, how: Abort) {
        let Some(transport) = self.transport.take() else {
            return;
        };
        self.conversation.update(|conversation| conversation.aborted = true);
        transport.abort(how);
        drop(transport);
        if let Some(reader) = self.reader.take() {
            // The reader owns the socket too; a reset goes out when both have let go.
            reader.join().expect("the reader does not panic");
        }
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        self.abort(Abort::Fin);
    }
}

fn read(transport: &Transport, conversation: &Watched<Conversation>) {
    let mut received = Vec::new();
    loop {
        let resumed = conversation.wait(Deadline::after_ms(PAUSE_CHECK_MS), |conversation| {
            (!conversation.paused || conversation.aborted).then_some(conversation.aborted)
        });
        match resumed {
            None => continue,
            Some(true) => return,
            Some(false) => {}
        }
        received.clear();
        let open = transport.receive(&mut received).unwrap_or(false);
        let answers = conversation.update(|conversation| conversation.receive(&received));
        if !answers.is_empty() {
            let _ = transport.send(&answers);
        }
        if !open {
            conversation.update(|conversation| conversation.ended = true);
            return;
        }
    }
}

/// How long the bytes of a refusal are waited for.
const REFUSAL_MS: u64 = 8_000;

/// A pause ends with a signal; the bound only keeps the wait finite.
const PAUSE_CHECK_MS: u64 = 60_000;
