//! One side of a WebSocket connection: received bytes in, bytes to answer out.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::frame::{
    Frame, FrameDecoder, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_CONTINUATION, OPCODE_PING,
    OPCODE_PONG, OPCODE_TEXT,
};
use crate::hexadecimal;
use crate::http_message::Head;
use crate::normalise::{Normaliser, shorten};

/// All that is known about a connection.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    pub(crate) habits: Habits,
    /// Every byte until a 101 answer is complete; every byte at all when there is none.
    pub(crate) raw: Vec<u8>,
    /// The head of a 101 answer, when there is one.
    pub(crate) accepted: Option<Head>,
    /// Data messages nobody has taken yet.
    pub(crate) messages: VecDeque<Message>,
    pub(crate) pings: u64,
    pub(crate) pongs: Vec<Vec<u8>>,
    pub(crate) close: Option<Close>,
    pub(crate) close_sent: bool,
    /// The connection is over, in whichever way.
    pub(crate) ended: bool,
    pub(crate) paused: bool,
    pub(crate) aborted: bool,
    pub(crate) discard: bool,
    decoder: FrameDecoder,
    fragments: Option<(u8, Vec<u8>)>,
}

/// What the client does by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    pub(crate) answers_pings: bool,
    pub(crate) echoes_close: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self { answers_pings: true, echoes_close: true }
    }
}

/// A data message, or a frame that no server may send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Message {
    Text(String),
    Binary(Vec<u8>),
    ProtocolViolation(&'static str),
}

impl Message {
    /// The text, or hexadecimal digits of what is not text.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Binary(bytes) => hexadecimal::encode(bytes),
            Self::ProtocolViolation(what) => (*what).to_owned(),
        }
    }

    pub(crate) fn observe(&self, normaliser: &Normaliser) -> Value {
        match self {
            Self::Text(text) => json!({"text": normaliser.observe(text)}),
            Self::Binary(bytes) => json!({"binary": shorten(hexadecimal::encode(bytes))}),
            Self::ProtocolViolation(what) => json!({"protocolViolation": what}),
        }
    }
}

/// A received close frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Close {
    /// 1005 when the frame was empty.
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Close {
    pub(crate) fn observe(&self, normaliser: &Normaliser) -> Value {
        json!({"code": self.code, "reason": normaliser.observe(&self.reason)})
    }
}

impl Conversation {
    pub(crate) fn new(habits: Habits) -> Self {
        Self { habits, ..Self::default() }
    }

    /// Takes in what arrived and gives back what the client's habits answer.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.accepted.is_some() {
            self.decoder.push(bytes);
        } else {
            self.raw.extend_from_slice(bytes);
            let Some((head, head_bytes)) = Head::parse(&self.raw) else {
                return Vec::new();
            };
            if head.status() != Some(101) {
                return Vec::new();
            }
            self.accepted = Some(head);
            self.decoder.push(&self.raw[head_bytes..]);
        }
        let mut answers = Vec::new();
        while let Some(frame) = self.decoder.next() {
            if let Some(answer) = self.on_frame(frame) {
                answers.extend(answer.encode());
            }
        }
        answers
    }

    /// Whether more data may come.
    pub(crate) fn is_open(&self) -> bool {
        !self.ended && self.close.is_none()
    }

    fn on_frame(&mut self, frame: Frame) -> Option<Frame> {
        if frame.masked {
            self.keep(Message::ProtocolViolation("masked frame"));
            return None;
        }
        if frame.rsv != 0 {
            self.keep(Message::ProtocolViolation("reserved bits"));
            return None;
        }
        match frame.opcode {
            OPCODE_PING => {
                self.pings += 1;
                let answers = self.habits.answers_pings;
                return answers.then(|| Frame::from_client(OPCODE_PONG, frame.payload));
            }
            OPCODE_PONG => self.pongs.push(frame.payload),
            OPCODE_CLOSE => return self.on_close(&frame.payload),
            OPCODE_CONTINUATION | OPCODE_TEXT | OPCODE_BINARY => self.on_data(frame),
            _ => self.keep(Message::ProtocolViolation("reserved opcode")),
        }
        None
    }

    fn on_data(&mut self, frame: Frame) {
        let (opcode, mut payload) = match (self.fragments.take(), frame.opcode) {
            (Some(begun), OPCODE_CONTINUATION) => begun,
            (None, OPCODE_TEXT | OPCODE_BINARY) => (frame.opcode, Vec::new()),
            (None, _) => {
                self.keep(Message::ProtocolViolation("continuation of nothing"));
                return;
            }
            (Some(_), _) => {
                self.keep(Message::ProtocolViolation("message within a message"));
                return;
            }
        };
        payload.extend(frame.payload);
        if !frame.fin {
            self.fragments = Some((opcode, payload));
        } else if opcode == OPCODE_TEXT {
            self.keep(Message::Text(String::from_utf8_lossy(&payload).into_owned()));
        } else {
            self.keep(Message::Binary(payload));
        }
    }

    fn on_close(&mut self, payload: &[u8]) -> Option<Frame> {
        let (code, reason) = match payload.split_first_chunk() {
            Some((code, reason)) => (Some(u16::from_be_bytes(*code)), reason),
            None => (None, &[][..]),
        };
        let reason = String::from_utf8_lossy(reason).into_owned();
        self.close.get_or_insert(Close { code: code.unwrap_or(EMPTY_CLOSE_CODE), reason });
        if self.close_sent || !self.habits.echoes_close {
            return None;
        }
        self.close_sent = true;
        Some(Frame::close(code, ""))
    }

    fn keep(&mut self, message: Message) {
        if !self.discard {
            self.messages.push_back(message);
        }
    }
}

