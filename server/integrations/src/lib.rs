//! Outside parties.
#[cfg(feature = "docker")]
pub mod docker;
