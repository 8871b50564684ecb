//! Outside parties, and the kill points that whoever works with them shares.

pub mod crash;

#[cfg(feature = "docker")]
pub mod docker;

#[cfg(feature = "git")]
pub mod git;

#[cfg(feature = "registry")]
pub mod registry;

#[cfg(feature = "mail")]
pub mod mail;

#[cfg(feature = "otlp")]
pub mod otlp;

pub mod outgoing;
#[cfg(any(feature = "otlp", feature = "registry"))]
mod retry_after;
