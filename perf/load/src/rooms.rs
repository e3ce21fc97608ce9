//! Rooms: one connection speaks, all others of its channel hear.
//!
//! What goes round is viewer presence, the one message that a relay multiplies by itself. The next
//! goes when all have heard the one before, or as many before as the depth allows.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::envelope::{Envelope, SEQ_FIRST, random_base64};
use crate::flow::{Between, Receiver, Sender};
use crate::job::RoomsWork;
use crate::outcome::{self, Clocks, Outcome};
use crate::platform;
use crate::processor;
use crate::readiness;
use crate::silence::Silence;
use crate::span::{Sampler, Span};
use crate::target::Target;
use crate::upgrade::{Upgrade, expect_text, send_text};
use crate::wire::Wire;

/// Rooms of one process, driven by one thread.
pub(crate) struct Rooms {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    rooms: Vec<Room>,
    buffer: Box<[u8]>,
    is_feeding: bool,
    depth: u64,
    /// Frames heard.
    frames: u64,
    bytes: u64,
    /// Nanoseconds from when a frame was let go until a listener had it, of every listener.
    latency: Histogram<u64>,
    subject: u32,
}

struct Room {
    speaker: Wire,
    is_full: bool,
    sender: Sender,
    sent_at: Box<[u64]>,
    listeners: Vec<Listener>,
    /// How many listeners have heard each frame in flight.
    heard: Box<[usize]>,
    /// Frames that all have heard.
    complete: u64,
}

struct Listener {
    wire: Wire,
    receiver: Receiver,
}

impl Rooms {
    /// Opens all connections and subscribes the listeners.
    pub(crate) fn open(
        target: &Target,
        subject: u32,
        work: &RoomsWork,
        opened: impl Fn(usize),
    ) -> Result<Self> {
        ensure!(target.between == Between::Relay, "rooms need a relay");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut rooms = Vec::new();
        for number in work.numbers.clone() {
            let room =
                Room::open(target, number, work).with_context(|| format!("room {number}"))?;
            let index = rooms.len();
            epoll::add(&epoll, &room.speaker, token(index, SPEAKER), EventFlags::IN)?;
            for (seat, listener) in room.listeners.iter().enumerate() {
                epoll::add(&epoll, &listener.wire, token(index, seat as u32), EventFlags::IN)?;
            }
            rooms.push(room);
            opened(rooms.len() * (work.listeners + 1));
        }
        Ok(Self {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            rooms,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            is_feeding: false,
            depth: work.depth as u64,
            frames: 0,
            bytes: 0,
            latency: outcome::histogram(),
            subject,
        })
    }

    /// Lets all speak over a span, and lets everything arrive.
    pub(crate) fn run(&mut self, span: &Span, sampler: &mut Sampler<'_>) -> Result<Outcome> {
        self.is_feeding = true;
        for index in 0..self.rooms.len() {
            self.rooms[index].release(self.depth);
            self.write(index)?;
        }
        self.turn_until(span.measure_ns, sampler)?;
        let clocks = Clocks::read(self.subject)?;
        (self.frames, self.bytes) = (0, 0);
        self.latency.reset();
        self.turn_until(span.end_ns, sampler)?;
        let mut outcome = clocks.passed()?;
        (outcome.frames, outcome.bytes) = (self.frames, self.bytes);
        outcome.latency = outcome::encode(&self.latency)?;
        self.is_feeding = false;
        let mut silence = Silence::new(self.bytes);
        while self.rooms.iter().any(|room| room.complete < room.sender.released()) {
            silence.bear(self.bytes, "frames have not reached everybody")?;
            self.turn(PATIENCE_NS)?;
        }
        outcome.verified =
            self.rooms.iter().map(|room| room.complete * room.listeners.len() as u64).sum();
        let spoken = self.rooms.iter().map(|room| room.complete).sum();
        outcome.counts.insert("frames spoken".to_owned(), spoken);
        Ok(outcome)
    }

    fn turn_until(&mut self, end_ns: u64, sampler: &mut Sampler<'_>) -> Result<()> {
        let mut silence = Silence::new(self.bytes);
        loop {
            let now = processor::now_ns();
            if now >= end_ns {
                return Ok(());
            }
            self.turn(end_ns.min(sampler.next_ns()).saturating_sub(now))?;
            sampler.look(now, self.frames);
            silence.bear(self.bytes, "everything that was said is missing")?;
        }
    }