/// Stands for a close frame without a code: RFC 6455 section 7.1.5.
const EMPTY_CLOSE_CODE: u16 = 1005;

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        Frame { fin, rsv: 0, opcode, masked: false, payload: payload.into() }.encode()
    }

    fn accepted(habits: Habits) -> Conversation {
        let mut conversation = Conversation::new(habits);
        assert!(conversation.receive(ACCEPTED).is_empty());
        conversation
    }

    #[test]
    fn frames_in_the_same_read_as_the_answer_are_not_lost() {
        let mut conversation = Conversation::default();
        conversation.receive(&[ACCEPTED, &frame(true, OPCODE_TEXT, b"a")].concat());
        assert!(conversation.accepted.is_some());
        assert_eq!(conversation.messages, [Message::Text("a".to_owned())]);
    }

    #[test]
    fn a_refusal_is_kept_byte_for_byte() {
        let mut conversation = Conversation::default();
        conversation.receive(b"HTTP/1.1 401 Unauthorized\r\n\r\n\x81");
        assert!(conversation.accepted.is_none());
        assert!(conversation.raw.ends_with(b"\r\n\r\n\x81"));
    }

    #[test]
    fn fragments_become_one_message_around_a_ping() {
        let mut conversation = accepted(Habits::default());
        let wire = [
            frame(false, OPCODE_BINARY, b"a"),
            frame(true, OPCODE_PING, b"p"),
            frame(false, OPCODE_CONTINUATION, b"b"),
            frame(true, OPCODE_CONTINUATION, b"c"),
        ];
        let answers = conversation.receive(&wire.concat());
        assert_eq!(answers, Frame::from_client(OPCODE_PONG, "p").encode());
        assert_eq!(conversation.messages, [Message::Binary(b"abc".to_vec())]);
        assert_eq!(conversation.pings, 1);
    }

    #[test]
    fn a_close_frame_is_echoed_once_with_its_code_and_without_its_reason() {
        let mut conversation = accepted(Habits::default());
        let close = frame(true, OPCODE_CLOSE, b"\x0f\xa8why");
        assert_eq!(conversation.receive(&close), Frame::close(Some(4008), "").encode());
        assert!(conversation.receive(&close).is_empty());
        assert_eq!(conversation.close, Some(Close { code: 4008, reason: "why".to_owned() }));
    }

    #[test]
    fn an_empty_close_frame_counts_as_1005_and_is_echoed_empty() {
        let mut conversation = accepted(Habits::default());
        let answer = conversation.receive(&frame(true, OPCODE_CLOSE, b""));
        assert_eq!(answer, Frame::close(None, "").encode());
        assert_eq!(conversation.close.unwrap().code, 1005);
    }

    #[test]
    fn habits_can_be_switched_off() {
        let mut silent = accepted(Habits { answers_pings: false, echoes_close: false });
        assert!(silent.receive(&frame(true, OPCODE_PING, b"")).is_empty());
        assert!(silent.receive(&frame(true, OPCODE_CLOSE, b"")).is_empty());
        assert_eq!(silent.pings, 1);
    }

    #[test]
    fn frames_no_server_may_send_are_reported() {
        let mut conversation = accepted(Habits::default());
        let rsv = Frame { fin: true, rsv: 4, opcode: 1, masked: false, payload: Vec::new() };
        conversation.receive(&Frame::from_client(OPCODE_TEXT, "a").encode());
        conversation.receive(&rsv.encode());
        conversation.receive(&frame(true, OPCODE_CONTINUATION, b""));
        conversation.receive(&frame(true, 11, b""));
        let violations = conversation.messages.iter();
        assert_eq!(violations.filter(|m| matches!(m, Message::ProtocolViolation(_))).count(), 4);
    }
}
