//! The Windlass delivery server as a library: `main` puts it together, tests use parts of it.

pub mod app;
pub mod config;
pub mod gateway;
pub mod store;
