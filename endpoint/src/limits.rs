//! What an end keeps to. Every field is a setting with the specification's default.

use std::time::Duration;

/// Bounds of one end. Source of the defaults, where nothing else is said: endpoint specification,
/// section 5.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Messages a daemon sends in a session before it wants new keys. Keeps each key far below
    /// [`crate::MESSAGES_PER_KEY_MAX`]. Reached: `relay_key_update_required`, once.
    pub rotate_after: u64,
    /// Messages a client sends in a session before it asks for new keys by itself: the safety net
    /// for a daemon that never does. Ours.
    pub ask_after: u64,
    /// How long a session may lie unused. Reached: it ends.
    pub session_idle: Duration,
    /// Sessions of one daemon. Protects its memory. Reached: the oldest ends.
    pub sessions_max: usize,
    /// Messages that wait while the relay is away. Reached: the oldest is refused to its sender.
    pub queue_messages_max: usize,
    /// Bytes of text that wait while the relay is away. Reached: the oldest is refused to its
    /// sender.
    pub queue_bytes_max: usize,
    /// How long a handshake, of the relay's connection or of a session, may take.
    pub handshake_deadline: Duration,
    /// Bytes of one frame. Reached: a text to send is refused, a frame received ends the
    /// connection. Default: the relay's own limit.
    pub frame_bytes_max: usize,
    /// Texts that wait for a client's user. Reached: the socket is not read until some are taken.
    /// Ours.
    pub inbox_messages_max: usize,
    /// Bytes of text that wait for a client's user. Reached: as above. Ours.
    pub inbox_bytes_max: usize,
    /// Pairing channels open at once. Reached: the oldest is closed. Section 6.
    pub pairing_channels_max: usize,
    /// How long a pairing channel stays open. Section 6.
    pub pairing_ttl: Duration,
    /// When to try again.
    pub retry: Retry,
}

/// How an end spaces its attempts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retry {
    /// Longest wait after the first failure; it doubles with each further one.
    pub first: Duration,
    /// Where doubling stops.
    pub longest: Duration,
    /// Random addition to each wait, at most.
    pub jitter: Duration,
    /// Failures in a row that call for a pause.
    pub failures_max: u32,
    /// The pause.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rotate_after: 250,
            ask_after: 10_000,
            session_idle: Duration::from_secs(15 * 60),
            sessions_max: 4096,
            queue_messages_max: 500,
            queue_bytes_max: 4 << 20,
            handshake_deadline: Duration::from_secs(10),
            frame_bytes_max: 1 << 20,
            inbox_messages_max: 1024,
            inbox_bytes_max: 4 << 20,
            pairing_channels_max: 2048,
            pairing_ttl: Duration::from_secs(10 * 60),
            retry: Retry::default(),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            jitter: Duration::from_millis(250),
            failures_max: 5,
            pause: Duration::from_secs(60),
        }
    }
}
