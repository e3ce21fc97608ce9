//! Names of things that live in more than one room.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One data-plane thread.
#[derive(
    Clone, Copy, Debug, Eq, Hash, PartialEq, Ord, PartialOrd, Serialize, Deserialize, Default,
)]
pub struct ShardId(pub u16);

/// One connection for as long as it lives. The generation makes a reused slot a different
/// connection.
#[derive(
    Clone, Copy, Debug, Eq, Hash, PartialEq, Ord, PartialOrd, Serialize, Deserialize, Default,
)]
pub struct ConnectionId {
    /// The shard that owns the socket.
    pub shard: ShardId,
    /// Index into that shard's table.
    pub slot: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.shard.0, self.slot, self.generation)
    }
}

/// One admitted connection in the control plane's ledger, from `Admit` until `Released`. It stays
/// the same when the socket moves to another shard.
#[derive(
    Clone, Copy, Debug, Eq, Hash, PartialEq, Ord, PartialOrd, Serialize, Deserialize, Default,
)]
pub struct AdmissionId(pub u64);

/// Pairs a question to the shards with their answers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Ord, PartialOrd)]
pub struct QueryId(pub u64);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        /// Shape: a shared string; a clone is a reference count. 1 to 128 UTF-16 units of any text.
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A tenant. All its connections on one relay live on one shard.
    WorkspaceId
}
text_id! {
    /// A machine runtime inside a workspace: what a daemon serves and a client asks for.
    TargetId
}
text_id! {
    /// One relay among those that share a backplane.
    RelayId
}
