//! The server library.

pub mod store;