    fn turn(&mut self, patience_ns: u64) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        readiness::wait(&self.epoll, &mut events, patience_ns)?;
        for event in events.drain(..) {
            // Events are packed: fields are copied, not borrowed.
            let (data, flags) = (event.data.u64(), event.flags);
            let (index, seat) = ((data >> 32) as usize, data as u32);
            if flags.contains(EventFlags::OUT) {
                self.write(index)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP) {
                self.read(index, seat).with_context(|| format!("room {index}, seat {seat}"))?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn read(&mut self, index: usize, seat: u32) -> Result<()> {
        let room = &mut self.rooms[index];
        let wire = match room.listeners.get_mut(seat as usize) {
            Some(listener) => &mut listener.wire,
            None => &mut room.speaker,
        };
        let len = match wire.read_some(&mut self.buffer) {
            Ok(0) => bail!("the connection was closed"),
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now = processor::now_ns();
        let Some(listener) = room.listeners.get_mut(seat as usize) else {
            let text = String::from_utf8_lossy(&self.buffer[..len]);
            bail!("the speaker was told something: {text}");
        };
        let numbers = listener.receiver.arrive(&self.buffer[..len])?;
        ensure!(numbers.end <= room.sender.released(), "more was heard than was said");
        self.frames += numbers.end - numbers.start;
        self.bytes += len as u64;
        let mut complete = 0;
        for number in numbers {
            let slot = (number % self.depth) as usize;
            self.latency.saturating_record(now - room.sent_at[slot]);
            room.heard[slot] += 1;
            if room.heard[slot] == room.listeners.len() {
                room.heard[slot] = 0;
                complete += 1;
            }
        }
        room.complete += complete;
        if complete > 0 && self.is_feeding {
            room.release(complete);
            self.write(index)?;
        }
        Ok(())
    }

    fn write(&mut self, index: usize) -> Result<()> {
        let room = &mut self.rooms[index];
        let is_full = !room.sender.write(&mut room.speaker, usize::MAX)?;
        if is_full != room.is_full {
            room.is_full = is_full;
            let mut events = EventFlags::IN;
            events.set(EventFlags::OUT, is_full);
            epoll::modify(&self.epoll, &room.speaker, token(index, SPEAKER), events)?;
        }
        Ok(())
    }
}

impl Room {
    fn open(target: &Target, number: usize, work: &RoomsWork) -> Result<Self> {
        let workspace = format!("room-{number:05}");
        let channel = format!("agent-session:room-{number:05}");
        let connect = |seat: usize| {
            let client = format!("viewer-{seat:05}");
            let token = platform::viewer_token(&workspace, TARGET, &client, &channel);
            let upgrade = Upgrade {
                role: "client",
                workspace: &workspace,
                target: TARGET,
                token: token.into(),
            };
            target.open(number + seat, &upgrade)
        };
        let envelopes = [presence(&channel, work.bytes)?];
        let pattern: Rc<[u8]> = vec![0; work.depth].into();
        let speaker = connect(work.listeners)?;
        speaker.socket().set_nonblocking(true)?;
        let mut listeners = Vec::new();
        for seat in 0..work.listeners {
            let mut wire = connect(seat)?;
            send_text(&mut wire, &subscribe(&channel))?;
            expect_text(&mut wire, &subscribed(&channel))?;
            wire.socket().set_nonblocking(true)?;
            let receiver = Receiver::new(&envelopes, &pattern, target.between);
            listeners.push(Listener { wire, receiver });
        }
        Ok(Self {
            speaker,
            is_full: false,
            sender: Sender::new(&envelopes, &pattern),
            sent_at: vec![0; work.depth].into_boxed_slice(),
            listeners,
            heard: vec![0; work.depth].into_boxed_slice(),
            complete: 0,
        })
    }

    fn release(&mut self, count: u64) {
        let now = processor::now_ns();
        for number in self.sender.released()..self.sender.released() + count {
            self.sent_at[(number % self.sent_at.len() as u64) as usize] = now;
        }
        self.sender.release(count);
    }
}

fn token(room: usize, seat: u32) -> EventData {
    EventData::new_u64((room as u64) << 32 | u64::from(seat))
}

fn subscribe(channel: &str) -> String {
    format!(r#"{{"type":"viewport.session_events.subscribe/v1","channel":"{channel}"}}"#)
}

fn subscribed(channel: &str) -> String {
    format!(r#"{{"type":"viewport.session_events.subscribed/v1","channel":"{channel}","#)
        + r#""afterSequence":0,"authoritativeSource":"session_events","#
        + r#""websocketRequiredForBackfill":false}"#
}

/// A presence message of an exact size whose user's name is a number.
fn presence(channel: &str, bytes: usize) -> Result<Envelope> {
    let head = format!(r#"{{"type":"viewport.session_viewer_presence/v1","channel":"{channel}","#)
        + r#""action":"joined","userId":""#;
    let seq_at = head.len();
    let middle = format!("{SEQ_FIRST}\",\"filling\":\"");
    let least = head.len() + middle.len() + 2;
    ensure!(bytes >= least, "a presence message has at least {least} bytes, not {bytes}");
    ensure!(bytes <= PRESENCE_BYTES_MAX, "a relay multiplies at most {PRESENCE_BYTES_MAX} bytes");
    let filling = random_base64(channel, bytes - least);
    Ok(Envelope { text: format!("{head}{middle}{filling}\"}}"), seq_at })
}

const TARGET: &str = "target";
/// The seat of who speaks.
const SPEAKER: u32 = u32::MAX;
/// Bytes of a message that is multiplied, at most: beyond, a relay denies it.
const PRESENCE_BYTES_MAX: usize = 16 << 10;
/// Bytes of one read, at most.
const READ_BYTES: usize = 256 << 10;
/// Sockets served in one turn, at most.
const EVENTS_MAX: usize = 256;
/// How long a turn waits while nothing is due.
const PATIENCE_NS: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presence_message_has_exactly_the_size_asked_for_and_is_json() {
        for bytes in [256, 1000, 4096] {
            let message = presence("agent-session:room-00001", bytes).expect("it fits");
            assert_eq!(message.text.len(), bytes);
            let json: serde_json::Value = serde_json::from_str(&message.text).expect("JSON");
            assert_eq!(json["userId"], SEQ_FIRST.to_string());
            assert_eq!(&message.text[message.seq_at..][..10], SEQ_FIRST.to_string());
        }
        assert!(presence("agent-session:room-00001", 100).is_err());
        assert!(presence("agent-session:room-00001", 20_000).is_err());
    }
}
