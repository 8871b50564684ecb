//! The Windlass delivery server as a library: `main` puts it together, tests use parts of it.

pub mod app;
pub mod config;
pub mod crash;
pub mod driver;
pub mod gateway;
pub mod http;
pub mod letters;
pub mod mailbox;
pub mod random;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
