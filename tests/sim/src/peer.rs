//! A WebSocket client of the simulation's own: it shares no code with the relay's codec.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use relay_driver::sim::{Peer, PeerState, Seed, World};

/// One connection of an actor, from TCP to the last byte.
#[derive(Debug)]
pub(crate) struct Wire {
    peer: Peer,
    received: Vec<u8>,
    outgoing: Vec<u8>,
    pub(crate) stage: Stage,
    /// Whether it reads. A peer that does not is a slow reader.
    pub(crate) reading: bool,
    /// Whether it sent nonsense: what the relay made of that is its own affair.
    wild: bool,
    /// Whether it said that it sends nothing more.
    finished: bool,
    pings: u64,
    /// The last ping that was answered.
    ponged: u64,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// The upgrade was sent.
    Upgrading,
    /// 101 came.
    Open,
    /// Nothing more will come.
    Over,
}

/// What came.
#[derive(Debug, Eq, Hash, PartialEq)]
pub(crate) enum Arrival {
    /// The upgrade was answered with 101.
    Opened,
    /// The upgrade was answered otherwise.
    Refused(u16),
    /// A plain HTTP request was answered.
    Answered(u16),
    /// A text message.
    Text(Vec<u8>),
    /// A close frame.
    Closing(Option<u16>),
    /// The answer to a ping.
    Pong,
    /// Something the relay may not send.
    Wrong(String),
    /// The connection is over.
    Gone,
}

/// What a peer shows when it connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card<'c> {
    /// Path and query.
    pub(crate) target: &'c str,
    /// Last number of its address.
    pub(crate) host: u8,
    /// Tells the simulated control plane what it is for.
    pub(crate) token: &'c str,
}

