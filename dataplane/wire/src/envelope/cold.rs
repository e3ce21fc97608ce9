//! Rare frames, read from their whole text.

use std::borrow::Cow;

use relay_contract::{Secret, WorkerRequest};
use zeroize::Zeroizing;

use super::number::is_integer;
use super::object::{Members, Value};
use super::text::{lossy, trim_js, utf16_len};
use super::{ColdKind, Invalid, call};

/// A rare frame that is valid for its kind.
#[derive(Clone, Debug)]
pub enum ColdFrame {
    /// A worker's call to the platform. The path's form is judged here, its place is not.
    Worker(WorkerRequest),
    /// Wants the events of a channel.
    Subscribe {
        /// Trimmed, WTF-8.
        channel: Box<[u8]>,
        /// Integer, at least 0; 0 when absent.
        after_sequence: f64,
    },
    /// Wants them no longer.
    Unsubscribe {
        /// Trimmed, WTF-8.
        channel: Box<[u8]>,
    },
    /// A viewer comes, stays or goes; the text is fanned out as it stands.
    Presence {
        /// Trimmed, WTF-8.
        channel: Box<[u8]>,
    },
    /// An event for a channel's subscribers, from a daemon.
    SessionEvent {
        /// Trimmed, WTF-8.
        channel: Box<[u8]>,
    },
    /// A fresh token for the connection it comes over.
    Renewal {
        /// 10 to 4096 UTF-16 units, as in an upgrade.
        token: Secret,
    },
}

/// Reads the frame of which a scanner said it is of that kind.
///
/// `text` is the whole text that scanner saw. Errors: a member is missing or has the wrong form.
/// Strings that become a Rust `String` have lone surrogates replaced. Cost: one pass over the text,
/// and copies of the members that are meant. Source: relay specification, sections 6 and 13.
pub fn parse(kind: ColdKind, text: &[u8]) -> Result<ColdFrame, Invalid> {
    let frame = match kind {
        ColdKind::Worker => call::of(text).map(ColdFrame::Worker),
        ColdKind::Subscribe => subscribe(text),
        ColdKind::Unsubscribe => unsubscribe(text),
        ColdKind::Presence => presence(text),
        ColdKind::SessionEvent => session_event(text),
        ColdKind::Renewal => renewal(text),
    };
    frame.ok_or(Invalid::Member)
}

fn subscribe(text: &[u8]) -> Option<ColdFrame> {
    let [after_sequence, name] = members(text, ["afterSequence", "channel"])?;
    let after_sequence = match after_sequence {
        Some(value) => value.number().filter(|&n| is_integer(n) && n >= 0.0)?,
        None => 0.0,
    };
    Some(ColdFrame::Subscribe { channel: channel(name)?, after_sequence })
}

fn unsubscribe(text: &[u8]) -> Option<ColdFrame> {
    let [name] = members(text, ["channel"])?;
    Some(ColdFrame::Unsubscribe { channel: channel(name)? })
}

fn presence(text: &[u8]) -> Option<ColdFrame> {
    let [action, user_id, display_name, sent_at, name] =
        members(text, ["action", "userId", "displayName", "sentAt", "channel"])?;
    let action = action?.string()?;
    let user_id = user_id?.string()?;
    let complete = PRESENCE_ACTIONS.contains(&&*action)
        && (1..=USER_ID_UNITS_MAX).contains(&utf16_len(&user_id))
        && is_absent_or_string(display_name, DISPLAY_NAME_UNITS_MAX)
        && is_absent_or_string(sent_at, usize::MAX);
    if !complete {
        return None;
    }
    Some(ColdFrame::Presence { channel: channel(name)? })
}

fn session_event(text: &[u8]) -> Option<ColdFrame> {
    let [event, name] = members(text, ["event", "channel"])?;
    let event = event?;
    if !event.is_null() {
        event.members()?;
    }
    Some(ColdFrame::SessionEvent { channel: channel(name)? })
}

/// A token that is no UTF-8 has its lone surrogates replaced, and so is none anybody issued.
fn renewal(text: &[u8]) -> Option<ColdFrame> {
    let [token] = members(text, ["token"])?;
    let token = Secret::new(match token?.string()? {
        Cow::Borrowed(token) => lossy(token),
        Cow::Owned(token) => String::from_utf8(token)
            .unwrap_or_else(|error| lossy(&**Zeroizing::new(error.into_bytes()))),
    });
    // What replaces a surrogate is a unit as well.
    let is_whole = TOKEN_UNITS.contains(&utf16_len(token.expose().as_bytes()));
    is_whole.then_some(ColdFrame::Renewal { token })
}

/// The `channel` member: it starts with the prefix as it stands, and is trimmed after that.
fn channel(value: Option<Value<'_>>) -> Option<Box<[u8]>> {
    let channel = value?.string().filter(|channel| channel.starts_with(CHANNEL_PREFIX))?;
    Some(trim_js(&channel).into())
}

fn is_absent_or_string(value: Option<Value<'_>>, units_max: usize) -> bool {
    value.is_none_or(|value| value.string().is_some_and(|text| utf16_len(&text) <= units_max))
}

/// The named members of the object that `text` is; of several equal names the last.
pub(super) fn members<'t, const N: usize>(
    text: &'t [u8],
    names: [&str; N],
) -> Option<[Option<Value<'t>>; N]> {
    let mut values = [None; N];
    for (name, value) in Members::of(text)? {
        if let Some(index) = names.iter().position(|wanted| wanted.as_bytes() == &*name) {
            values[index] = Some(value);
        }
    }
    Some(values)
}

const CHANNEL_PREFIX: &[u8] = b"agent-session:";

const PRESENCE_ACTIONS: [&[u8]; 3] = [b"joined", b"left", b"heartbeat"];

/// UTF-16 units of a viewer's user id, at most; at least one.
const USER_ID_UNITS_MAX: usize = 128;

/// UTF-16 units of a viewer's display name, at most.
const DISPLAY_NAME_UNITS_MAX: usize = 255;

/// UTF-16 units of a token. Source: relay specification, section 3.
const TOKEN_UNITS: std::ops::RangeInclusive<usize> = 10..=4096;

#[cfg(test)]
#[path = "cold_tests.rs"]
mod tests;
