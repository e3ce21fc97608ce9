//! What one end tells the other about the end of a session.

use serde::{Deserialize, Serialize};

/// The description of an alert as it goes on the wire. Source: RFC 8446 §6, RFC 5246 §7.2.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Alert(pub u8);

impl Alert {
    /// Nothing more will be sent.
    pub const CLOSE_NOTIFY: Self = Self(0);
    /// A record of a kind that has no place here.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// A record that is not what the peer sealed.
    pub const BAD_RECORD_MAC: Self = Self(20);
    /// A record larger than records may be.
    pub const RECORD_OVERFLOW: Self = Self(22);
    /// A value that has no meaning.
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    /// A message that cannot be read.
    pub const DECODE_ERROR: Self = Self(50);
    /// A record of another protocol version.
    pub const PROTOCOL_VERSION: Self = Self(70);
    /// The user changed their mind; close_notify follows.
    pub const USER_CANCELED: Self = Self(90);
    /// A second handshake is refused.
    pub const NO_RENEGOTIATION: Self = Self(100);

    /// The two bytes of the message: level and description.
    pub const fn message(self) -> [u8; 2] {
        let level = match self {
            Self::CLOSE_NOTIFY | Self::USER_CANCELED | Self::NO_RENEGOTIATION => WARNING,
            _ => FATAL,
        };
        [level, self.0]
    }
}

/// The level of alerts after which a session may go on.
pub(super) const WARNING: u8 = 1;
const FATAL: u8 = 2;