impl Wire {
    /// Connects and asks to upgrade. `None` when the relay does not listen any more.
    pub(crate) fn connect(world: &World, listener: usize, card: Card<'_>) -> Option<Self> {
        let Card { target, host, token } = card;
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 40_000);
        let peer = world.connect(listener, from)?;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        Some(Self {
            peer,
            received: Vec::new(),
            outgoing: request.into_bytes(),
            stage: Stage::Upgrading,
            reading: true,
            wild: false,
            finished: false,
            pings: 0,
            ponged: 0,
        })
    }

    /// Whether everything written has been taken by the network.
    pub(crate) fn is_drained(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Queues a text message as one frame or several.
    pub(crate) fn send_text(&mut self, text: &[u8], seed: &mut Seed) {
        let cuts = if seed.below(4) == 0 { seed.below(3) as usize } else { 0 };
        let mut rest = text;
        for index in 0..=cuts {
            let len =
                if index == cuts { rest.len() } else { seed.below(rest.len() as u64) as usize };
            let (part, tail) = rest.split_at(len);
            let opcode = if index == 0 { 0x1 } else { 0x0 };
            self.send_frame(opcode, index == cuts, part, seed);
            if index < cuts && seed.below(4) == 0 {
                self.send_ping(seed);
            }
            rest = tail;
        }
    }

    /// Queues a ping that names itself.
    pub(crate) fn send_ping(&mut self, seed: &mut Seed) {
        self.pings += 1;
        self.send_frame(0x9, true, &self.pings.to_be_bytes(), seed);
    }

    /// Whether it is open, and all it sent was sound.
    pub(crate) fn is_sound(&self) -> bool {
        self.stage == Stage::Open && !self.wild
    }

    /// Whether pings were sent and none was ever answered.
    pub(crate) fn is_ignored(&self) -> bool {
        self.pings > 0 && self.ponged == 0
    }

    /// Queues a close frame.
    pub(crate) fn send_close(&mut self, seed: &mut Seed) {
        self.send_frame(0x8, true, &1000u16.to_be_bytes(), seed);
    }

    /// Queues bytes that are no frame.
    pub(crate) fn send_nonsense(&mut self, seed: &mut Seed) {
        let bytes: Vec<u8> = (0..seed.length(40)).map(|_| seed.bits() as u8).collect();
        self.outgoing.extend_from_slice(&bytes);
        self.wild = true;
    }

    fn send_frame(&mut self, opcode: u8, fin: bool, payload: &[u8], seed: &mut Seed) {
        let mask = (seed.bits() as u32).to_be_bytes();
        self.outgoing.push(opcode | if fin { 0x80 } else { 0 });
        match payload.len() {
            len @ 0..126 => self.outgoing.push(0x80 | len as u8),
            len @ 126..65_536 => {
                self.outgoing.push(0x80 | 126);
                self.outgoing.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                self.outgoing.push(0x80 | 127);
                self.outgoing.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        self.outgoing.extend_from_slice(&mask);
        let masked = payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]);
        self.outgoing.extend(masked);
    }

    /// Ends what it sends, wherever it is in it.
    pub(crate) fn finish(&mut self) {
        self.peer.shutdown();
        self.outgoing.clear();
        self.finished = true;
        self.wild = true;
    }

    /// Cuts the connection.
    pub(crate) fn cut(&mut self) {
        self.peer.reset();
    }

    /// Writes what the network takes and reads what has come.
    pub(crate) fn turn(&mut self, seed: &mut Seed) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        if self.stage == Stage::Over {
            return arrivals;
        }
        if self.finished {
            self.outgoing.clear();
        }
        let taken = self.peer.write(&self.outgoing);
        self.outgoing.drain(..taken);
        if self.reading {
            let bytes = self.peer.read(64 << 10);
            self.received.extend_from_slice(&bytes);
            self.parse(&mut arrivals, seed);
        }
        if self.peer.state() != PeerState::Open && self.reading {
            self.stage = Stage::Over;
            self.peer.shutdown();
            arrivals.push(Arrival::Gone);
        }
        arrivals
    }

    fn parse(&mut self, arrivals: &mut Vec<Arrival>, seed: &mut Seed) {
        if self.stage == Stage::Upgrading {
            let Some(end) = find(&self.received, b"\r\n\r\n") else {
                return;
            };
            let head: Vec<u8> = self.received.drain(..end + 4).collect();
            let status = std::str::from_utf8(&head[9..12]).ok().and_then(|code| code.parse().ok());
            let status: u16 = status.expect("the relay answers with a status line");
            if status != 101 {
                return arrivals.push(Arrival::Refused(status));
            }
            self.stage = Stage::Open;
            arrivals.push(Arrival::Opened);
        }
        while let Some((opcode, payload)) = self.next_frame() {
            match opcode {
                0x1 => arrivals.push(Arrival::Text(payload)),
                0x8 => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    arrivals.push(Arrival::Closing(code));
                    self.send_frame(0x8, true, &payload[..payload.len().min(2)], seed);
                }
                0x9 => self.send_frame(0xa, true, &payload, seed),
                0xa => arrivals.push(self.on_pong(&payload)),
                other => arrivals.push(Arrival::Wrong(format!("opcode {other}"))),
            }
        }
    }

    /// Pings may stay unanswered when many wait, but answers keep their order.
    fn on_pong(&mut self, payload: &[u8]) -> Arrival {
        if self.wild {
            return Arrival::Pong;
        }
        let number = <[u8; 8]>::try_from(payload).map_or(0, u64::from_be_bytes);
        if number <= self.ponged || number > self.pings {
            return Arrival::Wrong(format!("pong {number} after {}", self.ponged));
        }
        self.ponged = number;
        Arrival::Pong
    }

    /// Takes one whole frame off what was received.
    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (&first, rest) = self.received.split_first()?;
        assert_eq!(first & 0xf0, 0x80, "the relay sends whole messages without extensions");
        let (&second, rest) = rest.split_first()?;
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (len, head) = match second {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
            len => (usize::from(len), 2),
        };
        if self.received.len() < head + len {
            return None;
        }
        let payload = self.received[head..head + len].to_vec();
        self.received.drain(..head + len);
        Some((first & 0x0f, payload))
    }
}

/// Where it begins.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// For whatever the query says.
pub(crate) const TOKEN: &str = "simulated-token";
/// For pairing alone.
pub(crate) const PAIRING_TOKEN: &str = "simulated-pairing-token";
