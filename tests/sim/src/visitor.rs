//! A simulated HTTP client: asks several things at once on one connection.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use relay_driver::sim::{Peer, PeerState, Seed, World};

use crate::oracle::Oracle;
use crate::peer::{Arrival, find};

/// One HTTP client. It connects again whenever it is gone.
pub(crate) struct Visitor {
    index: usize,
    peer: Option<Peer>,
    /// Names the connection; never used again.
    life: u64,
    requests: u64,
    received: Vec<u8>,
    outgoing: Vec<u8>,
    /// What is to be answered, in order.
    asked: VecDeque<Question>,
}

/// A request, by the answer that fits.
#[derive(Debug)]
enum Question {
    Health,
    /// The simulated control plane answers with the query.
    Metrics(String),
    Nothing,
}

impl Visitor {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            peer: None,
            life: 0,
            requests: 0,
            received: Vec::new(),
            outgoing: Vec::new(),
            asked: VecDeque::new(),
        }
    }

    /// Connects if it is not connected.
    pub(crate) fn connect(&mut self, world: &World, listener: usize, life: u64) -> bool {
        if self.peer.is_some() {
            return false;
        }
        let host = Ipv4Addr::new(127, 0, 0, 130 + self.index as u8);
        self.peer = world.connect(listener, SocketAddr::new(IpAddr::V4(host), 40_000));
        self.life = life;
        self.received.clear();
        self.outgoing.clear();
        self.asked.clear();
        self.peer.is_some()
    }

    /// Whether it holds a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.peer.is_some()
    }

    /// Reads, checks, and asks on when everything was answered.
    pub(crate) fn turn(&mut self, oracle: &mut Oracle, seed: &mut Seed, talk: bool) -> Result<()> {
        let Some(peer) = self.peer.take() else {
            return Ok(());
        };
        let taken = peer.write(&self.outgoing);
        self.outgoing.drain(..taken);
        self.received.extend_from_slice(&peer.read(64 << 10));
        while let Some(status) = self.take_answer()? {
            oracle.witness(self.life, Arrival::Answered(status))?;
        }
        if peer.state() != PeerState::Open {
            peer.shutdown();
            oracle.witness(self.life, Arrival::Gone)?;
            return Ok(());
        }
        if talk && self.asked.is_empty() && self.outgoing.is_empty() {
            if seed.below(8) == 0 {
                peer.reset();
                return Ok(());
            }
            for _ in 0..seed.length(3) {
                self.ask(seed);
            }
        }
        self.peer = Some(peer);
        Ok(())
    }

    /// At the end: is an answer missing?
    pub(crate) fn expect_answers(&self) -> Result<()> {
        let missing = self.asked.len();
        ensure!(self.peer.is_none() || missing == 0, "{missing} requests never answered");
        Ok(())
    }

    fn ask(&mut self, seed: &mut Seed) {
        self.requests += 1;
        let query = format!("visit={}.{}", self.life, self.requests);
        let (path, question) = match seed.below(3) {
            0 => ("health", Question::Health),
            1 => ("metrics", Question::Metrics(query.clone())),
            _ => ("nothing", Question::Nothing),
        };
        let request = format!("GET /{path}?{query} HTTP/1.1\r\nHost: relay\r\n\r\n");
        self.outgoing.extend_from_slice(request.as_bytes());
        self.asked.push_back(question);
    }

    /// Takes one whole answer off what was received and compares it with its question.
    fn take_answer(&mut self) -> Result<Option<u16>> {
        let Some(end) = find(&self.received, b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&self.received[..end])?.to_ascii_lowercase();
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let Some(len) = len else {
            return self.take_refusal(&head).map(Some);
        };
        let whole = end + 4 + len.parse::<usize>()?;
        if self.received.len() < whole {
            return Ok(None);
        }
        let status = head.get(9..12).context("an answer without status")?.parse()?;
        let answer: Vec<u8> = self.received.drain(..whole).collect();
        let body = std::str::from_utf8(&answer[end + 4..])?;
        let question = self.asked.pop_front().context("an answer that nobody asked for")?;
        match (status, &question) {
            (200, Question::Health) => ensure!(body.starts_with(r#"{"ok":true"#), "{body}"),
            (200, Question::Metrics(query)) => ensure!(body == query, "{body} for {query}"),
            (503, Question::Metrics(_)) => {}
            (404, Question::Nothing) => ensure!(body.contains("NOT_FOUND"), "{body}"),
            _ => bail!("{question:?} was answered {status}"),
        }
        Ok(Some(status))
    }

    /// Takes the last answer there is: there is no memory for strangers. It is to something that
    /// was asked.
    fn take_refusal(&mut self, head: &str) -> Result<u16> {
        let is_refusal = head.starts_with("http/1.1 503 ") && head.contains("\r\nretry-after: ");
        ensure!(is_refusal, "an answer without length: {head}");
        ensure!(!self.asked.is_empty(), "a refusal of nothing that was asked");
        self.received.clear();
        self.asked.clear();
        Ok(503)
    }
}
