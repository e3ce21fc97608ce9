//! What the planes say to each other and to orchestrators, as protobuf.
//!
//! Everything here is made from the schemas in `proto/`; they are where each message is explained.
//! [`DESCRIPTORS`] is the same for whoever asks a server what it speaks.
#![forbid(unsafe_code)]

mod json;

pub use json::json;

/// The link between a data plane and its control plane.
pub mod plane {
    /// `relay.plane.v1`
    #[expect(missing_docs, reason = "made from the schema")]
    #[expect(clippy::large_enum_variant, reason = "most messages are the large one")]
    pub mod v1 {
        tonic::include_proto!("relay.plane.v1");
    }
}

/// What operators and orchestrators ask of a relay.
pub mod control {
    /// `relay.control.v1`
    #[expect(missing_docs, reason = "made from the schema")]
    pub mod v1 {
        tonic::include_proto!("relay.control.v1");
    }
}

/// The schemas as a `google.protobuf.FileDescriptorSet`, encoded.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
