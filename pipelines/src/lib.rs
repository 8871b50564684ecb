//! The delivery domain of Windlass, sans-IO: no runtime, no network, no clock, no environment.
//! Time arrives inside events; what the world must do leaves as [`effect::Effect`]s.
//! Not here: anything that reads or writes outside memory.

pub mod approval;
pub mod definition;
pub mod effect;
pub mod errors;
pub mod hold;
pub mod ids;
pub mod journal;
pub mod labels;
pub mod plan;
pub mod protocol;
pub mod release;
pub mod repository;
pub mod retention;
pub mod rollout;
pub mod run;
#[cfg(test)]
mod samples;
pub mod secret;
pub mod service;
pub mod time;
pub mod train;
pub mod trigger;
pub mod why;
