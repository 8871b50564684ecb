//! The simulation of a train: chance decides what happens next, the server dies at every kind of effect and place, and
//! the promises are checked after every step. A seed gives the same life again. It knows the domain alone, so that a
//! change there is tried within seconds. Not here: real parts.
//!
//! To extend it: what an effect does to the world is an arm of `Sim::act` (drivers.rs), what people do is in people.rs,
//! runners in runner.rs; a promise is a check in invariants.rs that names its [`Promise`]; a safeguard is a line in
//! safeguards.rs and an `if` where it works; a new state or event is a line in machines.rs, where it does not compile
//! until it is listed.

mod drivers;
mod invariants;
pub mod machines;
mod many;
mod people;
mod promise;
mod rng;
mod runner;
mod safeguards;
mod shrink;
mod sim;
mod stage;
mod stats;
mod store;
mod world;

pub use many::{live_many, story};
pub use promise::{Promise, Violation};
pub use safeguards::Safeguards;
pub use shrink::shrink;
pub use sim::{Failure, Life, Point, Sim};
pub use stats::{Pair, Stats};
