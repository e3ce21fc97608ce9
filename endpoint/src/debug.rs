//! What the two ends show of themselves in `Debug`: kinds and lengths, never a text. Texts are what
//! the keys are for, and a `Debug` line ends up in somebody's log.

use std::fmt;

use crate::client::{ClientAction, ClientInput};
use crate::daemon::{DaemonAction, DaemonInput};
use crate::observer::Observation;
use crate::transport::Received;

impl fmt::Debug for ClientInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("Connected"),
            Self::Disconnected => f.write_str("Disconnected"),
            Self::Writable(writable) => f.debug_tuple("Writable").field(writable).finish(),
            Self::Frame(frame) => f.debug_struct("Frame").field("bytes", &frame.len()).finish(),
            Self::Send { message, text } => f
                .debug_struct("Send")
                .field("message", message)
                .field("text_bytes", &text.len())
                .finish(),
            Self::Expired => f.write_str("Expired"),
        }
    }
}

impl fmt::Debug for ClientAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transmit { frame, message } => f
                .debug_struct("Transmit")
                .field("frame_bytes", &frame.len())
                .field("message", message)
                .finish(),
            Self::Deliver { text } => {
                f.debug_struct("Deliver").field("text_bytes", &text.len()).finish()
            }
            Self::Opened { session, epoch, rotated } => f
                .debug_struct("Opened")
                .field("session", session)
                .field("epoch", epoch)
                .field("rotated", rotated)
                .finish(),
            Self::HandshakeFailed { error, retry_at } => f
                .debug_struct("HandshakeFailed")
                .field("error", error)
                .field("retry_at", retry_at)
                .finish(),
            Self::Lost { retry_at } => f.debug_struct("Lost").field("retry_at", retry_at).finish(),
            Self::Undelivered { message, reason } => f
                .debug_struct("Undelivered")
                .field("message", message)
                .field("reason", reason)
                .finish(),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
            Self::Status { code, message, retryable } => f
                .debug_struct("Status")
                .field("code", code)
                .field("message_bytes", &message.as_ref().map(String::len))
                .field("retryable", retryable)
                .finish(),
            Self::Redirect { url } => {
                f.debug_struct("Redirect").field("url_bytes", &url.len()).finish()
            }
        }
    }
}

impl fmt::Debug for DaemonInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("Connected"),
            Self::Disconnected => f.write_str("Disconnected"),
            Self::Writable(writable) => f.debug_tuple("Writable").field(writable).finish(),
            Self::Frame(frame) => f.debug_struct("Frame").field("bytes", &frame.len()).finish(),
            Self::Send { to, message, text } => f
                .debug_struct("Send")
                .field("to", to)
                .field("message", message)
                .field("text_bytes", &text.len())
                .finish(),
            Self::Expired => f.write_str("Expired"),
        }
    }
}

impl fmt::Debug for DaemonAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transmit { frame, message } => f
                .debug_struct("Transmit")
                .field("frame_bytes", &frame.len())
                .field("message", message)
                .finish(),
            Self::Deliver { from, text } => f
                .debug_struct("Deliver")
                .field("from", from)
                .field("text_bytes", &text.len())
                .finish(),
            Self::Opened(caller) => f.debug_tuple("Opened").field(caller).finish(),
            Self::Rotated(caller) => f.debug_tuple("Rotated").field(caller).finish(),
            Self::Ended { conversation, reason } => f
                .debug_struct("Ended")
                .field("conversation", conversation)
                .field("reason", reason)
                .finish(),
            Self::Undelivered { message, reason } => f
                .debug_struct("Undelivered")
                .field("message", message)
                .field("reason", reason)
                .finish(),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.debug_struct("Text").field("bytes", &text.len()).finish(),
            Self::Undelivered { message, reason } => f
                .debug_struct("Undelivered")
                .field("message", message)
                .field("reason", reason)
                .finish(),
            Self::Status { code, message, retryable } => f
                .debug_struct("Status")
                .field("code", code)
                .field("message_bytes", &message.as_ref().map(String::len))
                .field("retryable", retryable)
                .finish(),
        }
    }
}

impl fmt::Debug for Observation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("Connected"),
            Self::Disconnected(error) => f.debug_tuple("Disconnected").field(error).finish(),
            Self::TextQueued { message, text } => f
                .debug_struct("TextQueued")
                .field("message", message)
                .field("text_bytes", &text.len())
                .finish(),
            Self::FrameSent { message, frame } => f
                .debug_struct("FrameSent")
                .field("message", message)
                .field("frame_bytes", &frame.len())
                .finish(),
            Self::FrameReceived { frame } => {
                f.debug_struct("FrameReceived").field("frame_bytes", &frame.len()).finish()
            }
            Self::TextReceived { from, text } => f
                .debug_struct("TextReceived")
                .field("from", from)
                .field("text_bytes", &text.len())
                .finish(),
            Self::SessionOpened { session, epoch, rotated } => f
                .debug_struct("SessionOpened")
                .field("session", session)
                .field("epoch", epoch)
                .field("rotated", rotated)
                .finish(),
            Self::HandshakeFailed(error) => f.debug_tuple("HandshakeFailed").field(error).finish(),
            Self::DaemonAway => f.write_str("DaemonAway"),
            Self::CallerOpened { caller, rotated } => f
                .debug_struct("CallerOpened")
                .field("caller", caller)
                .field("rotated", rotated)
                .finish(),
            Self::CallerEnded { conversation, reason } => f
                .debug_struct("CallerEnded")
                .field("conversation", conversation)
                .field("reason", reason)
                .finish(),
            Self::Undelivered { message, reason } => f
                .debug_struct("Undelivered")
                .field("message", message)
                .field("reason", reason)
                .finish(),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
            Self::Status { code } => f.debug_struct("Status").field("code", code).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ConversationId, MessageId};

    const TEXT: &str = "hush";

    fn assert_hidden(shown: &[String]) {
        for line in shown {
            assert!(!line.contains(TEXT), "{line}");
            assert!(line.contains("bytes: 4"), "{line}");
        }
    }

    #[test]
    fn a_client_shows_no_text() {
        let text = || TEXT.to_owned();
        let message = MessageId(1);
        assert_hidden(&[
            format!("{:?}", ClientInput::Frame(TEXT)),
            format!("{:?}", ClientInput::Send { message, text: text() }),
            format!("{:?}", ClientAction::Transmit { frame: text(), message: None }),
            format!("{:?}", ClientAction::Deliver { text: text() }),
            format!("{:?}", ClientAction::Redirect { url: text() }),
            format!("{:?}", Received::Text(text())),
        ]);
    }

    #[test]
    fn a_daemon_shows_no_text() {
        let text = || TEXT.to_owned();
        let (message, to) = (MessageId(1), ConversationId(1));
        assert_hidden(&[
            format!("{:?}", DaemonInput::Frame(TEXT)),
            format!("{:?}", DaemonInput::Send { to, message, text: text() }),
            format!("{:?}", DaemonAction::Transmit { frame: text(), message: None }),
            format!("{:?}", DaemonAction::Deliver { from: to, text: text() }),
        ]);
    }

    #[test]
    fn an_observation_shows_no_text() {
        let message = MessageId(1);
        assert_hidden(&[
            format!("{:?}", Observation::TextQueued { message, text: TEXT }),
            format!("{:?}", Observation::FrameSent { message: None, frame: TEXT }),
            format!("{:?}", Observation::FrameReceived { frame: TEXT }),
            format!("{:?}", Observation::TextReceived { from: None, text: TEXT }),
        ]);
    }
}
