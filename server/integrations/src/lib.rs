//! Outside parties.
#[cfg(feature = "docker")]
pub mod docker;

#[cfg(feature = "registry")]
pub mod registry;
#[cfg(feature = "git")]
pub mod git;
