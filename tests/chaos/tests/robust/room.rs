//! A daemon and its client, whom no rate holds up.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use relay_chaos::{Peer, frame, message};

use crate::stage::Stage;

/// The two ends of one scope, played by hand.
pub(crate) struct Room {
    pub(crate) daemon: Peer,
    pub(crate) client: Peer,
    pub(crate) stage: Stage,
}

impl Room {
    /// Opens a room of the workspace `w` at a relay of its own.
    pub(crate) fn unlimited() -> Result<Self> {
        let stage = Stage::set(&[
            // Whoever else comes lives on the same shard.
            ("RELAY_SHARDS", "1"),
            ("RELAY_KEX_INIT_RATE_PER_MINUTE", PLENTY),
            ("RELAY_RUNTIME_RATE_PER_MINUTE", PLENTY),
            ("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", PLENTY),
            ("RELAY_DAEMON_RUNTIME_RATE_PER_MINUTE", PLENTY),
        ])?;
        let daemon = stage.scene().open(&stage.mint.daemon("w")?)?;
        let client = stage.scene().open(&stage.mint.client("w", "c")?)?;
        Ok(Self { daemon, client, stage })
    }

    /// The client asks for a session and gets it.
    pub(crate) fn exchange(&mut self, request: &str, session: &str) -> Result<()> {
        self.client.send(&frame::text(&message::key_exchange(request)));
        ensure!(heard(&mut self.daemon)? == message::key_exchange(request), "another request");
        let answer = message::key_exchanged(request, session);
        self.daemon.send(&frame::text(&answer));
        ensure!(heard(&mut self.client)? == answer, "another answer");
        Ok(())
    }

    /// The processor time that the relay takes for messages both ways.
    pub(crate) fn processor_time_of_messages(&mut self, session: &str) -> Result<Duration> {
        let text = message::encrypted(session, 1, "AAAA");
        let messages = frame::text(&text).repeat(AT_ONCE);
        let before = self.stage.processor_time()?;
        for _ in 0..ROUNDS {
            self.client.send(&messages);
            for _ in 0..AT_ONCE {
                ensure!(heard(&mut self.daemon)? == text, "another message");
            }
            self.daemon.send(&messages);
            for _ in 0..AT_ONCE {
                ensure!(heard(&mut self.client)? == text, "another message");
            }
        }
        Ok(self.stage.processor_time()?.saturating_sub(before))
    }
}

/// The next message.
pub(crate) fn heard(peer: &mut Peer) -> Result<String> {
    peer.text().map_err(|end| anyhow!("instead of a message: {end:?}"))
}

const PLENTY: &str = "1000000000";
/// Messages in one direction before the other has its turn: few enough for any queue.
const AT_ONCE: usize = 250;
const ROUNDS: usize = 40;
