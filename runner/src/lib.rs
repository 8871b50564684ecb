//! The agent that executes runs: checkout, steps in containers, image, push. It asks the server for work and tells it
//! what happened; it decides nothing about releases and stores nothing that the server does not have.

mod agent;
mod context;
mod disk;
mod folder;
pub mod http;
mod job;
mod link;
mod log;
pub mod mask;

pub use agent::{Agent, AgentConfig, AgentError};
pub use link::Dismissed;
