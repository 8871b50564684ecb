//! Image registries: a client of the OCI distribution protocol, and the promoter that copies an image graph by digest
//! from one registry to another. What only Harbor has, and the building of images, does not live here.
//!
//! The protocol is spoken over reqwest and not through `oci-client`: that crate asks a mount token for one side only,
//! treats the 202 answer to a mount as a failure, goes on anonymously when a token is refused and never retries, and
//! each of these is a promise of the promoter.

mod auth;
mod blob;
mod calls;
mod client;
mod error;
mod graph;
mod promote;
mod reference;
mod retry;
mod transfer;

pub use calls::{Manifest, Referrers};
pub use client::{ClientLimits, Credentials, RegistryClient, RegistryConfig};
pub use error::{PromoteError, RegistryError};
pub use graph::Descriptor;
pub use promote::{PromoteOptions, PromotePhase, PromoteProgress, Promoted, Promotion, copy, promote};
pub use reference::{InvalidReference, Reference, Repository, Tag};
