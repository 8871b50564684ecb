//! Outside parties.
#[cfg(feature = "docker")]
pub mod docker;

#[cfg(feature = "git")]
pub mod git;

#[cfg(feature = "registry")]
pub mod registry;

#[cfg(feature = "mail")]
pub mod mail;

pub mod outgoing;
