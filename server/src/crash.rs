//! Kill points and left-out safeguards for the crash tests, shared with the runner on its own machine. Not here: which
//! there are.

pub use integrations::crash::{MARK_VARIABLE, PLACES, POINT_VARIABLE, point, without};
