//! The wire: types and services generated from `proto/`, and nothing else.
//!
//! - [`v1`]: the public surface, `quorate.v1`.
//! - [`internal`]: node to node, `quorate.internal.v1`; no compatibility promise to clients.

#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

// Nested as the packages are: generated code refers to other packages by their relative places.
mod quorate {
    pub mod v1 {
        tonic::include_proto!("quorate.v1");
    }
    pub mod internal {
        pub mod v1 {
            tonic::include_proto!("quorate.internal.v1");
        }
    }
}

/// Node-to-node traffic, package `quorate.internal.v1`.
pub use quorate::internal::v1 as internal;
/// The public surface, package `quorate.v1`.
pub use quorate::v1;

/// Encoded `FileDescriptorSet` of the public surface, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
