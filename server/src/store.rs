//! The store: what the server keeps. The engine beneath it and the log files beside it live in modules of their own.

pub mod engine;
pub mod logs;
