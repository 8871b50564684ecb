//! The server library.

pub mod store;
pub mod http;
