//! A peer's socket, plain or under TLS.

use std::io::{Read, Write};

use relay_driver::sim::{Peer, PeerState};
use rustls::{AlertDescription, ClientConnection};

use crate::frames::{self, Frame};
use crate::tls;

/// Bytes in both directions as the application of the peer sees them.
pub(crate) struct Socket {
    peer: Peer,
    tls: Option<ClientConnection>,
    /// Bytes for the network that it did not take yet.
    outgoing: Vec<u8>,
    /// What the application received and did not use.
    pub(crate) incoming: Vec<u8>,
    /// Whether the peer reads at all.
    pub(crate) reads: bool,
    /// Whether close_notify came.
    pub(crate) notified: bool,
    /// The alert that ended the session, if one did.
    pub(crate) alert: Option<AlertDescription>,
}

impl Socket {
    pub(crate) fn new(peer: Peer, encrypted: bool) -> Self {
        let tls = encrypted.then(tls::client);
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        Self { peer, tls, outgoing, incoming, reads: true, notified: false, alert: None }
    }

    /// Sends application bytes, as fast as the network takes them.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes).expect("memory takes everything"),
            None => self.outgoing.extend_from_slice(bytes),
        }
    }

    /// Speaks TLS from now on.
    pub(crate) fn start_tls(&mut self, session: ClientConnection) {
        self.tls = Some(session);
    }

    /// The peer's TLS session.
    pub(crate) fn tls(&mut self) -> &mut ClientConnection {
        self.tls.as_mut().expect("this peer speaks TLS")
    }

    /// Sends bytes below TLS.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Bytes the network has not taken yet.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// Announces the end of what the peer sends, under TLS.
    pub(crate) fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }

    /// FIN.
    pub(crate) fn shutdown(&self) {
        self.peer.shutdown();
    }

    /// RST.
    pub(crate) fn reset(&self) {
        self.peer.reset();
    }

    pub(crate) fn state(&self) -> PeerState {
        self.peer.state()
    }

    /// Takes the complete frames out of what came.
    pub(crate) fn take_frames(&mut self) -> Vec<Frame> {
        frames::take(&mut self.incoming)
    }

    /// Moves bytes between application and network.
    pub(crate) fn pump(&mut self) {
        let arrived = if self.reads { self.peer.read(1 << 20) } else { Vec::new() };
        match &mut self.tls {
            None => self.incoming.extend_from_slice(&arrived),
            Some(tls) => {
                let mut records = arrived.as_slice();
                while !records.is_empty() && !self.notified {
                    tls.read_tls(&mut records).expect("memory can be read");
                    let state = match tls.process_new_packets() {
                        Ok(state) => state,
                        Err(rustls::Error::AlertReceived(alert)) => {
                            self.alert = Some(alert);
                            return;
                        }
                        Err(error) => panic!("the relay speaks TLS: {error}"),
                    };
                    let start = self.incoming.len();
                    self.incoming.resize(start + state.plaintext_bytes_to_read(), 0);
                    tls.reader().read_exact(&mut self.incoming[start..]).expect("it was counted");
                    self.notified = state.peer_has_closed();
                }
                while tls.wants_write() {
                    tls.write_tls(&mut self.outgoing).expect("memory takes everything");
                }
            }
        }
        let taken = self.peer.write(&self.outgoing);
        self.outgoing.drain(..taken);
    }
}
