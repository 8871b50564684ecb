//! The simulation of a train: chance decides what happens next, the server dies at every kind of effect and place, and
//! the promises are checked after every step. A seed gives the same life again. It knows the domain alone, so that a
//! change there is tried within seconds. Not here: real parts.

mod drivers;
mod invariants;
mod people;
mod rng;
mod runner;
mod sim;
mod store;
mod world;

pub use sim::{Failure, Point, Safeguards, Sim, Stats, Violation};
